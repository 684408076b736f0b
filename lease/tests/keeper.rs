//! How a lease is kept, in paused time on the store in memory: hours pass in microseconds.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests say what went wrong by failing")]

use std::sync::Arc;
use std::time::Duration;

use lease::claim::{Claim, How};
use lease::keeper::{Held, Keeper, LeaseState};
use lease::store::contract::{key, record};
use lease::store::memory::MemoryStore;
use lease::{Entry, Event, Expiry, LeaseKey, LeaseRecord, LeaseStore, Owner, Rng};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

fn us() -> Owner {
    Owner::new([1; 16])
}

fn ours() -> LeaseRecord {
    LeaseRecord { owner: Some(us()), ..record("192.0.2.1") }
}

fn others() -> LeaseRecord {
    LeaseRecord { owner: Some(Owner::new([2; 16])), ..record("192.0.2.2") }
}

/// A keeper that runs, on a store of its own.
struct Kept {
    store: MemoryStore,
    states: watch::Receiver<LeaseState>,
    events: mpsc::Sender<Event>,
    task: JoinSet<()>,
}

impl Kept {
    fn start(store: &MemoryStore) -> Self {
        let claim = Claim {
            config: r#"{"Network":"10.5.0.0/16"}"#.parse().unwrap(),
            owner: us(),
            public_ip: ours().public_ip,
            public_ipv6: None,
            remembered: Some(key("10.5.7.0-24")),
            ttl: DAY,
            record: Arc::new(|_| ours()),
        };
        let (keeper, states, events) = Keeper::new(store.clone(), claim, HOUR, Rng::new(1));
        let mut task = JoinSet::new();
        task.spawn(keeper.run());
        Self { store: store.beside(), states, events, task }
    }

    /// The next state that this holds for; it has to come within three days.
    async fn until<T>(&mut self, mut wanted: impl FnMut(&LeaseState) -> Option<T>) -> T {
        let coming = async {
            loop {
                if let Some(found) = wanted(&self.states.borrow_and_update()) {
                    return found;
                }
                self.states.changed().await.unwrap();
            }
        };
        timeout(3 * DAY, coming).await.expect("the state comes")
    }

    async fn held(&mut self) -> Held {
        self.until(|state| if let LeaseState::Held(held) = state { Some(held.clone()) } else { None }).await
    }

    async fn there(&self) -> Option<Entry> {
        self.store.get(key("10.5.7.0-24")).await.unwrap()
    }

    async fn tell(&self, event: Event) {
        self.events.send(event).await.unwrap();
    }
}

fn path(key: LeaseKey) -> String {
    format!("subnets/{key}")
}

#[tokio::test(start_paused = true)]
async fn the_lease_lives_on_for_days_without_a_write() {
    let mut kept = Kept::start(&MemoryStore::default());
    let held = kept.held().await;
    assert_eq!((held.how, held.expires), (How::Remembered, Some(Instant::now() + DAY)));
    let began = Instant::now();
    kept.until(|state| matches!(state, LeaseState::Held(now) if now.expires != held.expires).then_some(())).await;
    assert!(began.elapsed() >= 6 * HOUR && began.elapsed() <= 10 * HOUR, "renewed after {:?}", began.elapsed());
    sleep(10 * DAY).await;
    assert_eq!(kept.there().await, Some(held.entry));
}

#[tokio::test(start_paused = true)]
async fn a_lease_found_at_start_is_renewed_at_once() {
    let store = MemoryStore::default();
    store.create(key("10.5.7.0-24"), &ours(), HOUR).await.unwrap();
    sleep(HOUR / 2).await;
    let held = Kept::start(&store).held().await;
    assert_eq!((held.how, held.expires), (How::Own, Some(Instant::now() + HOUR)));
}

#[tokio::test(start_paused = true)]
async fn a_reservation_never_expires_and_is_not_renewed() {
    let store = MemoryStore::default();
    store.put_raw("subnets/10.5.9.0-24", r#"{"PublicIP":"192.0.2.1"}"#, None);
    let held = Kept::start(&store).held().await;
    assert_eq!((held.entry.key, held.entry.expiry, held.expires), (key("10.5.9.0-24"), Expiry::Never, None));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_at_first_is_waited_for() {
    let store = MemoryStore::default();
    store.set_down(true);
    let mut kept = Kept::start(&store);
    let reason =
        kept.until(|state| if let LeaseState::Claiming { reason } = state { Some(reason.clone()).filter(|r| !r.is_empty()) } else { None });
    assert_eq!(reason.await, "cut off by the test");
    store.set_down(false);
    assert_eq!(kept.held().await.entry.key, key("10.5.7.0-24"));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_is_claimed_again_at_once_and_it_is_the_same_subnet() {
    let mut kept = Kept::start(&MemoryStore::default());
    let before = kept.held().await;
    kept.store.del_raw(&path(before.entry.key));
    let deleted = Instant::now();
    kept.tell(Event::Delete(before.entry.key)).await;
    let after = kept.until(|state| {
        if let LeaseState::Held(held) = state { (held.entry.created > before.entry.created).then(|| held.clone()) } else { None }
    });
    assert_eq!(after.await.entry.key, before.entry.key);
    assert!(deleted.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ran_out_while_cut_off_is_claimed_again() {
    let store = MemoryStore::default();
    let mut kept = Kept::start(&store);
    let before = kept.held().await;
    store.set_down(true);
    sleep(2 * DAY).await;
    assert_eq!(kept.there().await, None);
    let reason = kept.until(|state| if let LeaseState::Claiming { reason } = state { Some(reason.clone()) } else { None }).await;
    assert!(reason.starts_with("it could not be renewed in time: "), "{reason}");
    store.set_down(false);
    let after = kept.held().await;
    assert_eq!((after.entry.key, after.how), (before.entry.key, How::Remembered));
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_changes_nothing() {
    let store = MemoryStore::default();
    let mut kept = Kept::start(&store);
    let before = kept.held().await;
    store.set_down(true);
    sleep(12 * HOUR).await;
    assert_eq!(kept.held().await, before);
    store.set_down(false);
    sleep(2 * DAY).await;
    assert_eq!(kept.there().await, Some(before.entry));
}

#[tokio::test(start_paused = true)]
async fn a_subnet_that_another_host_took_is_not_stolen_but_taken_when_it_becomes_free() {
    let mut kept = Kept::start(&MemoryStore::default());
    let before = kept.held().await.entry;
    kept.store.put_raw(&path(before.key), &others().encode(), None);
    let theirs = kept.there().await.unwrap();
    kept.tell(Event::Apply(theirs.clone())).await;
    let reason = kept.until(|state| if let LeaseState::Lost { reason } = state { Some(reason.clone()) } else { None }).await;
    assert_eq!(reason, "subnet 10.5.7.0-24 is held by another host (192.0.2.2)");
    sleep(DAY).await;
    assert_eq!(kept.there().await, Some(theirs));
    kept.store.del_raw(&path(before.key));
    let freed = Instant::now();
    kept.tell(Event::Delete(before.key)).await;
    assert_eq!(kept.held().await.entry.key, before.key);
    assert!(freed.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_a_person_made_a_reservation_is_kept_as_one() {
    let mut kept = Kept::start(&MemoryStore::default());
    let before = kept.held().await.entry;
    kept.store.put_raw(&path(before.key), &ours().encode(), None);
    kept.tell(Event::Apply(kept.there().await.unwrap())).await;
    let after =
        kept.until(|state| if let LeaseState::Held(held) = state { held.expires.is_none().then(|| held.clone()) } else { None }).await;
    assert_eq!((after.entry.key, after.entry.expiry), (before.key, Expiry::Never));
}

#[tokio::test(start_paused = true)]
async fn events_that_are_late_or_not_ours_do_nothing() {
    let mut kept = Kept::start(&MemoryStore::default());
    let held = kept.held().await;
    kept.tell(Event::Apply(held.entry.clone())).await;
    kept.tell(Event::Delete(key("10.5.8.0-24"))).await;
    kept.tell(Event::Init).await;
    sleep(Duration::from_secs(1)).await;
    assert!(!kept.states.has_changed().unwrap());
    // A deletion that is older than what stands there: it is looked up, found to be ours, and not written.
    kept.tell(Event::Delete(held.entry.key)).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(kept.held().await.entry, held.entry);
    assert_eq!(kept.there().await, Some(held.entry));
}

#[tokio::test(start_paused = true)]
async fn stopping_leaves_the_lease() {
    let mut kept = Kept::start(&MemoryStore::default());
    let held = kept.held().await;
    kept.task.shutdown().await;
    assert_eq!(kept.there().await, Some(held.entry));
}
