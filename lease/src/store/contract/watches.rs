//! What the watches tell.

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Bench, Events, LONG, PATIENCE, anonymous, key};
use crate::{Event, Expiry, LeaseStore};

/// A watch tells the leases, then each change in order, and a renewal is none.
pub async fn a_watch_tells_the_leases_and_then_each_change(bench: &impl Bench) {
    let (h1, h2) = (bench.host(key("10.5.1.0-24")).await, bench.host(key("10.5.2.0-24")).await);
    let first = h1.create(key("10.5.1.0-24"), &anonymous("192.0.2.1"), LONG).await.unwrap();
    bench.put_stray("test").await;
    let (sender, receiver) = mpsc::channel(16);
    let look = async {
        let mut events = Events::new(receiver);
        assert_eq!(events.next().await, Event::Init);
        assert_eq!(events.next().await, Event::InitApply(first.clone()));
        assert_stray(&events.next().await, "test");
        assert!(matches!(events.next().await, Event::InitDone(revision) if revision >= first.modified));
        if let Expiry::Lease(lease) = first.expiry {
            assert_eq!(h1.keep_alive(lease).await, Ok(LONG));
        }
        let second = h2.create(key("10.5.2.0-24"), &anonymous("192.0.2.2"), LONG).await.unwrap();
        assert_eq!(events.next().await, Event::Apply(second.clone()));
        let newer = h2.replace(&second, &anonymous("192.0.2.3")).await.unwrap();
        assert_eq!(events.next().await, Event::Apply(newer));
        bench.configure(Some("unrelated")).await;
        bench.put_stray("other").await;
        assert_stray(&events.next().await, "other");
        bench.delete_stray("test").await;
        h1.delete(&first).await.unwrap();
        assert_eq!(events.next().await, Event::Delete(first.key));
        bench.delete(second.key).await;
        assert_eq!(events.next().await, Event::Delete(second.key));
    };
    tokio::select! { () = bench.store().watch(sender) => panic!("the watch ended"), () = look => () }
}

fn assert_stray(event: &Event, name: &str) {
    assert!(matches!(event, Event::Stray(text) if text.contains(name)), "{event:?} instead of a stray {name}");
}

/// A record that cannot be read is told as what it is, and so is its repair.
pub async fn a_watch_tells_of_damage_and_of_its_repair(bench: &impl Bench) {
    let (sender, receiver) = mpsc::channel(16);
    let look = async {
        let mut events = Events::new(receiver);
        assert_eq!(events.snapshot().await, []);
        bench.put_damaged(key("10.5.1.0-24")).await;
        assert!(matches!(events.next().await, Event::Apply(entry) if entry.key == key("10.5.1.0-24") && entry.record.is_err()));
        bench.put_record(key("10.5.1.0-24"), &anonymous("192.0.2.1")).await;
        assert!(matches!(events.next().await, Event::Apply(entry) if entry.record == Ok(anonymous("192.0.2.1"))));
    };
    tokio::select! { () = bench.store().watch(sender) => panic!("the watch ended"), () = look => () }
}

/// A watch of the configuration tells it once, and then each change of it.
pub async fn a_watch_of_the_configuration_tells_each_change(bench: &impl Bench) {
    let (sender, mut texts) = mpsc::channel::<Option<String>>(16);
    let look = async {
        let mut next = async || timeout(PATIENCE, texts.recv()).await.unwrap().unwrap();
        assert_eq!(next().await, None);
        bench.configure(Some("a")).await;
        assert_eq!(next().await.as_deref(), Some("a"));
        bench.put_record(key("10.5.1.0-24"), &anonymous("192.0.2.1")).await;
        bench.configure(Some("b")).await;
        assert_eq!(next().await.as_deref(), Some("b"));
        bench.configure(None).await;
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
