//! One call of an agent to the store, as a message: it is sent, done at the store, and answered, each at its own time.

use std::time::Duration;

use futures_util::FutureExt;
use lease::store::memory::MemoryStore;
use lease::store::{RenewError, Snapshot, StoreError, WriteError};
use lease::{Entry, Expiry, LeaseKey, LeaseRecord, LeaseStore};

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Get(LeaseKey),
    List,
    Create(LeaseKey, LeaseRecord, Duration),
    Replace(Entry, LeaseRecord),
    KeepAlive(i64),
    Delete(Entry),
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Got(Result<Option<Entry>, StoreError>),
    Listed(Result<Snapshot, StoreError>),
    Written(Result<Entry, WriteError>),
    Kept(Result<Duration, RenewError>),
    Deleted(Result<(), WriteError>),
}

/// A store that is broken on purpose: the explorer has to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It keeps to the contract.
    None,
    /// A create puts its record over whatever stands there.
    CreateOverwrites,
    /// A replace does not look whether the lease is as it was seen.
    ReplaceOverwrites,
    /// A replace makes a lease of a reservation.
    ReplaceExpires,
    /// A lease that has expired is said to be renewed.
    RenewsTheDead,
}

impl Call {
    pub(crate) fn is_write(&self) -> bool {
        matches!(self, Self::Create(..) | Self::Replace(..) | Self::Delete(_))
    }

    /// Whether its failing or taking its time is of interest: a read that fails is only a pause.
    pub(crate) fn matters(&self) -> bool {
        self.is_write() || matches!(self, Self::KeepAlive(_))
    }

    /// Does it at the store.
    pub(crate) fn perform(&self, store: &MemoryStore, flaw: Flaw) -> Answer {
        match self {
            Self::Get(key) => Answer::Got(at_once(store.get(*key))),
            Self::List => Answer::Listed(at_once(store.list())),
            Self::Create(key, record, ttl) => {
                if flaw == Flaw::CreateOverwrites {
                    store.del_raw(&path(*key));
                }
                Answer::Written(at_once(store.create(*key, record, *ttl)))
            }
            Self::Replace(seen, record) => Answer::Written(match flaw {
                Flaw::ReplaceOverwrites => overwrite(store, seen, record),
                Flaw::ReplaceExpires => at_once(store.delete(seen)).and_then(|()| at_once(store.create(seen.key, record, crate::run::TTL))),
                _ => at_once(store.replace(seen, record)),
            }),
            Self::KeepAlive(lease) => {
                let kept = at_once(store.keep_alive(*lease));
                Answer::Kept(if flaw == Flaw::RenewsTheDead { kept.or(Ok(crate::run::TTL)) } else { kept })
            }
            Self::Delete(seen) => Answer::Deleted(at_once(store.delete(seen))),
        }
    }

    /// What the agent gets that is not told how its call went.
    pub(crate) fn unanswered(&self) -> Answer {
        let error = StoreError::Unavailable("lost".to_owned());
        match self {
            Self::Get(_) => Answer::Got(Err(error)),
            Self::List => Answer::Listed(Err(error)),
            Self::Create(..) | Self::Replace(..) => Answer::Written(Err(error.into())),
            Self::KeepAlive(_) => Answer::Kept(Err(error.into())),
            Self::Delete(_) => Answer::Deleted(Err(error.into())),
        }
    }
}

impl Answer {
    /// Whether the agent goes on with what it knows: then its knowledge is part of its state.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Written(Err(WriteError::Conflict(_))) | Self::Deleted(Err(WriteError::Conflict(_))))
    }

    /// The etcd lease that has its whole time before it now.
    pub(crate) fn renewed(&self, call: &Call) -> Option<i64> {
        match (self, call) {
            (Self::Written(Ok(Entry { expiry: Expiry::Lease(lease), .. })), Call::Create(..)) => Some(*lease),
            (Self::Kept(Ok(_)), Call::KeepAlive(lease)) => Some(*lease),
            _ => None,
        }
    }
}

pub(crate) fn path(key: LeaseKey) -> String {
    format!("subnets/{key}")
}

/// The store in memory never waits.
pub(crate) fn at_once<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("the store in memory answers at once")
}

fn overwrite(store: &MemoryStore, seen: &Entry, record: &LeaseRecord) -> Result<Entry, WriteError> {
    match at_once(store.get(seen.key))? {
        Some(there) => at_once(store.replace(&there, record)),
        None => at_once(store.create(seen.key, record, crate::run::TTL)),
    }
}
