//! Good claims, and which of them are in force when they conflict.
//!
//! Two claims conflict when their subnets overlap, or when one MAC is at two addresses: the kernel's FDB can hold only one.
//! The older is in force (by the store's creation revision, then by key), so that all hosts agree, whatever order they
//! heard them in. The younger waits.

use std::collections::{BTreeMap, BTreeSet};

use lease::{LeaseKey, Revision, Subnet};

use super::judge::Reject;
use crate::desired::{Desired, Peer};
use crate::entry::Key;

/// One lease's good claim to be a peer.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) created: Revision,
    /// The last snapshot that named it.
    pub(super) generation: u32,
    /// The peer, while an older claim is in its way; none once it is in force and `Desired` has the peer.
    waits: Option<Box<Peer>>,
}

/// What settling a claim has changed.
pub(super) enum Outcome {
    /// It is in force now.
    Won(LeaseKey),
    /// It waits, and why.
    Lost(LeaseKey, Reject),
}

#[derive(Debug)]
pub(super) struct Contest {
    /// Whether it is the IPv6 subnets that are contested.
    ipv6: bool,
    claims: BTreeMap<LeaseKey, Claim>,
    /// Who waits for whom: a hint, checked when it is used.
    waiting: BTreeMap<LeaseKey, BTreeSet<LeaseKey>>,
}

impl Contest {
    pub(super) fn new(ipv6: bool) -> Self {
        Self { ipv6, claims: BTreeMap::new(), waiting: BTreeMap::new() }
    }

    /// The contested subnet of a lease.
    pub(super) fn subnet_of(&self, key: LeaseKey) -> Option<Subnet> {
        if self.ipv6 { key.v6() } else { key.v4() }
    }

    pub(super) fn get_mut(&mut self, key: LeaseKey) -> Option<&mut Claim> {
        self.claims.get_mut(&key)
    }

    pub(super) fn len(&self) -> usize {
        self.claims.len()
    }

    /// The claims that the given snapshot did not name.
    pub(super) fn missing(&self, generation: u32) -> impl Iterator<Item = LeaseKey> + '_ {
        self.claims.iter().filter(move |(_, claim)| claim.generation != generation).map(|(key, _)| *key)
    }

    /// Says that the peer, which is in `Desired` already, is this lease's.
    pub(super) fn vouch(&mut self, key: LeaseKey, created: Revision, generation: u32) {
        self.claims.insert(key, Claim { created, generation, waits: None });
    }

    /// Puts a claim in the place of the key's former one, and settles who is in force now.
    pub(super) fn put(
        &mut self,
        key: LeaseKey,
        created: Revision,
        peer: Peer,
        generation: u32,
        desired: &mut Desired,
        touch: &mut impl FnMut(Key),
    ) -> Vec<Outcome> {
        let as_before = |claim: &&mut Claim| claim.waits.is_none() && claim.created == created && desired.peer(peer.subnet) == Some(peer);
        if let Some(claim) = self.claims.get_mut(&key).filter(as_before) {
            claim.generation = generation;
            return vec![Outcome::Won(key)];
        }
        let mut again = self.release(key, desired, touch);
        self.claims.insert(key, Claim { created, generation, waits: Some(Box::new(peer)) });
        again.insert((created, key));
        self.settle(again, desired, touch)
    }

    /// Takes the key's claim away, and settles who is in force now.
    pub(super) fn del(&mut self, key: LeaseKey, desired: &mut Desired, touch: &mut impl FnMut(Key)) -> Vec<Outcome> {
        let again = self.release(key, desired, touch);
        self.claims.remove(&key);
        self.settle(again, desired, touch)
    }

    /// Takes a claim out of force, and names those that waited for that.
    fn release(&mut self, key: LeaseKey, desired: &mut Desired, touch: &mut impl FnMut(Key)) -> BTreeSet<(Revision, LeaseKey)> {
        let subnet = self.subnet_of(key);
        let Some(claim) = self.claims.get_mut(&key).filter(|claim| claim.waits.is_none()) else { return BTreeSet::new() };
        claim.waits = subnet.and_then(|subnet| desired.del(subnet, touch)).map(Box::new);
        let waiters = self.waiting.remove(&key).unwrap_or_default();
        waiters.into_iter().filter_map(|waiter| Some((self.claims.get(&waiter)?.created, waiter))).collect()
    }

    /// Works off claims that are not in force, the oldest first, until each is or has to wait.
    fn settle(&mut self, mut again: BTreeSet<(Revision, LeaseKey)>, desired: &mut Desired, touch: &mut impl FnMut(Key)) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while let Some((created, key)) = again.pop_first() {
            let Some(peer) = self.claims.get(&key).and_then(|claim| claim.waits.as_deref().copied()) else { continue };
            match self.rival(peer, desired) {
                None => {
                    desired.put(peer, touch);
                    if let Some(claim) = self.claims.get_mut(&key) {
                        claim.waits = None;
                    }
                    outcomes.push(Outcome::Won(key));
                }
                // The older is in force: wait for it.
                Some((rival, rivals_age, reason)) if (rivals_age, rival) < (created, key) => {
                    self.waiting.entry(rival).or_default().insert(key);
                    outcomes.push(Outcome::Lost(key, reason));
                }
                // The younger is: it goes, and both are looked at again, this one first.
                Some((rival, rivals_age, _)) => {
                    again.extend(self.release(rival, desired, touch));
                    again.insert((rivals_age, rival));
                    again.insert((created, key));
                }
            }
        }
        outcomes
    }

    /// A claim in force that conflicts with this peer, and what is to be said of the peer if it is the one to wait.
    fn rival(&self, peer: Peer, desired: &Desired) -> Option<(LeaseKey, Revision, Reject)> {
        if let Some((key, created)) = desired.overlapping(peer.subnet).and_then(|other| self.owner(other.subnet)) {
            return Some((key, created, Reject::Overlaps(key)));
        }
        let mac = peer.mac?;
        let other = desired.holder(mac).filter(|other| other.dst != peer.dst)?;
        let (key, created) = self.owner(other.subnet)?;
        Some((key, created, Reject::SameMac { mac, key }))
    }

    /// Whose the subnet in force is. Asked only where claims conflict, so that no index is kept for it.
    fn owner(&self, subnet: Subnet) -> Option<(LeaseKey, Revision)> {
        let owns = |(key, claim): (&LeaseKey, &Claim)| {
            (claim.waits.is_none() && self.subnet_of(*key) == Some(subnet)).then_some((*key, claim.created))
        };
        match LeaseKey::new(Some(subnet), None) {
            // Keys are ordered by their IPv4 subnet first.
            Some(first) => self.claims.range(first..).take_while(|(key, _)| key.v4() == Some(subnet)).find_map(owns),
            // Rare, and worth a walk: the IPv6 subnet of a dual-stack key.
            None => self.claims.iter().find_map(owns),
        }
    }
}
