//! Which Nodes are peers: what a watch has told so far, folded into events. Pure.
//!
//! For each Node it keeps its name, its subnets and a digest of what it said, some 90 bytes, and nothing of the record:
//! with that it knows a heartbeat from a change. It relies on no order between Nodes. Two Nodes with the same subnets are
//! one lease: our own where one of the two is ours, since our containers have their addresses from it, else the older; when
//! that one goes, the next has to be asked for what it says ([`Roster::next_recalled`]).

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use super::annotations::Said;
use super::notes::{EventKind, NodeEvent};
use crate::{Entry, Event, LeaseKey, Revision};

#[derive(Debug, Default)]
pub(super) struct Roster {
    /// The name of our own Node.
    own: String,
    holders: HashMap<LeaseKey, Holder>,
    /// Nodes that have the subnets of another.
    rivals: HashMap<LeaseKey, Vec<Rival>>,
    /// Nodes that want to be peers and cannot, and a digest of why.
    strays: HashMap<Box<str>, u64>,
    /// Names of Nodes whose turn has come.
    recalled: VecDeque<Box<str>>,
    notes: Vec<NodeEvent>,
    hasher: RandomState,
}

/// Whose the subnets are.
#[derive(Debug)]
struct Holder {
    name: Box<str>,
    created: Revision,
    digest: u64,
}

/// Who has the same ones.
#[derive(Debug, PartialEq, Eq)]
struct Rival {
    name: Box<str>,
    created: Revision,
}

impl Roster {
    /// An empty one, as seen from this Node.
    pub(super) fn new(own: &str) -> Self {
        Self { own: own.to_owned(), ..Self::default() }
    }

    /// Forgets all of them, to be told anew.
    pub(super) fn clear(&mut self) {
        *self = Self::new(&std::mem::take(&mut self.own));
    }

    /// The name of a Node whose subnets were another's until now: what it says has to be got, for [`Self::recall`].
    pub(super) fn next_recalled(&self) -> Option<Box<str>> {
        self.recalled.front().cloned()
    }

    /// What a Node says whose turn has come.
    pub(super) fn recall(&mut self, name: &str, said: Said) -> Vec<Event> {
        self.recalled.retain(|recalled| **recalled != *name);
        self.apply(name, said)
    }

    /// What an operator should see on our own Node.
    pub(super) fn take_notes(&mut self) -> Vec<NodeEvent> {
        std::mem::take(&mut self.notes)
    }

    /// A Node of a list, in which each Node is named once, told to an empty roster first.
    pub(super) fn list(&mut self, name: &str, said: Said) -> Vec<Event> {
        let mut events = Vec::new();
        match said {
            Said::Nothing => (),
            Said::Lease(entry) => self.arrive(name, entry, &mut events),
            Said::Stray(why) => self.stray(name, why, &mut events),
        }
        for event in &mut events {
            if let Event::Apply(entry) = event {
                *event = Event::InitApply(entry.clone());
            }
        }
        events
    }

    /// A Node as it is now.
    pub(super) fn apply(&mut self, name: &str, said: Said) -> Vec<Event> {
        let mut events = Vec::new();
        match said {
            Said::Nothing => self.depart(name, &mut events),
            Said::Lease(entry) => {
                if !self.is_known(name, &entry) {
                    let digest = self.digest(&entry);
                    match self.holders.get_mut(&entry.key).filter(|holder| *holder.name == *name && holder.created == entry.created) {
                        Some(holder) => {
                            holder.digest = digest;
                            events.push(Event::Apply(entry));
                        }
                        None => {
                            self.depart(name, &mut events);
                            self.arrive(name, entry, &mut events);
                        }
                    }
                }
            }
            Said::Stray(why) => {
                self.leave(name, &mut events);
                self.stray(name, why, &mut events);
            }
        }
        events
    }

    /// A Node that is gone.
    pub(super) fn delete(&mut self, name: &str) -> Vec<Event> {
        let mut events = Vec::new();
        self.depart(name, &mut events);
        events
    }

    /// Whether it says what it said: a heartbeat.
    fn is_known(&self, name: &str, entry: &Entry) -> bool {
        let holds = self.holders.get(&entry.key).is_some_and(|holder| *holder.name == *name && holder.digest == self.digest(entry));
        let is_it = |rival: &Rival| rival.is(name) && rival.created == entry.created;
        holds || self.rivals.get(&entry.key).is_some_and(|rivals| rivals.iter().any(is_it))
    }

    fn digest(&self, Entry { key: _, record, created, modified: _, expiry: _ }: &Entry) -> u64 {
        self.hasher.hash_one((record, created))
    }

    /// A Node that is not in here has these subnets.
    fn arrive(&mut self, name: &str, entry: Entry, events: &mut Vec<Event>) {
        let Entry { key, created, .. } = entry;
        let comer = Holder { name: name.into(), created, digest: self.digest(&entry) };
        match self.holders.remove(&key) {
            None => {
                self.holders.insert(key, comer);
                events.push(Event::Apply(entry));
            }
            Some(holder) if self.rank(&comer) < self.rank(&holder) => {
                self.contest(key, holder, &comer.name, events);
                self.holders.insert(key, comer);
                events.push(Event::Apply(entry));
            }
            Some(holder) => {
                self.contest(key, comer, &holder.name, events);
                self.holders.insert(key, holder);
            }
        }
    }

    /// Which of two with the same subnets comes first.
    fn rank<'a>(&self, holder: &'a Holder) -> (bool, Revision, &'a str) {
        (*holder.name != *self.own, holder.created, &holder.name)
    }

    fn contest(&mut self, key: LeaseKey, loser: Holder, winner: &str, events: &mut Vec<Event>) {
        let Holder { name, created, digest: _ } = loser;
        let why = format!("Node {name} has the podCIDR {} of Node {winner}: delete one of the two, and register it anew", subnets(key));
        if [&*name, winner].contains(&&*self.own) {
            self.notes.push(NodeEvent { kind: EventKind::Warning, reason: "DuplicatePodCIDR", message: why.clone() });
        }
        events.push(Event::Stray(why));
        self.rivals.entry(key).or_default().push(Rival { name, created });
    }

    fn stray(&mut self, name: &str, why: String, events: &mut Vec<Event>) {
        let digest = self.hasher.hash_one(&why);
        if self.strays.insert(name.into(), digest) != Some(digest) {
            events.push(Event::Stray(why));
        }
    }

    /// Takes all that is known of a Node out.
    fn depart(&mut self, name: &str, events: &mut Vec<Event>) {
        self.strays.remove(name);
        self.leave(name, events);
    }

    /// Takes a Node's lease out, and calls for who comes next.
    fn leave(&mut self, name: &str, events: &mut Vec<Event>) {
        if !self.rivals.is_empty() {
            self.rivals.retain(|_, rivals| {
                rivals.retain(|rival| !rival.is(name));
                !rivals.is_empty()
            });
        }
        let held = self.holders.iter().find(|(_, holder)| *holder.name == *name).map(|(key, _)| *key);
        let Some(key) = held else { return };
        self.holders.remove(&key);
        events.push(Event::Delete(key));
        // Each of them finds its place anew: the first comes first, the others are told apart from it.
        let mut rivals = self.rivals.remove(&key).unwrap_or_default();
        rivals.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        self.recalled.extend(rivals.into_iter().map(|rival| rival.name));
    }
}

impl Rival {
    fn is(&self, name: &str) -> bool {
        *self.name == *name
    }
}

/// As a person writes them.
fn subnets(key: LeaseKey) -> String {
    let both = [key.v4(), key.v6()];
    both.into_iter().flatten().map(|subnet| subnet.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;
