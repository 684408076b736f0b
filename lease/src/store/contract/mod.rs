//! What every store keeps to: one suite, run against each implementation.
//!
//! A [`Bench`] holds a fresh, empty store and the hands of a person who meddles with it from outside.

#![expect(clippy::unwrap_used, clippy::panic, reason = "this is a test suite that happens to live in the library")]

mod calls;
mod watches;

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::{BackendType, Entry, Event, Expiry, LeaseKey, LeaseRecord, LeaseStore};

pub use self::calls::*;
pub use self::watches::*;

/// How long anything may take to show, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);
/// A time to live that no test outlasts.
const LONG: Duration = Duration::from_secs(3_600);

/// A store to try, and what can be done to it without going through it.
pub trait Bench {
    /// The kind of store.
    type Store: LeaseStore + Clone;
    /// Whether a lease ends unless it is kept alive; else it lasts until it is deleted.
    const EXPIRES: bool;
    /// The store, as a host sees it that has no lease.
    fn store(&self) -> &Self::Store;
    /// The store as the host sees it that may have these subnets. Where somebody else assigns them, this host is assigned them.
    fn host(&self, key: LeaseKey) -> impl Future<Output = Self::Store>;
    /// Puts the network configuration, or takes it away.
    fn configure(&self, text: Option<&str>) -> impl Future<Output = ()>;
    /// Puts a lease that does not expire, as others write it.
    fn put_record(&self, key: LeaseKey, record: &LeaseRecord) -> impl Future<Output = ()>;
    /// Puts something in a lease's place whose record cannot be read.
    fn put_damaged(&self, key: LeaseKey) -> impl Future<Output = ()>;
    /// Puts something among the leases that is none and is called so.
    fn put_stray(&self, name: &str) -> impl Future<Output = ()>;
    /// Deletes what `put_stray` put.
    fn delete_stray(&self, name: &str) -> impl Future<Output = ()>;
    /// Deletes a lease.
    fn delete(&self, key: LeaseKey) -> impl Future<Output = ()>;
}

/// Follows a watch event by event.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Vec<Event>>,
    ahead: VecDeque<Event>,
}

impl Events {
    /// Reads from this receiver.
    #[must_use]
    pub fn new(receiver: mpsc::Receiver<Vec<Event>>) -> Self {
        Self { receiver, ahead: VecDeque::new() }
    }

    /// The next event; it has to come.
    ///
    /// # Panics
    /// When it does not come in time.
    pub async fn next(&mut self) -> Event {
        while self.ahead.is_empty() {
            let batch = timeout(PATIENCE, self.receiver.recv()).await;
            self.ahead.extend(batch.unwrap_or_else(|_| panic!("no event within {PATIENCE:?}")).unwrap());
        }
        self.ahead.pop_front().unwrap()
    }

    /// Skips to the end of a snapshot and returns the keys in it.
    pub async fn snapshot(&mut self) -> Vec<LeaseKey> {
        let mut keys = Vec::new();
        loop {
            match self.next().await {
                Event::Init => keys.clear(),
                Event::InitApply(entry) => keys.push(entry.key),
                Event::InitDone(_) => return keys,
                Event::Apply(_) | Event::Delete(_) | Event::Stray(_) => (),
            }
        }
    }
}

/// The key in a test's words.
#[must_use]
pub fn key(text: &str) -> LeaseKey {
    text.parse().unwrap()
}

/// A record of a host at this address.
#[must_use]
pub fn record(address: &str) -> LeaseRecord {
    LeaseRecord {
        public_ip: Some(address.parse().unwrap()),
        public_ipv6: None,
        backend: BackendType::HostGw,
        vtep: None,
        vtep_v6: None,
        owner: Some("00112233445566778899aabbccddeeff".parse().unwrap()),
        boot: None,
    }
}

/// The same, of no owner: not every store keeps that.
fn anonymous(address: &str) -> LeaseRecord {
    LeaseRecord { owner: None, ..record(address) }
}

/// Whether it ends as leases do in this store.
fn ends_as_leases_do<B: Bench>(entry: &Entry) -> bool {
    (entry.expiry != Expiry::Never) == B::EXPIRES
}
