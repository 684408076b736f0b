//! How a host comes by subnets that somebody else chose for it, and keeps them: on the store in memory, in paused time.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests say what went wrong by failing")]

use std::sync::Arc;
use std::time::Duration;

use lease::claim::{Claim, ClaimError, How, come_by, foresee};
use lease::keeper::{Keeper, LeaseState};
use lease::store::contract::{key, record};
use lease::store::memory::MemoryStore;
use lease::{Assigned, BackendType, Entry, Event, LeaseKey, LeaseRecord, LeaseStore, MacAddr, Owner, Rng, Vni, VtepData};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

const DAY: Duration = Duration::from_secs(86_400);
const MINE: &str = "10.5.7.0-24";

fn vtep(last: u8) -> VtepData {
    VtepData { vni: Vni::new(1).unwrap(), mac: MacAddr::new([2, 0, 0, 0, 0, last]) }
}

/// A Node's record: it does not say whose it is.
fn said(mac: u8) -> LeaseRecord {
    LeaseRecord { backend: BackendType::Vxlan, vtep: Some(vtep(mac)), owner: None, boot: None, ..record("192.0.2.1") }
}

/// What our host would say: with the MAC that the record found has, if it has one.
fn host(config: &str) -> Claim {
    let record = |found: Option<&LeaseRecord>| LeaseRecord { vtep: found.and_then(|found| found.vtep).or(Some(vtep(1))), ..said(1) };
    Claim {
        config: config.parse::<lease::NetworkConfig>().unwrap().for_assigned(),
        owner: Owner::new([1; 16]),
        public_ip: said(1).public_ip,
        public_ipv6: None,
        remembered: Some(key("10.5.99.0-24")),
        ttl: DAY,
        record: Arc::new(record),
    }
}

const CONFIG: &str = r#"{"Network":"10.5.0.0/16"}"#;

fn given(subnets: &str) -> MemoryStore {
    let store = MemoryStore::default();
    store.assign(Assigned::Key(key(subnets)));
    store
}

async fn take(store: &MemoryStore, config: &str, last: Option<&Entry>) -> Result<Entry, ClaimError> {
    let outcome = come_by(store, &host(config), last, &mut Rng::new(1)).await?;
    assert_eq!(outcome.how, How::Assigned);
    Ok(outcome.entry)
}

#[tokio::test]
async fn what_a_host_is_given_it_takes_and_finds_again_without_a_write() {
    let store = given(MINE);
    let first = take(&store, CONFIG, None).await.unwrap();
    assert_eq!((first.key, &first.record), (key(MINE), &Ok(said(1))));
    assert_eq!(take(&store, CONFIG, None).await, Ok(first.clone()));
    assert_eq!(take(&store, CONFIG, Some(&first)).await, Ok(first));
}

#[tokio::test]
async fn the_mac_that_the_others_know_stays_and_all_else_is_put_right() {
    let store = given(MINE);
    store.create(key(MINE), &LeaseRecord { public_ip: record("192.0.2.9").public_ip, ..said(9) }, DAY).await.unwrap();
    assert_eq!(take(&store, CONFIG, None).await.unwrap().record, Ok(said(9)));
}

#[tokio::test]
async fn what_we_have_said_goes_before_what_somebody_made_of_it() {
    let store = given(MINE);
    let last = take(&store, CONFIG, None).await.unwrap();
    store.replace(&last, &said(66)).await.unwrap();
    assert_eq!(take(&store, CONFIG, Some(&last)).await.unwrap().record, Ok(said(1)));
    // A Node that comes again with other subnets is the same host still.
    let last = Entry { record: Ok(said(5)), ..last };
    store.assign(Assigned::Key(key("10.5.8.0-24")));
    let moved = take(&store, CONFIG, Some(&last)).await.unwrap();
    assert_eq!((moved.key, moved.record), (key("10.5.8.0-24"), Ok(said(5))));
}

#[tokio::test]
async fn a_subnet_may_have_any_length_within_the_network_and_lies_nowhere_else() {
    for subnets in ["10.5.7.0-26", "10.5.0.0-24", "10.5.128.0-17"] {
        assert_eq!(take(&given(subnets), CONFIG, None).await.unwrap().key, key(subnets));
    }
    let outside = take(&given("10.6.7.0-24"), CONFIG, None).await.unwrap_err();
    assert_eq!(outside, ClaimError::Outside { subnet: "10.6.7.0/24".parse().unwrap(), network: "10.5.0.0/16".parse().unwrap() });
    assert!(outside.to_string().contains("--cluster-cidr"), "{outside}");
}

#[tokio::test]
async fn each_family_that_is_on_needs_a_subnet_and_one_that_is_off_may_have_one() {
    const DUAL: &str = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/32"}"#;
    let both = "10.5.7.0-24&fc00:5:7::-64";
    for config in [CONFIG, DUAL] {
        assert_eq!(take(&given(both), config, None).await.unwrap().key, key(both));
    }
    let lacking = take(&given(MINE), DUAL, None).await.unwrap_err().to_string();
    assert!(lacking.contains("no IPv6 subnet") && lacking.contains("fc00:5::/32"), "{lacking}");
}

#[tokio::test]
async fn what_would_be_taken_can_be_foreseen() {
    let store = given(MINE);
    for wanted in [Some("written for the first time"), None] {
        let (assigned, snapshot) = (store.assigned().await.unwrap(), store.list().await.unwrap());
        let foreseen = foresee(&host(CONFIG), &assigned, &snapshot, &mut Rng::new(1)).unwrap();
        assert_eq!((foreseen.entry.key, foreseen.write), (key(MINE), wanted));
        take(&store, CONFIG, None).await.unwrap();
    }
}

/// A keeper that runs.
struct Kept {
    states: watch::Receiver<LeaseState>,
    events: mpsc::Sender<Event>,
    _task: JoinSet<()>,
}

impl Kept {
    fn start(store: &MemoryStore) -> Self {
        let (keeper, states, events) = Keeper::new(store.clone(), host(CONFIG), DAY / 24, Rng::new(1));
        let mut task = JoinSet::new();
        task.spawn(keeper.run());
        Self { states, events, _task: task }
    }

    async fn until(&mut self, wanted: impl FnMut(&LeaseState) -> bool) {
        timeout(DAY, self.states.wait_for(wanted)).await.expect("the state comes").unwrap();
    }

    async fn until_held(&mut self, wanted: LeaseKey) {
        self.until(|state| matches!(state, LeaseState::Held(held) if held.entry.key == wanted && held.expires.is_some())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_waits_for_its_subnet_says_why_and_takes_it_within_seconds() {
    let store = MemoryStore::default();
    store.assign(Assigned::Not("Node n1 has no podCIDR".to_owned()));
    let mut kept = Kept::start(&store);
    kept.until(|state| matches!(state, LeaseState::Claiming { reason } if reason == "Node n1 has no podCIDR")).await;
    tokio::time::sleep(DAY / 24).await;
    store.assign(Assigned::Key(key(MINE)));
    let given = Instant::now();
    kept.until_held(key(MINE)).await;
    assert!(given.elapsed() < Duration::from_secs(4), "after {:?}", given.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_given_another_subnet_follows() {
    let store = given(MINE);
    let mut kept = Kept::start(&store);
    kept.until_held(key(MINE)).await;
    store.assign(Assigned::Key(key("10.5.8.0-24")));
    kept.events.send(Event::Delete(key(MINE))).await.unwrap();
    kept.until_held(key("10.5.8.0-24")).await;
}
