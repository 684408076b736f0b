//! How things stand, for whoever asks: the state, the counters, the last repairs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use super::Reconciler;
use crate::desired::Desired;
use crate::entry::Key;
use crate::kernel::Kernel;
use crate::observed::Observed;
use crate::op::Op;
use crate::peers::Peers;
use crate::retry::Retries;

/// One repair of what somebody else undid.
#[derive(Debug, Clone)]
pub struct Heal {
    /// When.
    pub at: SystemTime,
    /// What was undone.
    pub key: Key,
    /// By which operations it was repaired.
    pub ops: Vec<Op>,
}

/// What a kind of key has been repaired, put and deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Repairs of what somebody else undid.
    pub heals: u64,
    /// Operations that succeeded.
    pub applied: u64,
    /// Operations that the kernel refused.
    pub refused: u64,
}

/// Counters, since the start, by [`kind_of`] a key.
pub type Totals = BTreeMap<&'static str, Counts>;

/// How things stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The kernel holds what it should.
    InStep,
    /// It does not yet: so many keys are being worked on.
    Converging(usize),
    /// No snapshot of the leases is complete yet; what is known is in the kernel.
    Waiting,
    /// The kernel holds what it should, but forwarding is off and cannot be switched on, for this reason. A container runtime's plugin
    /// may do so with the first container.
    Unforwarding(String),
    /// So many keys cannot be made right, for this reason (the first one's).
    Troubled(usize, String),
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InStep => out.write_str("in step"),
            Self::Converging(0) => out.write_str("the kernel is about to be looked at again"),
            Self::Converging(keys) => write!(out, "{keys} entries still to be put right"),
            Self::Waiting => out.write_str("the leases are not all known yet"),
            Self::Unforwarding(reason) => out.write_str(reason),
            Self::Troubled(keys, reason) => write!(out, "{keys} entries cannot be put right: {reason}"),
        }
    }
}

impl<K: Kernel> Reconciler<K> {
    /// How many keys are still to be looked at.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.dirty.len()
    }

    /// The VTEP's name; empty where there is none.
    #[must_use]
    pub fn device_name(&self) -> &str {
        self.desired.vtep().map_or("", |spec| spec.name.as_str())
    }

    /// How things stand.
    #[must_use]
    pub fn state(&self) -> State {
        let trouble = self.retries.refused() + self.retries.outdone() + self.blocked.len();
        let work = self.dirty.len() + self.doomed.len();
        let first = self.retries.troubles().next().map(|(matter, trouble)| (matter.0, format!("{matter}: {trouble}")));
        let blocked = self.blocked.values().next().map(ToString::to_string);
        let unforwarding = first.clone().filter(|(key, _)| *key == Key::Forwarding && trouble == 1).map(|(_, reason)| reason);
        if trouble > 0 && unforwarding.is_none() {
            State::Troubled(trouble, blocked.or(first.map(|(_, reason)| reason)).unwrap_or_default())
        } else if !self.peers.is_complete() {
            State::Waiting
        } else if work > 0 || self.dump_wanted {
            State::Converging(work)
        } else if let Some(reason) = unforwarding {
            State::Unforwarding(reason)
        } else {
            State::InStep
        }
    }

    /// What is desired.
    #[must_use]
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What the kernel holds.
    #[must_use]
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// The lease set.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The keys in trouble.
    #[must_use]
    pub fn retries(&self) -> &Retries {
        &self.retries
    }

    /// Counters since the start.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The last repairs, oldest first.
    pub fn heals(&self) -> impl Iterator<Item = &Heal> {
        self.heals.iter()
    }

    /// How many dumps were made, how often the kernel lost events, and what the last dump and the comparison after it cost.
    #[must_use]
    pub fn dumps(&self) -> (u64, u64, Duration) {
        (self.dumps, self.lost, self.dump_cost)
    }
}

/// The name under which a key is counted.
#[must_use]
pub fn kind_of(key: Key) -> &'static str {
    match key {
        Key::Forwarding => "forwarding",
        Key::Device => "device",
        Key::Fdb(_) => "fdb",
        Key::Neighbour(_) => "neighbour",
        Key::Rule(_) => "rule",
        Key::Route(_) => "route",
    }
}
