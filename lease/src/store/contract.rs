//! What every store keeps to: one suite, run against each implementation.
//!
//! A [`Bench`] holds a fresh, empty store and the hands of a person who meddles with it from outside.

#![expect(clippy::unwrap_used, clippy::panic, reason = "this is a test suite that happens to live in the library")]

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::store::{Health, RenewError, WriteError};
use crate::{BackendType, Entry, Event, Expiry, LeaseKey, LeaseRecord, LeaseStore};

/// How long anything may take to show, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);
/// A time to live that no test outlasts.
const LONG: Duration = Duration::from_secs(3_600);
/// The shortest time to live that etcd grants.
const SHORT: Duration = Duration::from_secs(1);

/// A store to try, and what can be done to it without going through it. Keys are those below the prefix.
pub trait Bench {
    /// The kind of store.
    type Store: LeaseStore;
    /// The store.
    fn store(&self) -> &Self::Store;
    /// Puts a key that never expires.
    fn put(&self, key: &str, value: &str);
    /// Deletes a key.
    fn del(&self, key: &str);
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

fn path(key: LeaseKey) -> String {
    format!("subnets/{key}")
}

fn lease(entry: &Entry) -> i64 {
    match entry.expiry {
        Expiry::Lease(lease) => lease,
        Expiry::Never => panic!("{} has no lease", entry.key),
    }
}

/// The configuration is what stands there, and none is no error.
pub async fn the_configuration_is_read_as_it_stands(bench: &impl Bench) {
    assert_eq!(bench.store().config().await, Ok(None));
    bench.put("config", "{ not json");
    assert_eq!(bench.store().config().await, Ok(Some("{ not json".to_owned())));
    assert_eq!(*bench.store().health().borrow(), Health::Up);
}

/// What was created is found, by key and in the list, in both families' keys.
pub async fn what_was_created_is_found(bench: &impl Bench) {
    let store = bench.store();
    assert_eq!(store.get(key("10.5.1.0-24")).await, Ok(None));
    for text in ["10.5.1.0-24", "10.5.2.0-24&fc00:0:0:2::-64", "0.0.0.0-0&fc00:0:0:3::-64"] {
        let made = store.create(key(text), &record("192.0.2.1"), LONG).await.unwrap();
        assert_eq!((made.key, &made.record, made.created), (key(text), &Ok(record("192.0.2.1")), made.modified));
        assert!(lease(&made) != 0);
        assert_eq!(store.get(key(text)).await, Ok(Some(made.clone())));
        let listed = store.list().await.unwrap();
        assert!(listed.entries.contains(&made) && listed.revision >= made.modified);
    }
    assert_eq!(store.list().await.unwrap().entries.len(), 3);
}

/// A key that is taken is not created again, and the answer shows who has it.
pub async fn creating_what_is_there_shows_it(bench: &impl Bench) {
    let store = bench.store();
    let first = store.create(key("10.5.1.0-24"), &record("192.0.2.1"), LONG).await.unwrap();
    let second = store.create(key("10.5.1.0-24"), &record("192.0.2.2"), LONG).await;
    assert_eq!(second, Err(WriteError::Conflict(Some(Box::new(first)))));
}

/// A replacement needs the entry as it was seen, and leaves what ends it as it was.
pub async fn replacing_is_guarded_and_keeps_the_lease(bench: &impl Bench) {
    let store = bench.store();
    let seen = store.create(key("10.5.1.0-24"), &record("192.0.2.1"), LONG).await.unwrap();
    let newer = store.replace(&seen, &record("192.0.2.2")).await.unwrap();
    assert_eq!((newer.created, newer.expiry, &newer.record), (seen.created, seen.expiry, &Ok(record("192.0.2.2"))));
    assert!(newer.modified > seen.modified);
    let late = store.replace(&seen, &record("192.0.2.3")).await;
    assert_eq!(late, Err(WriteError::Conflict(Some(Box::new(newer.clone())))));
    bench.del(&path(newer.key));
    assert_eq!(store.replace(&newer, &record("192.0.2.3")).await, Err(WriteError::Conflict(None)));
    assert_eq!(store.get(newer.key).await, Ok(None));
}

/// A reservation that is written to does not begin to expire.
pub async fn a_reservation_stays_one(bench: &impl Bench) {
    bench.put("subnets/10.5.1.0-24", r#"{"PublicIP":"192.0.2.1"}"#);
    let seen = bench.store().get(key("10.5.1.0-24")).await.unwrap().unwrap();
    assert_eq!(seen.expiry, Expiry::Never);
    let newer = bench.store().replace(&seen, &record("192.0.2.1")).await.unwrap();
    assert_eq!(newer.expiry, Expiry::Never);
    assert_eq!(bench.store().get(seen.key).await, Ok(Some(newer)));
}

/// A deletion needs the entry as it was seen; what is gone already is as wanted.
pub async fn deleting_is_guarded_and_what_is_gone_is_gone(bench: &impl Bench) {
    let store = bench.store();
    let seen = store.create(key("10.5.1.0-24"), &record("192.0.2.1"), LONG).await.unwrap();
    let newer = store.replace(&seen, &record("192.0.2.2")).await.unwrap();
    assert_eq!(store.delete(&seen).await, Err(WriteError::Conflict(Some(Box::new(newer.clone())))));
    assert_eq!(store.delete(&newer).await, Ok(()));
    assert_eq!(store.get(newer.key).await, Ok(None));
    assert_eq!(store.keep_alive(lease(&newer)).await, Err(RenewError::Lost));
    assert_eq!(store.delete(&newer).await, Ok(()));
}

/// A lease ends when its time is over, and one that has ended cannot be renewed.
pub async fn a_lease_ends_unless_it_is_kept_alive(bench: &impl Bench) {
    let store = bench.store();
    let short = store.create(key("10.5.1.0-24"), &record("192.0.2.1"), SHORT).await.unwrap();
    let long = store.create(key("10.5.2.0-24"), &record("192.0.2.2"), LONG).await.unwrap();
    assert_eq!(store.keep_alive(lease(&long)).await, Ok(LONG));
    let (sender, receiver) = mpsc::channel(16);
    let seen = async {
        let mut events = Events::new(receiver);
        events.snapshot().await;
        while events.next().await != Event::Delete(short.key) {}
    };
    tokio::select! { () = store.watch(sender) => (), () = seen => () }
    assert_eq!(store.get(short.key).await, Ok(None));
    assert_eq!(store.keep_alive(lease(&short)).await, Err(RenewError::Lost));
    assert_eq!(store.get(long.key).await, Ok(Some(long)));
}

/// What others wrote is told apart: a record that cannot be read is an entry with a reason, a key that is none is left out.
pub async fn rubbish_is_told_apart(bench: &impl Bench) {
    bench.put("subnets/10.5.1.0-24", "x");
    bench.put("subnets/test", "x");
    let listed = bench.store().list().await.unwrap().entries;
    assert_eq!(listed.iter().map(|entry| entry.key).collect::<Vec<_>>(), [key("10.5.1.0-24")]);
    assert!(listed.iter().all(|entry| entry.record.is_err()));
}

/// A watch tells the leases, then each change in order, and a renewal is none.
pub async fn a_watch_tells_the_leases_and_then_each_change(bench: &impl Bench) {
    let store = bench.store();
    let first = store.create(key("10.5.1.0-24"), &record("192.0.2.1"), LONG).await.unwrap();
    bench.put("subnets/test", "x");
    let (sender, receiver) = mpsc::channel(16);
    let look = async {
        let mut events = Events::new(receiver);
        assert_eq!(events.next().await, Event::Init);
        assert_eq!(events.next().await, Event::InitApply(first.clone()));
        assert_eq!(events.next().await, Event::Stray("test".to_owned()));
        assert!(matches!(events.next().await, Event::InitDone(revision) if revision >= first.modified));
        assert_eq!(store.keep_alive(lease(&first)).await, Ok(LONG));
        let second = store.create(key("10.5.2.0-24"), &record("192.0.2.2"), LONG).await.unwrap();
        assert_eq!(events.next().await, Event::Apply(second.clone()));
        let newer = store.replace(&second, &record("192.0.2.3")).await.unwrap();
        assert_eq!(events.next().await, Event::Apply(newer));
        bench.put("config", "unrelated");
        bench.put("subnets/other", "x");
        assert_eq!(events.next().await, Event::Stray("other".to_owned()));
        bench.del("subnets/test");
        store.delete(&first).await.unwrap();
        assert_eq!(events.next().await, Event::Delete(first.key));
    };
    tokio::select! { () = store.watch(sender) => panic!("the watch ended"), () = look => () }
}

/// A watch of the configuration tells it once, and then each change of it.
pub async fn a_watch_of_the_configuration_tells_each_change(bench: &impl Bench) {
    let (sender, mut texts) = mpsc::channel::<Option<String>>(16);
    let look = async {
        let mut next = async || timeout(PATIENCE, texts.recv()).await.unwrap().unwrap();
        assert_eq!(next().await, None);
        bench.put("config", "a");
        assert_eq!(next().await.as_deref(), Some("a"));
        bench.put("subnets/10.5.1.0-24", "unrelated");
        bench.put("config", "b");
        assert_eq!(next().await.as_deref(), Some("b"));
        bench.del("config");
        assert_eq!(next().await, None);
    };
    tokio::select! { () = bench.store().watch_config(sender) => panic!("the watch ended"), () = look => () }
}

/// A watch that nobody listens to ends.
pub async fn a_watch_ends_with_its_receiver(bench: &impl Bench) {
    let (sender, receiver) = mpsc::channel(16);
    drop(receiver);
    timeout(PATIENCE, bench.store().watch(sender)).await.unwrap();
    let (sender, receiver) = mpsc::channel(16);
    drop(receiver);
    timeout(PATIENCE, bench.store().watch_config(sender)).await.unwrap();
}
