//! What a watch and a call do when a real etcd dies, hangs, forgets or loses its memory.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests say what went wrong by failing")]

mod common;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use common::{Keys, PREFIX, Real, options};
use lease::store::contract::{Events, key, record};
use lease::store::etcd::{EtcdOptions, EtcdStore};
use lease::store::{Health, StoreError};
use lease::{Event, Expiry, LeaseStore};
use testkit::{Etcd, Fault, Proxy};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

const DAY: Duration = Duration::from_secs(86_400);
const PATIENCE: Duration = Duration::from_secs(30);

/// A watch that runs until this is dropped.
struct Watching {
    events: Events,
    _task: JoinSet<()>,
}

impl Watching {
    fn start(store: &EtcdStore) -> Self {
        let (sender, receiver) = mpsc::channel(64);
        let store = store.clone();
        let mut task = JoinSet::new();
        task.spawn(async move { store.watch(sender).await });
        Self { events: Events::new(receiver), _task: task }
    }

    async fn next(&mut self) -> Event {
        self.events.next().await
    }
}

async fn until(health: &mut watch::Receiver<Health>, wanted: impl Fn(&Health) -> bool) {
    timeout(PATIENCE, health.wait_for(|health| wanted(health))).await.expect("the health changes").expect("the store lives");
}

fn is_down(health: &Health) -> bool {
    matches!(health, Health::Down(_))
}

fn closed_port() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}")
}

fn store(options: EtcdOptions) -> EtcdStore {
    EtcdStore::new(options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_where_it_was_when_etcd_comes_back() {
    let mut bench = Real::default();
    let mut health = bench.store.health();
    bench.put("subnets/10.5.1.0-24", "x");
    let mut watching = Watching::start(&bench.store);
    assert_eq!(watching.events.snapshot().await, [key("10.5.1.0-24")]);
    bench.put("subnets/10.5.2.0-24", "x");
    assert!(matches!(watching.next().await, Event::Apply(_)));
    bench.etcd.kill().unwrap();
    until(&mut health, is_down).await;
    bench.etcd.restart().unwrap();
    bench.put("subnets/10.5.3.0-24", "x");
    until(&mut health, |health| *health == Health::Up).await;
    // The last change before the break may be told again; a list is not.
    loop {
        match watching.next().await {
            Event::Apply(entry) if entry.key == key("10.5.2.0-24") => (),
            Event::Apply(entry) => break assert_eq!(entry.key, key("10.5.3.0-24")),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_during_the_break_means_a_new_list() {
    let bench = Real::default();
    bench.put("subnets/10.5.1.0-24", "x");
    let wire = Wire::start(bench.etcd.endpoint()).await;
    let store = store(EtcdOptions { endpoints: vec![wire.endpoint.clone()], ..options(&bench.etcd) });
    let mut health = store.health();
    let mut watching = Watching::start(&store);
    assert_eq!(watching.events.snapshot().await, [key("10.5.1.0-24")]);
    wire.cut.send_replace(true);
    until(&mut health, is_down).await;
    bench.del("subnets/10.5.1.0-24");
    bench.put("subnets/10.5.2.0-24", "x");
    bench.etcd.compact().unwrap();
    wire.cut.send_replace(false);
    assert_eq!(watching.next().await, Event::Init);
    assert_eq!(watching.events.snapshot().await, [key("10.5.2.0-24")]);
}

/// A wire to etcd that can be cut.
struct Wire {
    endpoint: String,
    cut: watch::Sender<bool>,
    _task: JoinSet<()>,
}

impl Wire {
    async fn start(etcd: &str) -> Self {
        let etcd = etcd.strip_prefix("http://").unwrap().to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (cut, is_cut) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let (etcd, mut is_cut) = (etcd.clone(), is_cut.clone());
                connections.spawn(async move {
                    let Ok(mut far) = tokio::net::TcpStream::connect(etcd).await else { return };
                    tokio::select! {
                        _ = is_cut.wait_for(|cut| *cut) => (),
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => (),
                    }
                });
            }
        });
        Self { endpoint, cut, _task: task }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lost_its_memory_is_listed_anew() {
    let mut bench = Real::default();
    for number in 1..=5 {
        bench.put(&format!("subnets/10.5.{number}.0-24"), "x");
    }
    let mut watching = Watching::start(&bench.store);
    assert_eq!(watching.events.snapshot().await.len(), 5);
    bench.etcd.restart_empty().unwrap();
    bench.put("subnets/10.5.9.0-24", "x");
    assert_eq!(watching.next().await, Event::Init);
    let mut keys = watching.events.snapshot().await;
    if keys.is_empty() {
        let Event::Apply(entry) = watching.next().await else { panic!("the new lease comes") };
        keys.push(entry.key);
    }
    assert_eq!(keys, [key("10.5.9.0-24")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_hangs_is_noticed_and_its_watch_goes_on_after() {
    let mut bench = Real::default();
    let mut watching = Watching::start(&bench.store);
    watching.events.snapshot().await;
    let mut health = bench.store.health();
    bench.etcd.pause().unwrap();
    let began = Instant::now();
    until(&mut health, is_down).await;
    // A ping is due after 6 s, has 3 s to be answered, and the new connection 4 s: 13 s, and room for a busy machine.
    assert!(began.elapsed() < Duration::from_secs(18), "noticed after {:?}", began.elapsed());
    let hung = bench.store.get(key("10.5.1.0-24")).await;
    assert!(matches!(hung, Err(StoreError::Unavailable(_))), "{hung:?}");
    bench.etcd.resume().unwrap();
    until(&mut health, |health| *health == Health::Up).await;
    bench.put("subnets/10.5.1.0-24", "x");
    assert!(matches!(watching.next().await, Event::Apply(entry) if entry.key == key("10.5.1.0-24")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_among_several_costs_nothing_but_a_moment() {
    let bench = Real::default();
    // Whichever is tried first: several stores begin at different ones.
    for _ in 0..8 {
        let endpoints = vec![closed_port(), bench.etcd.endpoint().to_owned(), closed_port()];
        let store = store(EtcdOptions { endpoints, ..options(&bench.etcd) });
        for _ in 0..20 {
            assert_eq!(store.config().await, Ok(None));
        }
        assert_eq!(*store.health().borrow(), Health::Up);
        assert!(Watching::start(&store).events.snapshot().await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_endpoint_that_answers_is_an_error_that_names_one() {
    let endpoint = closed_port();
    let store = store(EtcdOptions { endpoints: vec![endpoint.clone()], prefix: PREFIX.to_owned(), ..EtcdOptions::default() });
    let Err(StoreError::Unavailable(text)) = store.config().await else { panic!("nobody is there") };
    assert!(text.starts_with(&endpoint), "{text}");
    assert_eq!(text.to_lowercase().matches("connection refused").count(), 1, "{text}");
    assert!(is_down(&store.health().borrow()));
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_leases_come_in_pages_and_in_full() {
    let bench = Real::default();
    // Through etcdctl's transactions: 100 puts each stay below etcd's 128 operations.
    for chunk in 0..50 {
        let puts: String = (0..100)
            .map(|number| {
                let index = chunk * 100 + number;
                format!("put {PREFIX}/subnets/10.{}.{}.0-24 {:?}\n", index / 256, index % 256, record("192.0.2.1").encode())
            })
            .collect();
        txn(&bench.etcd, &puts);
    }
    let listed = bench.store.list().await.unwrap();
    assert_eq!(listed.entries.len(), 5_000);
    let unreadable = listed.entries.iter().find(|entry| entry.record.is_err());
    assert_eq!(unreadable, None);
    let mut watching = Watching::start(&bench.store);
    assert_eq!(watching.next().await, Event::Init);
    let mut keys = watching.events.snapshot().await;
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 5_000);
    // One revision that is larger than a message: told in fragments, none of them lost.
    bench.etcd.ctl(&["del", "--prefix", &format!("{PREFIX}/subnets/")]).unwrap();
    for _ in 0..5_000 {
        assert!(matches!(watching.next().await, Event::Delete(_)));
    }
}

fn txn(etcd: &Etcd, puts: &str) {
    use std::io::Write;
    let mut child = std::process::Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", etcd.endpoint(), "txn"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("etcdctl is installed: apt-get install etcd-client");
    child.stdin.take().unwrap().write_all(format!("\n{puts}\n\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_during_a_short_outage_succeeds_when_etcd_is_back() {
    let mut bench = Real::default();
    let entry = bench.store.create(key("10.5.1.0-24"), &record("192.0.2.1"), DAY).await.unwrap();
    bench.etcd.kill().unwrap();
    bench.etcd.restart().unwrap();
    assert_eq!(bench.store.get(entry.key).await, Ok(Some(entry)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_takes_five_seconds_for_everything_serves_all_the_same() {
    let bench = Real::default();
    let proxy = Proxy::alone(&bench.etcd).unwrap();
    proxy.set(Fault::Delay(Duration::from_secs(5)));
    let store = store(EtcdOptions { endpoints: vec![proxy.endpoint()], ..options(&bench.etcd) });
    let entry = store.create(key("10.5.1.0-24"), &record("192.0.2.1"), DAY).await.unwrap();
    let Expiry::Lease(lease) = entry.expiry else { panic!("{entry:?}") };
    assert_eq!(store.keep_alive(lease).await, Ok(DAY));
    let mut watching = Watching::start(&store);
    let snapshot = timeout(PATIENCE, watching.events.snapshot()).await.expect("the list comes");
    assert_eq!(snapshot, [entry.key]);
    assert_eq!(*store.health().borrow(), Health::Up);
}
