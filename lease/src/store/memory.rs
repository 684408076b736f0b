//! A store in memory, for tests: it keeps to the same contract as etcd, in tokio's time, and fails on demand.

mod world;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use self::world::{LEASES, World};
use super::{Assigned, ConfigText, Health, LeaseStore, RenewError, Snapshot, StoreError, WriteError};
use crate::{Entry, Event, Expiry, LeaseKey, LeaseRecord, Revision};

/// One host's connection to a store in memory. Clones share the connection; [`MemoryStore::beside`] opens another.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    link: Arc<Link>,
}

#[derive(Debug)]
struct Shared {
    world: Mutex<World>,
    changed: watch::Sender<()>,
}

/// One host's way to the store, which can fail.
#[derive(Debug)]
struct Link {
    lose_reply: AtomicBool,
    assigned: Mutex<Assigned>,
    health: watch::Sender<Health>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self { shared: Arc::new(Shared { world: Mutex::default(), changed: watch::Sender::new(()) }), link: Arc::default() }
    }
}

impl Default for Link {
    fn default() -> Self {
        Self { lose_reply: AtomicBool::new(false), assigned: Mutex::new(Assigned::Any), health: watch::Sender::new(Health::Up) }
    }
}

/// What a person or a test does to the store.
impl MemoryStore {
    /// Another host's connection to the same store.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), link: Arc::default() }
    }

    /// Cuts this connection, or mends it.
    pub fn set_down(&self, down: bool) {
        self.link.health.send_replace(if down { Health::Down("cut off by the test".to_owned()) } else { Health::Up });
        self.shared.changed.send_replace(());
    }

    /// Says which subnets the host at this connection is to have.
    pub fn assign(&self, assigned: Assigned) {
        *self.link.assigned.lock().unwrap_or_else(PoisonError::into_inner) = assigned;
    }

    /// Lets this connection's next write happen and fail all the same, as when its answer is lost.
    pub fn lose_next_reply(&self) {
        self.link.lose_reply.store(true, Ordering::Relaxed);
    }

    /// Forgets the history, so that a watch that is behind has to list again.
    pub fn compact(&self) {
        self.change(World::compact);
    }

    /// Puts a value under a key below the prefix, such as `config` or `subnets/10.5.1.0-24`; for ever, or for a time.
    pub fn put_raw(&self, key: &str, value: &str, ttl: Option<Duration>) {
        self.change(|world| {
            let lease = ttl.map_or(0, |ttl| world.grant(ttl, Instant::now()));
            world.put(key, value.to_owned(), lease);
        });
    }

    /// Deletes a key below the prefix.
    pub fn del_raw(&self, key: &str) {
        self.change(|world| world.del(key));
    }

    fn world(&self) -> MutexGuard<'_, World> {
        // A test that panicked has poisoned it; the state is whole all the same.
        let mut world = self.shared.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.expire(Instant::now());
        world
    }

    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut self.world());
        self.shared.changed.send_replace(());
        result
    }

    fn reach(&self) -> Result<(), StoreError> {
        match &*self.link.health.borrow() {
            Health::Down(reason) => Err(StoreError::Unavailable(reason.clone())),
            Health::Up | Health::Unknown => Ok(()),
        }
    }

    fn write<T>(&self, change: impl FnOnce(&mut World) -> Result<T, WriteError>) -> Result<T, WriteError> {
        self.reach()?;
        let result = self.change(change);
        if self.link.lose_reply.swap(false, Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the reply was lost by the test".to_owned()).into());
        }
        result
    }

    /// Waits until something may have changed: a write, a cut, or the end of a lease.
    async fn turn(&self, changed: &mut watch::Receiver<()>) {
        let next = self.world().next_end();
        let end = async move {
            match next {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        // The sender lives in `self`, so a change is the only way out.
        tokio::select! { _ = changed.changed() => (), () = end => () }
    }

    async fn follow(&self, events: &mpsc::Sender<Vec<Event>>) {
        let mut changed = self.shared.changed.subscribe();
        let mut position: Option<i64> = None;
        loop {
            if self.reach().is_ok() {
                let (news, revision) = {
                    let world = self.world();
                    let known = position.filter(|revision| *revision >= world.compacted);
                    (known.map_or_else(|| world.snapshot(), |revision| world.changes_since(revision)), world.revision)
                };
                position = Some(revision);
                if !news.is_empty() && events.send(news).await.is_err() {
                    return;
                }
            }
            self.turn(&mut changed).await;
        }
    }

    async fn follow_config(&self, texts: &mpsc::Sender<ConfigText>) {
        let mut changed = self.shared.changed.subscribe();
        let mut told: Option<ConfigText> = None;
        loop {
            if let Ok(text) = self.config().await
                && told.as_ref() != Some(&text)
            {
                told = Some(text.clone());
                if texts.send(text).await.is_err() {
                    return;
                }
            }
            self.turn(&mut changed).await;
        }
    }
}

impl LeaseStore for MemoryStore {
    async fn config(&self) -> Result<ConfigText, StoreError> {
        self.reach()?;
        Ok(self.world().value("config").map(str::to_owned))
    }

    async fn assigned(&self) -> Result<Assigned, StoreError> {
        self.reach()?;
        Ok(self.link.assigned.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn get(&self, key: LeaseKey) -> Result<Option<Entry>, StoreError> {
        self.reach()?;
        Ok(self.world().entry(key))
    }

    async fn list(&self) -> Result<Snapshot, StoreError> {
        self.reach()?;
        let world = self.world();
        Ok(Snapshot { entries: world.entries(), revision: Revision(world.revision) })
    }

    async fn create(&self, key: LeaseKey, record: &LeaseRecord, ttl: Duration) -> Result<Entry, WriteError> {
        self.write(|world| match world.entry(key) {
            Some(other) => Err(WriteError::Conflict(Some(Box::new(other)))),
            None => {
                let lease = world.grant(ttl, Instant::now());
                world.put(&format!("{LEASES}{key}"), record.encode(), lease);
                world.entry(key).ok_or(WriteError::Conflict(None))
            }
        })
    }

    async fn replace(&self, seen: &Entry, record: &LeaseRecord) -> Result<Entry, WriteError> {
        self.write(|world| match world.entry(seen.key) {
            Some(entry) if entry.modified == seen.modified => {
                world.put(&format!("{LEASES}{}", seen.key), record.encode(), lease_of(seen));
                world.entry(seen.key).ok_or(WriteError::Conflict(None))
            }
            other => Err(WriteError::Conflict(other.map(Box::new))),
        })
    }

    async fn keep_alive(&self, lease: i64) -> Result<Duration, RenewError> {
        self.reach()?;
        self.world().keep_alive(lease, Instant::now()).ok_or(RenewError::Lost)
    }

    async fn delete(&self, seen: &Entry) -> Result<(), WriteError> {
        self.write(|world| match world.entry(seen.key) {
            Some(entry) if entry.modified != seen.modified => Err(WriteError::Conflict(Some(Box::new(entry)))),
            Some(_) | None => {
                world.del(&format!("{LEASES}{}", seen.key));
                if let Expiry::Lease(lease) = seen.expiry {
                    world.revoke(lease);
                }
                Ok(())
            }
        })
    }

    async fn watch(&self, events: mpsc::Sender<Vec<Event>>) {
        tokio::select! { () = self.follow(&events) => (), () = events.closed() => () }
    }

    async fn watch_config(&self, texts: mpsc::Sender<ConfigText>) {
        tokio::select! { () = self.follow_config(&texts) => (), () = texts.closed() => () }
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.link.health.subscribe()
    }
}

fn lease_of(entry: &Entry) -> i64 {
    match entry.expiry {
        Expiry::Never => 0,
        Expiry::Lease(lease) => lease,
    }
}
