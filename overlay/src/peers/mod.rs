//! The lease set: which leases are peers of this host, folded from what the store's watch says.
//!
//! - A bad record is rejected with its key and a reason. It touches no other peer, and the last good record of its own
//!   lease stays in force.
//! - Of two leases that conflict (overlapping subnets, one MAC at two addresses) the older is in force, on every host
//!   and in whatever order they came. The younger waits, and takes its place when the conflict is gone.
//! - Nothing is taken away on the word of an incomplete snapshot, nor, for as long as the [`Guard`] holds them, on the word of one in
//!   which most peers are missing at once, or of a store that has gone back in time. Explicit deletes and expiries pass.
//! - What the kernel already carries when the agent starts is *inherited*: it stays as it is until the first complete
//!   snapshot says otherwise.

mod contest;
mod guard;
mod judge;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use lease::{BackendType, Entry, Event, LeaseKey, Revision, Subnet};

use crate::desired::{Desired, Peer};
use crate::entry::Key;
use contest::{Contest, Outcome};
pub use guard::{Guard, MASS_FLOOR};
pub use judge::{Local, Reject, Verdict, judge};

/// So many keys that name no subnet are told apart: more are a mistake of another kind.
pub const STRAYS_KNOWN: usize = 1_000;

/// Something that a person may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A lease's record was rejected, for another reason than before.
    Rejected(LeaseKey, Reject),
    /// A lease that had been rejected is a peer now.
    Recovered(LeaseKey),
    /// A lease is of a host that does otherwise than we do.
    OtherBackend(LeaseKey, BackendType),
    /// A key that names no subnet was put.
    Stray(String),
    /// Most peers are missing from a snapshot: they stay for now.
    Held {
        /// How many are missing.
        missing: usize,
        /// Of how many.
        of: usize,
        /// Until when.
        until: Instant,
    },
    /// The hold is over: so many peers were taken away after all.
    HoldOver(usize),
}

/// Which leases are peers. What they call for is kept in a [`Desired`] that every call is given.
#[derive(Debug)]
pub struct Peers {
    local: Local,
    guard: Guard,
    contest: Contest,
    /// Peers of the kernel's that no lease has vouched for yet.
    inherited: BTreeSet<Subnet>,
    rejected: BTreeMap<LeaseKey, Rejected>,
    /// Leases of hosts that do otherwise than we do.
    others: BTreeMap<LeaseKey, BackendType>,
    generation: u32,
    complete: bool,
    /// While a snapshot comes in: how many peers there were when it began, and the stray keys known until then.
    incoming: Option<Incoming>,
    held_until: Option<Instant>,
    /// The latest revision that the store has named.
    latest: Revision,
    strays: BTreeSet<String>,
    notices: Vec<Notice>,
}

#[derive(Debug)]
struct Incoming {
    peers_before: usize,
    strays_before: BTreeSet<String>,
}

#[derive(Debug)]
struct Rejected {
    reason: Reject,
    /// The last snapshot that named it.
    generation: u32,
}

impl Peers {
    /// No peers yet, for this host.
    #[must_use]
    pub fn new(local: Local, guard: Guard) -> Self {
        let contest = Contest::new(!local.network.is_ipv4());
        Self {
            local,
            guard,
            contest,
            inherited: BTreeSet::new(),
            rejected: BTreeMap::new(),
            others: BTreeMap::new(),
            generation: 0,
            complete: false,
            incoming: None,
            held_until: None,
            latest: Revision::default(),
            strays: BTreeSet::new(),
            notices: Vec::new(),
        }
    }

    /// This host's place.
    #[must_use]
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// Whether a whole snapshot has been seen: before that nothing may be deleted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The rejected leases with their reasons.
    pub fn rejected(&self) -> impl ExactSizeIterator<Item = (LeaseKey, &Reject)> {
        self.rejected.iter().map(|(key, rejected)| (*key, &rejected.reason))
    }

    /// How many keys there are that name no subnet, as far as the last snapshot and what came after it say; at most [`STRAYS_KNOWN`].
    #[must_use]
    pub fn strays(&self) -> usize {
        self.strays.len()
    }

    /// Until when peers are held that the last snapshot did not name.
    #[must_use]
    pub fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// When [`tick`](Self::tick) has something to do. While a snapshot comes in it has not: its end decides.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.held_until.filter(|_| self.incoming.is_none())
    }

    /// The subnets of the peers that the last snapshot did not name.
    pub fn held(&self) -> impl Iterator<Item = Subnet> + '_ {
        let missing =
            self.contest.missing(self.generation).filter_map(|key| self.contest.subnet_of(key)).chain(self.inherited.iter().copied());
        self.held_until.is_some().then_some(missing).into_iter().flatten()
    }

    /// What has happened since this was last asked.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Takes in what the kernel already carries, or what an earlier run has written down, before the store has said anything.
    pub fn inherit(&mut self, peers: impl IntoIterator<Item = Peer>, desired: &mut Desired, touch: &mut impl FnMut(Key)) {
        for peer in peers {
            let free = desired.overlapping(peer.subnet).is_none() && elsewhere(desired, peer).is_none();
            if free && !self.complete && judge::check(&self.local, peer).is_ok() {
                desired.put(peer, touch);
                self.inherited.insert(peer.subnet);
            }
        }
    }

    /// Takes in one event of the store's watch.
    pub fn fold(&mut self, event: &Event, desired: &mut Desired, now: Instant, touch: &mut impl FnMut(Key)) {
        match event {
            Event::Init => self.begin(),
            Event::InitApply(entry) | Event::Apply(entry) => self.apply(entry, desired, touch),
            Event::InitDone(revision) => self.done(*revision, desired, now, touch),
            Event::Delete(key) => self.del(*key, desired, touch),
            Event::Stray(key) => self.stray(key),
        }
    }

    /// Ends a hold whose time has come.
    pub fn tick(&mut self, desired: &mut Desired, now: Instant, touch: &mut impl FnMut(Key)) {
        // Half a snapshot is no ground to take anything away: its end is awaited.
        if self.next_due().is_some_and(|due| due <= now) {
            let gone = self.sweep(desired, touch);
            self.notices.push(Notice::HoldOver(gone));
        }
    }

    fn apply(&mut self, entry: &Entry, desired: &mut Desired, touch: &mut impl FnMut(Key)) {
        let Entry { key, created, modified, .. } = *entry;
        if self.incoming.is_none() {
            self.latest = self.latest.max(modified);
        }
        match judge(&self.local, entry) {
            Verdict::Peer(peer) => {
                self.clear_inherited(peer, desired, touch);
                let outcomes = self.contest.put(key, created, peer, self.generation, desired, touch);
                self.note(outcomes);
            }
            Verdict::Reject(reason) => {
                self.keep_last_good(entry, desired);
                self.reject(key, reason);
            }
            Verdict::None(backend) => {
                let before = self.others.remove(&key);
                self.del(key, desired, touch);
                if let Some(backend) = backend {
                    if before.as_ref() != Some(&backend) {
                        self.notices.push(Notice::OtherBackend(key, backend.clone()));
                    }
                    self.others.insert(key, backend);
                }
            }
        }
    }

    fn del(&mut self, key: LeaseKey, desired: &mut Desired, touch: &mut impl FnMut(Key)) {
        self.rejected.remove(&key);
        self.others.remove(&key);
        let outcomes = self.contest.del(key, desired, touch);
        self.note(outcomes);
        if let Some(subnet) = self.contest.subnet_of(key).filter(|subnet| self.inherited.remove(subnet)) {
            desired.del(subnet, touch);
        }
    }

    fn begin(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        let peers_before = self.contest.len() + self.inherited.len();
        match &mut self.incoming {
            // One that broke off and begins again.
            Some(incoming) => incoming.strays_before.append(&mut self.strays),
            None => self.incoming = Some(Incoming { peers_before, strays_before: std::mem::take(&mut self.strays) }),
        }
    }

    fn stray(&mut self, key: &str) {
        let known = self.incoming.as_ref().is_some_and(|incoming| incoming.strays_before.contains(key));
        if self.strays.len() < STRAYS_KNOWN && self.strays.insert(key.to_owned()) && !known {
            self.notices.push(Notice::Stray(key.to_owned()));
        }
    }

    /// A snapshot is complete: what it did not name is gone, unless that is most of what there was before it.
    fn done(&mut self, revision: Revision, desired: &mut Desired, now: Instant, touch: &mut impl FnMut(Key)) {
        self.complete = true;
        // A store that was wiped or restored knows less than it did: whatever it lacks is not believed at once.
        let went_back = revision < std::mem::replace(&mut self.latest, revision);
        let generation = self.generation;
        self.rejected.retain(|_, rejected| rejected.generation == generation);
        let missing = self.contest.missing(generation).count() + self.inherited.len();
        let of = self.incoming.take().map_or(0, |incoming| incoming.peers_before);
        if self.guard.holds(missing, of, went_back) {
            let until = *self.held_until.get_or_insert(now + self.guard.hold);
            if until > now {
                self.notices.push(Notice::Held { missing, of, until });
                return;
            }
        }
        self.sweep(desired, touch);
    }

    /// Takes away what the last snapshot did not name.
    fn sweep(&mut self, desired: &mut Desired, touch: &mut impl FnMut(Key)) -> usize {
        self.held_until = None;
        for subnet in &self.inherited {
            desired.del(*subnet, touch);
        }
        let missing: Vec<_> = self.contest.missing(self.generation).collect();
        let gone = missing.len() + self.inherited.len();
        self.inherited.clear();
        for key in missing {
            let outcomes = self.contest.del(key, desired, touch);
            self.note(outcomes);
        }
        gone
    }

    /// The last good record of a lease stays in force while it is bad, also when only the kernel remembers it.
    fn keep_last_good(&mut self, entry: &Entry, desired: &Desired) {
        let generation = self.generation;
        if let Some(claim) = self.contest.get_mut(entry.key) {
            claim.generation = generation;
        } else if let Some(peer) = self.contest.subnet_of(entry.key).and_then(|subnet| desired.peer(subnet))
            && self.inherited.remove(&peer.subnet)
        {
            self.contest.vouch(entry.key, entry.created, generation);
        }
    }

    /// A lease's claim goes before whatever the kernel happens to carry.
    fn clear_inherited(&mut self, peer: Peer, desired: &mut Desired, touch: &mut impl FnMut(Key)) {
        if self.inherited.is_empty() {
            return;
        }
        while let Some(other) = desired.overlapping(peer.subnet).filter(|other| self.inherited.remove(&other.subnet)) {
            desired.del(other.subnet, touch);
        }
        while let Some(other) = elsewhere(desired, peer).filter(|other| self.inherited.remove(&other.subnet)) {
            desired.del(other.subnet, touch);
        }
    }

    fn note(&mut self, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            match outcome {
                Outcome::Lost(key, reason) => self.reject(key, reason),
                Outcome::Won(key) => {
                    if self.rejected.remove(&key).is_some() {
                        self.notices.push(Notice::Recovered(key));
                    }
                }
            }
        }
    }

    fn reject(&mut self, key: LeaseKey, reason: Reject) {
        let rejected = Rejected { reason: reason.clone(), generation: self.generation };
        if self.rejected.insert(key, rejected).is_none_or(|before| before.reason != reason) {
            self.notices.push(Notice::Rejected(key, reason));
        }
    }
}

/// The peer that has this one's MAC at another address.
fn elsewhere(desired: &Desired, peer: Peer) -> Option<Peer> {
    desired.holder(peer.mac?).filter(|other| other.dst != peer.dst)
}
