//! What the calls do and answer.

use std::time::Duration;

use super::{Bench, Events, LONG, anonymous, ends_as_leases_do, key};
use crate::store::{Assigned, Health, RenewError, WriteError};
use crate::{Entry, Event, Expiry, LeaseStore};
use tokio::sync::mpsc;

/// The shortest time to live that etcd grants.
const SHORT: Duration = Duration::from_secs(1);

fn lease(entry: &Entry) -> i64 {
    match entry.expiry {
        Expiry::Lease(lease) => lease,
        Expiry::Never => panic!("{} has no lease", entry.key),
    }
}

/// The configuration is what stands there, and none is no error.
pub async fn the_configuration_is_read_as_it_stands(bench: &impl Bench) {
    assert_eq!(bench.store().config().await, Ok(None));
    bench.configure(Some("{ not json")).await;
    assert_eq!(bench.store().config().await, Ok(Some("{ not json".to_owned())));
}

/// What was created is found, by key and in the list, in both families' keys, and by other hosts as by its own.
pub async fn what_was_created_is_found<B: Bench>(bench: &B) {
    let other = bench.store();
    assert_eq!(other.get(key("10.5.1.0-24")).await, Ok(None));
    for text in ["10.5.1.0-24", "10.5.2.0-24&fc00:0:0:2::-64", "0.0.0.0-0&fc00:0:0:3::-64"] {
        let host = bench.host(key(text)).await;
        let made = host.create(key(text), &anonymous("192.0.2.1"), LONG).await.unwrap();
        assert_eq!((made.key, &made.record), (key(text), &Ok(anonymous("192.0.2.1"))));
        assert!(ends_as_leases_do::<B>(&made), "{made:?}");
        for store in [&host, other] {
            assert_eq!(store.get(key(text)).await, Ok(Some(made.clone())));
        }
        let listed = other.list().await.unwrap();
        assert!(listed.entries.contains(&made) && listed.revision >= made.modified);
    }
    let listed: Vec<String> = other.list().await.unwrap().entries.iter().map(|entry| entry.key.to_string()).collect();
    assert!(listed.len() == 3 && listed.is_sorted(), "{listed:?}");
    assert_eq!(*other.health().borrow(), Health::Up);
}

/// A host that is assigned its subnets is assigned those; any other may choose.
pub async fn a_host_knows_what_it_is_assigned(bench: &impl Bench) {
    let assigned = bench.host(key("10.5.1.0-24")).await.assigned().await.unwrap();
    assert!(assigned == Assigned::Any || assigned == Assigned::Key(key("10.5.1.0-24")), "{assigned:?}");
}

/// A key that is taken is not created again, and the answer shows who has it.
pub async fn creating_what_is_there_shows_it(bench: &impl Bench) {
    let host = bench.host(key("10.5.1.0-24")).await;
    let first = host.create(key("10.5.1.0-24"), &anonymous("192.0.2.1"), LONG).await.unwrap();
    let second = host.create(key("10.5.1.0-24"), &anonymous("192.0.2.2"), LONG).await;
    assert_eq!(second, Err(WriteError::Conflict(Some(Box::new(first)))));
}

/// A replacement needs the entry as it was seen, and leaves what ends it as it was.
pub async fn replacing_is_guarded_and_keeps_the_lease(bench: &impl Bench) {
    let host = bench.host(key("10.5.1.0-24")).await;
    let seen = host.create(key("10.5.1.0-24"), &anonymous("192.0.2.1"), LONG).await.unwrap();
    let newer = host.replace(&seen, &anonymous("192.0.2.2")).await.unwrap();
    assert_eq!((newer.created, newer.expiry, &newer.record), (seen.created, seen.expiry, &Ok(anonymous("192.0.2.2"))));
    assert!(newer.modified > seen.modified);
    let late = host.replace(&seen, &anonymous("192.0.2.3")).await;
    assert_eq!(late, Err(WriteError::Conflict(Some(Box::new(newer.clone())))));
    bench.delete(newer.key).await;
    assert_eq!(host.replace(&newer, &anonymous("192.0.2.3")).await, Err(WriteError::Conflict(None)));
    assert_eq!(host.get(newer.key).await, Ok(None));
}

/// What others put without an end does not begin to have one when it is written to.
pub async fn a_reservation_stays_one(bench: &impl Bench) {
    let host = bench.host(key("10.5.1.0-24")).await;
    bench.put_record(key("10.5.1.0-24"), &anonymous("192.0.2.1")).await;
    let seen = host.get(key("10.5.1.0-24")).await.unwrap().unwrap();
    assert_eq!((seen.expiry, &seen.record), (Expiry::Never, &Ok(anonymous("192.0.2.1"))));
    let newer = host.replace(&seen, &anonymous("192.0.2.2")).await.unwrap();
    assert_eq!(newer.expiry, Expiry::Never);
    assert_eq!(host.get(seen.key).await, Ok(Some(newer)));
}

/// A deletion needs the entry as it was seen; what is gone already is as wanted.
pub async fn deleting_is_guarded_and_what_is_gone_is_gone<B: Bench>(bench: &B) {
    let host = bench.host(key("10.5.1.0-24")).await;
    let seen = host.create(key("10.5.1.0-24"), &anonymous("192.0.2.1"), LONG).await.unwrap();
    let newer = host.replace(&seen, &anonymous("192.0.2.2")).await.unwrap();
    assert_eq!(host.delete(&seen).await, Err(WriteError::Conflict(Some(Box::new(newer.clone())))));
    assert_eq!(host.delete(&newer).await, Ok(()));
    assert_eq!(host.get(newer.key).await, Ok(None));
    if B::EXPIRES {
        assert_eq!(host.keep_alive(lease(&newer)).await, Err(RenewError::Lost));
    }
    assert_eq!(host.delete(&newer).await, Ok(()));
}

/// A lease ends when its time is over, and one that has ended cannot be renewed. Of stores whose leases end.
pub async fn a_lease_ends_unless_it_is_kept_alive<B: Bench>(bench: &B) {
    assert!(B::EXPIRES, "this store's leases do not end");
    let store = bench.store();
    let short = store.create(key("10.5.1.0-24"), &anonymous("192.0.2.1"), SHORT).await.unwrap();
    let long = store.create(key("10.5.2.0-24"), &anonymous("192.0.2.2"), LONG).await.unwrap();
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

/// What others wrote is told apart: a record that cannot be read is an entry with a reason, what is no lease is left out.
pub async fn rubbish_is_told_apart(bench: &impl Bench) {
    bench.put_damaged(key("10.5.1.0-24")).await;
    bench.put_stray("test").await;
    let listed = bench.store().list().await.unwrap().entries;
    assert_eq!(listed.iter().map(|entry| entry.key).collect::<Vec<_>>(), [key("10.5.1.0-24")]);
    assert!(listed.iter().all(|entry| entry.record.is_err()));
}
