//! The store that all hosts share, and what a store must do.
//!
//! Every write is guarded by what the writer last saw. A watch speaks kube-style vocabulary ([`Event`]): a snapshot is
//! bracketed by `Init` and `InitDone`, and only a snapshot that is complete gets its `InitDone`.

mod causes;
#[cfg(feature = "contract")]
pub mod contract;
mod entry;
pub mod etcd;
mod health;
pub mod kube;
#[cfg(any(test, feature = "contract"))]
pub mod memory;
mod pem;

use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::{LeaseKey, LeaseRecord, RecordError, Revision};

/// A lease as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its subnets.
    pub key: LeaseKey,
    /// What its host says of itself, or why that cannot be read.
    pub record: Result<LeaseRecord, RecordError>,
    /// When the key came to be: the older of two that conflict is the one in force.
    pub created: Revision,
    /// When the value was last written: the guard of the next write.
    pub modified: Revision,
    /// What ends it.
    pub expiry: Expiry,
}

/// What ends a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing: in etcd a reservation, made by a person; in Kubernetes every lease, which lasts as long as its Node.
    Never,
    /// The end of this etcd lease.
    Lease(i64),
}

/// What a watch says of the leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A snapshot begins. What was known stays in force until its `InitDone`.
    Init,
    /// One lease of the snapshot.
    InitApply(Entry),
    /// The snapshot is complete: what it did not name is gone.
    InitDone(Revision),
    /// A lease was put.
    Apply(Entry),
    /// A lease was deleted, or it expired.
    Delete(LeaseKey),
    /// Something is among the leases that is nobody's lease. In etcd a key that names no subnet: the key; in Kubernetes a Node whose
    /// podCIDRs cannot be had: a sentence that names it and says why.
    Stray(String),
}

/// Which subnets this host is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assigned {
    /// Whichever are free: the host chooses.
    Any,
    /// These and no others: somebody else has chosen.
    Key(LeaseKey),
    /// None as yet, since somebody else chooses and has not: why, and what helps.
    Not(String),
}

/// What a watch says of the network configuration: its text, or none while the key is missing.
pub type ConfigText = Option<String>;

/// Every lease at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// The leases, in the order of their keys' text.
    pub entries: Vec<Entry>,
    /// When.
    pub revision: Revision,
}

/// How the store is doing, as seen from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Nothing has been asked of it yet.
    Unknown,
    /// It answers.
    Up,
    /// It does not, and this is why.
    Down(String),
}

/// A call to the store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or does not answer in time. Trying again helps.
    #[error("{0}")]
    Unavailable(String),
    /// It refuses us. Trying again does not help until a person has acted.
    #[error("{0}")]
    Denied(String),
    /// It answers with what should not be.
    #[error("{0}")]
    Protocol(String),
}

/// A guarded write did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Something else is there than the guard named: this, or nothing.
    #[error("{}", match .0 { Some(other) => format!("{} was written by another at revision {}", other.key, other.modified), None => "the lease is gone".to_owned() })]
    Conflict(Option<Box<Entry>>),
    /// The call failed; it is not known whether the write happened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A lease was not renewed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// It has expired or was revoked: it has to be claimed again.
    #[error("the lease has expired or was revoked")]
    Lost,
    /// The call failed; the lease may well be alive.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A store of leases that hosts share. The contract suite says what every implementation keeps to.
///
/// All calls have a deadline of their own and are safe to drop: a write that was cut off may or may not have happened.
pub trait LeaseStore: Send + Sync + 'static {
    /// The network configuration as it stands.
    ///
    /// # Errors
    /// [`StoreError`]; a missing key is no error.
    fn config(&self) -> impl Future<Output = Result<ConfigText, StoreError>> + Send;

    /// Which subnets this host is to have.
    ///
    /// # Errors
    /// [`StoreError`].
    fn assigned(&self) -> impl Future<Output = Result<Assigned, StoreError>> + Send;

    /// One lease, if it is there.
    ///
    /// # Errors
    /// [`StoreError`].
    fn get(&self, key: LeaseKey) -> impl Future<Output = Result<Option<Entry>, StoreError>> + Send;

    /// Every lease, at one revision. Keys that name no subnet are left out.
    ///
    /// # Errors
    /// [`StoreError`]: a list that fails half way is an error, never a short list.
    fn list(&self) -> impl Future<Output = Result<Snapshot, StoreError>> + Send;

    /// Puts a lease where there is none, to end after `ttl` (whole seconds) unless it is kept alive.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] with what stands there; none when what stood there has gone meanwhile.
    fn create(&self, key: LeaseKey, record: &LeaseRecord, ttl: Duration) -> impl Future<Output = Result<Entry, WriteError>> + Send;

    /// Puts another record into the lease that was `seen`. What ends it stays as it is: a reservation stays one.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] when it has changed or gone since.
    fn replace(&self, seen: &Entry, record: &LeaseRecord) -> impl Future<Output = Result<Entry, WriteError>> + Send;

    /// Restarts the lease's time to live without a write, so that no other host sees an event. Returns what it is now.
    ///
    /// # Errors
    /// [`RenewError::Lost`] when there is nothing left to keep alive.
    fn keep_alive(&self, lease: i64) -> impl Future<Output = Result<Duration, RenewError>> + Send;

    /// Deletes the lease that was `seen`. That it is gone already is success.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] with what stands there when it has changed since.
    fn delete(&self, seen: &Entry) -> impl Future<Output = Result<(), WriteError>> + Send;

    /// Sends every lease, then every change, a page or a store's message at a time, until the receiver is gone.
    ///
    /// Whatever happens to the store, it goes on: after a break it resumes where it was, or begins again with `Init`.
    fn watch(&self, events: mpsc::Sender<Vec<Event>>) -> impl Future<Output = ()> + Send;

    /// Sends the network configuration, then each change of it, until the receiver is gone.
    fn watch_config(&self, texts: mpsc::Sender<ConfigText>) -> impl Future<Output = ()> + Send;

    /// How the store is doing; changes when that changes, not at each attempt.
    fn health(&self) -> watch::Receiver<Health>;
}
