//! The store as an agent sees it: a call is put on a desk and waits there until the explorer answers it.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use lease::store::{Assigned, ConfigText, Health, RenewError, Snapshot, StoreError, WriteError};
use lease::{Entry, Event, LeaseKey, LeaseRecord, LeaseStore};
use tokio::sync::{mpsc, watch};

use crate::call::{Answer, Call};

/// Where an agent's call lies: one at a time, since a keeper makes one at a time.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    pub(crate) call: Option<Call>,
    pub(crate) answer: Option<Answer>,
    /// How many calls there were: an answer to one that was given up is not taken for the next one's.
    pub(crate) serial: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Wire(Arc<Mutex<Desk>>);

/// Takes a call off the desk that nobody waits for any more.
struct Asking<'a>(&'a Wire);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut desk = self.0.desk();
        (desk.call, desk.answer) = (None, None);
        desk.serial += 1;
    }
}

impl Wire {
    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.0.lock().expect("nobody panics while holding it")
    }

    async fn ask(&self, call: Call) -> Answer {
        self.desk().call = Some(call);
        let _asking = Asking(self);
        poll_fn(|_| self.desk().answer.take().map_or(Poll::Pending, Poll::Ready)).await
    }
}

impl LeaseStore for Wire {
    async fn config(&self) -> Result<ConfigText, StoreError> {
        unreachable!("a keeper does not ask for the configuration")
    }

    async fn assigned(&self) -> Result<Assigned, StoreError> {
        Ok(Assigned::Any)
    }

    async fn get(&self, key: LeaseKey) -> Result<Option<Entry>, StoreError> {
        let Answer::Got(got) = self.ask(Call::Get(key)).await else { unreachable!("a get is answered as one") };
        got
    }

    async fn list(&self) -> Result<Snapshot, StoreError> {
        let Answer::Listed(listed) = self.ask(Call::List).await else { unreachable!("a list is answered as one") };
        listed
    }

    async fn create(&self, key: LeaseKey, record: &LeaseRecord, ttl: Duration) -> Result<Entry, WriteError> {
        let call = Call::Create(key, record.clone(), ttl);
        let Answer::Written(written) = self.ask(call).await else { unreachable!("a write is answered as one") };
        written
    }

    async fn replace(&self, seen: &Entry, record: &LeaseRecord) -> Result<Entry, WriteError> {
        let call = Call::Replace(seen.clone(), record.clone());
        let Answer::Written(written) = self.ask(call).await else { unreachable!("a write is answered as one") };
        written
    }

    async fn keep_alive(&self, lease: i64) -> Result<Duration, RenewError> {
        let Answer::Kept(kept) = self.ask(Call::KeepAlive(lease)).await else { unreachable!("a renewal is answered as one") };
        kept
    }

    async fn delete(&self, seen: &Entry) -> Result<(), WriteError> {
        let Answer::Deleted(deleted) = self.ask(Call::Delete(seen.clone())).await else { unreachable!("a delete is answered as one") };
        deleted
    }

    async fn watch(&self, _: mpsc::Sender<Vec<Event>>) {
        unreachable!("a keeper is told, it does not watch")
    }

    async fn watch_config(&self, _: mpsc::Sender<ConfigText>) {
        unreachable!("a keeper is told, it does not watch")
    }

    fn health(&self) -> watch::Receiver<Health> {
        watch::channel(Health::Up).1
    }
}
