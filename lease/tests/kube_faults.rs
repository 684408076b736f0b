//! The Node store while the API server, its history and the Nodes do what they do.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests say what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{Nodes, kube_annotations, watched};
use lease::store::Health;
use lease::store::contract::{Events, key};
use lease::store::kube::{KubeOptions, KubeStore};
use lease::{Entry, Event, LeaseRecord, LeaseStore};
use serde_json::json;
use testkit::wait_for;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);
/// A watch that says nothing for so long is too silent.
const SILENCE: Duration = Duration::from_secs(101);

/// A peer's Node, as its flanneld has annotated it.
fn put_peer(bench: &Nodes, name: &str, cidrs: &[&str], address: &str) {
    bench.server.put_node(name, cidrs).unwrap();
    annotate(bench, name, address);
}

fn annotate(bench: &Nodes, name: &str, address: &str) {
    let patch = json!({ "metadata": { "annotations": kube_annotations(address) } });
    bench.server.patch(name, &patch).unwrap();
}

fn record(entry: &Entry) -> &LeaseRecord {
    entry.record.as_ref().unwrap()
}

/// The next event, which has to be a lease put with this key and address.
async fn applied(events: &mut Events, subnet: &str, address: &str) -> Entry {
    match events.next().await {
        Event::Apply(entry) if entry.key == key(subnet) && record(&entry).public_ip == address.parse().ok() => entry,
        event => panic!("{event:?} instead of {subnet} at {address}"),
    }
}

fn lists(requests: &[String]) -> usize {
    requests.iter().filter(|request| *request == "GET /api/v1/nodes").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_is_no_event() {
    let bench = Nodes::default();
    put_peer(&bench, "a", &["10.5.1.0/24"], "192.0.2.1");
    watched(bench.of("own"), async |mut events| {
        assert_eq!(events.snapshot().await, [key("10.5.1.0-24")]);
        (0..100).for_each(|_| bench.server.heartbeat("a").unwrap());
        annotate(&bench, "a", "192.0.2.2");
        applied(&mut events, "10.5.1.0-24", "192.0.2.2").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_ends_goes_on_where_it_was() {
    let bench = Nodes::default();
    put_peer(&bench, "a", &["10.5.1.0/24"], "192.0.2.1");
    watched(bench.of("own"), async |mut events| {
        events.snapshot().await;
        bench.server.take_requests();
        bench.server.close_watches();
        annotate(&bench, "a", "192.0.2.2");
        applied(&mut events, "10.5.1.0-24", "192.0.2.2").await;
        assert_eq!(lists(&bench.server.take_requests()), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_gone_is_listed_anew_and_what_went_with_it_is_not_named() {
    let bench = Nodes::default();
    put_peer(&bench, "a", &["10.5.1.0/24"], "192.0.2.1");
    put_peer(&bench, "b", &["10.5.2.0/24"], "192.0.2.2");
    watched(bench.of("own"), async |mut events| {
        events.snapshot().await;
        bench.server.hang(true);
        bench.server.delete_node("a").unwrap();
        bench.server.compact();
        bench.server.hang(false);
        assert_eq!(events.next().await, Event::Init);
        assert_eq!(events.snapshot().await, [key("10.5.2.0-24")]);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_behind_what_it_has_told_is_listed_anew_when_its_watch_is_silent() {
    let bench = Nodes::default();
    put_peer(&bench, "a", &["10.5.1.0/24"], "192.0.2.1");
    let copy = bench.server.revision();
    put_peer(&bench, "b", &["10.5.2.0/24"], "192.0.2.2");
    watched(bench.of("own"), async |mut events| {
        events.snapshot().await;
        annotate(&bench, "b", "192.0.2.3");
        applied(&mut events, "10.5.2.0-24", "192.0.2.3").await;
        bench.server.go_back(copy);
        tokio::time::pause();
        tokio::time::advance(SILENCE).await;
        tokio::time::resume();
        assert_eq!(events.next().await, Event::Init);
        assert_eq!(events.snapshot().await, [key("10.5.1.0-24")]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_breaks_off_is_not_a_list() {
    let bench = Nodes::default();
    let count: u16 = 600;
    for number in 0..count {
        let cidr = format!("10.{}.{}.0/24", number / 256, number % 256);
        put_peer(&bench, &format!("n{number:03}"), &[&cidr], "192.0.2.1");
    }
    // Once within its first page, once within a later one. Each page is asked for again.
    for after in [0, 1] {
        bench.server.cut_page(after);
        watched(bench.of("own"), async |mut events| assert_eq!(events.snapshot().await.len(), usize::from(count))).await;
        bench.server.cut_page(after);
        assert_eq!(bench.of("own").list().await.unwrap().entries.len(), usize::from(count));
    }
    // While the history goes from under it, it begins anew.
    watched(bench.of("own"), async |mut events| {
        assert_eq!(events.next().await, Event::Init);
        bench.server.compact();
        assert_eq!(events.snapshot().await.len(), usize::from(count));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_changes_nothing() {
    let mut bench = Nodes::default();
    put_peer(&bench, "a", &["10.5.1.0/24"], "192.0.2.1");
    bench.server.stop();
    let store = bench.of("own");
    let mut health = store.health();
    assert_eq!(*health.borrow(), Health::Unknown);
    watched(store, async |mut events| {
        let down = timeout(SOON, health.wait_for(|health| matches!(health, Health::Down(_)))).await.unwrap().unwrap().clone();
        assert!(matches!(&down, Health::Down(why) if why.contains("refused")), "{down:?}");
        bench.server.start().unwrap();
        assert_eq!(events.snapshot().await, [key("10.5.1.0-24")]);
        assert_eq!(*health.borrow_and_update(), Health::Up);
        // And once more in the middle: nothing is told, and nothing is listed.
        bench.server.take_requests();
        bench.server.stop();
        timeout(SOON, health.wait_for(|health| matches!(health, Health::Down(_)))).await.unwrap().unwrap();
        annotate(&bench, "a", "192.0.2.2");
        bench.server.start().unwrap();
        applied(&mut events, "10.5.1.0-24", "192.0.2.2").await;
        assert_eq!(lists(&bench.server.take_requests()), 0);
        assert_eq!(*health.borrow(), Health::Up);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_also_where_an_outage_was_before() {
    let mut bench = Nodes::default();
    bench.server.stop();
    bench.server.forbid("list", "nodes");
    let store = bench.of("own");
    let mut health = store.health();
    watched(store, async |_events| {
        let down = timeout(SOON, health.wait_for(|health| matches!(health, Health::Down(_)))).await.unwrap().unwrap().clone();
        assert!(matches!(&down, Health::Down(why) if why.contains("refused")), "{down:?}");
        bench.server.start().unwrap();
        let named = |health: &Health| matches!(health, Health::Down(why) if why.contains("may not list nodes"));
        timeout(SOON, health.wait_for(named)).await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_connection_goes_on_where_the_old_one_was() {
    let bench = Nodes::default();
    put_peer(&bench, "a", &["10.5.1.0/24"], "192.0.2.1");
    let store = bench.of("own");
    watched(store.clone(), async |mut events| {
        events.snapshot().await;
        bench.server.take_requests();
        store.reconnect();
        wait_for("another watch", SOON, || {
            let requests = bench.server.take_requests();
            anyhow::ensure!(requests == ["WATCH /api/v1/nodes"], "{requests:?}");
            Ok(())
        })
        .unwrap();
        annotate(&bench, "a", "192.0.2.2");
        applied(&mut events, "10.5.1.0-24", "192.0.2.2").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_with_another_pod_cidr_leaves_the_old_one() {
    let bench = Nodes::default();
    put_peer(&bench, "a", &["10.5.1.0/24"], "192.0.2.1");
    watched(bench.of("own"), async |mut events| {
        events.snapshot().await;
        bench.server.delete_node("a").unwrap();
        put_peer(&bench, "a", &["10.5.2.0/24"], "192.0.2.1");
        assert_eq!(events.next().await, Event::Delete(key("10.5.1.0-24")));
        applied(&mut events, "10.5.2.0-24", "192.0.2.1").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_annotation_goes_is_no_peer_and_one_family_may_change_alone() {
    let bench = Nodes::default();
    put_peer(&bench, "a", &["10.5.1.0/24", "fc00:1::/64"], "192.0.2.1");
    watched(bench.of("own"), async |mut events| {
        events.snapshot().await;
        let v6 = |value| bench.server.annotate("a", &[("flannel.alpha.coreos.com/public-ipv6", value)]).unwrap();
        v6(Some("fd00::1"));
        let entry = applied(&mut events, "10.5.1.0-24&fc00:1::-64", "192.0.2.1").await;
        assert_eq!(record(&entry).public_ipv6, "fd00::1".parse().ok());
        v6(None);
        let entry = applied(&mut events, "10.5.1.0-24&fc00:1::-64", "192.0.2.1").await;
        assert_eq!(record(&entry).public_ipv6, None);
        bench.server.annotate("a", &[("flannel.alpha.coreos.com/kube-subnet-manager", None)]).unwrap();
        assert_eq!(events.next().await, Event::Delete(key("10.5.1.0-24&fc00:1::-64")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_with_one_pod_cidr_the_older_is_in_force_until_it_goes() {
    let bench = Nodes::default();
    put_peer(&bench, "z-elder", &["10.5.1.0/24"], "192.0.2.1");
    put_peer(&bench, "a-younger", &["10.5.1.0/24"], "192.0.2.2");
    watched(bench.of("own"), async |mut events| {
        let mut last = None;
        loop {
            match events.next().await {
                Event::InitApply(entry) => last = Some(entry),
                Event::InitDone(_) => break,
                _ => (),
            }
        }
        assert_eq!(record(&last.unwrap()).public_ip, "192.0.2.1".parse().ok());
        bench.server.heartbeat("a-younger").unwrap();
        bench.server.delete_node("z-elder").unwrap();
        assert_eq!(events.next().await, Event::Delete(key("10.5.1.0-24")));
        applied(&mut events, "10.5.1.0-24", "192.0.2.2").await;
    })
    .await;
    let listed = bench.of("own").list().await.unwrap().entries;
    assert_eq!(listed.len(), 1);
    put_peer(&bench, "third", &["10.5.1.0/24"], "192.0.2.3");
    let store = bench.of("third");
    assert_eq!(record(&store.list().await.unwrap().entries[0]).public_ip, "192.0.2.3".parse().ok(), "our own is in force with us");
}

/// A kubeconfig for the stand-in, with the token in a file of its own.
fn with_token_file(bench: &Nodes, token: &str) -> KubeOptions {
    let file = bench.files.path().join("token");
    std::fs::write(&file, token).unwrap();
    let user = json!({ "name": "u", "user": { "tokenFile": file } });
    kubeconfig(bench, json!({ "server": bench.server.url() }), user)
}

fn kubeconfig(bench: &Nodes, cluster: serde_json::Value, user: serde_json::Value) -> KubeOptions {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "k", "cluster": cluster }],
        "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "u" } }],
        "users": [user],
    });
    let file = bench.files.path().join("kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    KubeOptions { api_url: None, kubeconfig: Some(file), ..bench.options("own") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_renewed_is_read_at_once() {
    let bench = Nodes::default();
    put_peer(&bench, "own", &["10.5.1.0/24"], "192.0.2.1");
    bench.server.want_token(Some("first"));
    let options = with_token_file(&bench, "first");
    let store = KubeStore::new(options).unwrap();
    watched(store.clone(), async |mut events| {
        events.snapshot().await;
        std::fs::write(bench.files.path().join("token"), "second").unwrap();
        bench.server.want_token(Some("second"));
        assert!(store.get(key("10.5.1.0-24")).await.unwrap().is_some());
        bench.server.close_watches();
        annotate(&bench, "own", "192.0.2.2");
        applied(&mut events, "10.5.1.0-24", "192.0.2.2").await;
        assert_eq!(*store.health().borrow(), Health::Up);
        // One that nobody knows is told as what it is.
        bench.server.want_token(Some("third"));
        let error = store.get(key("10.5.1.0-24")).await.unwrap_err();
        assert!(matches!(&error, lease::store::StoreError::Denied(text) if text.contains("credentials")), "{error:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_is_named_and_its_return_found_out() {
    let bench = Nodes::default();
    put_peer(&bench, "own", &["10.5.1.0/24"], "192.0.2.1");
    bench.server.forbid("watch", "nodes");
    let store = bench.of("own");
    let mut health = store.health();
    watched(store.clone(), async |mut events| {
        events.snapshot().await;
        let down = timeout(SOON, health.wait_for(|health| matches!(health, Health::Down(_)))).await.unwrap().unwrap().clone();
        assert!(matches!(&down, Health::Down(why) if why.contains("watch nodes") && why.contains("ClusterRole")), "{down:?}");
        // That something else works does not mean that all is well.
        assert!(store.get(key("10.5.1.0-24")).await.is_ok());
        assert!(matches!(&*health.borrow(), Health::Down(_)));
        bench.server.forbid_nothing();
        annotate(&bench, "own", "192.0.2.2");
        applied(&mut events, "10.5.1.0-24", "192.0.2.2").await;
        assert_eq!(*health.borrow(), Health::Up);
    })
    .await;
}

#[tokio::test]
async fn options_that_cannot_work_are_named() {
    let bench = Nodes::default();
    let error = |options: KubeOptions| KubeStore::new(options).unwrap_err().to_string();
    let ca = bench.files.path().join("ca.crt");
    std::fs::write(&ca, "rubbish").unwrap();
    let no_user = || json!({ "name": "u", "user": {} });
    let said = error(kubeconfig(&bench, json!({ "server": "https://127.0.0.1:1", "certificate-authority": ca }), no_user()));
    assert!(said.contains("ca.crt") && said.contains("no certificate in PEM form"), "{said}");
    let missing = KubeOptions { kubeconfig: Some("/nowhere/kubeconfig".into()), ..bench.options("own") };
    assert!(error(missing).contains("/nowhere/kubeconfig"));
    let url = KubeOptions { api_url: Some("10.0.0.1:6443".to_owned()), ..bench.options("own") };
    assert!(error(url).contains("--kube-api-url"));
    let outside = KubeOptions { api_url: None, ..bench.options("own") };
    assert!(error(outside).contains("--kubeconfig-file"));
    let prefix = KubeOptions { annotation_prefix: "x".to_owned(), ..bench.options("own") };
    assert!(error(prefix).contains("--kube-annotation-prefix"));
}

/// The program that a kubeconfig names for its credentials hangs: calls fail in their time, and one process is left, not many.
#[tokio::test(flavor = "current_thread")]
async fn credentials_that_do_not_come_hold_nobody_up() {
    let bench = Nodes::default();
    put_peer(&bench, "own", &["10.5.1.0/24"], "192.0.2.1");
    let (started, go_on) = (bench.files.path().join("started"), bench.files.path().join("go-on"));
    let script = format!(
        "echo >>{}; while [ ! -e {} ]; do sleep 0.05; done; echo '{}'",
        started.display(),
        go_on.display(),
        json!({ "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": { "token": "late" } })
    );
    let exec = json!({ "apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/sh", "args": ["-c", script] });
    let user = json!({ "name": "u", "user": { "exec": exec } });
    let store = KubeStore::new(kubeconfig(&bench, json!({ "server": bench.server.url() }), user)).unwrap();
    bench.server.want_token(Some("late"));

    let (call, other) = (store.get(key("10.5.1.0-24")), async {
        // Were the runtime held up, this would not end before the call does.
        while !started.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    tokio::pin!(call);
    tokio::select! {
        _ = &mut call => panic!("there are no credentials yet"),
        () = other => {}
    }
    let another = timeout(Duration::from_millis(300), store.get(key("10.5.1.0-24"))).await;
    assert!(another.is_err(), "{another:?}");
    assert_eq!(std::fs::read_to_string(&started).unwrap().lines().count(), 1, "each attempt has begun one of its own");
    std::fs::write(&go_on, "").unwrap();
    assert!(timeout(SOON, call).await.unwrap().unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_of_no_use_is_told_as_the_store_being_away() {
    let bench = Nodes::default();
    put_peer(&bench, "own", &["10.5.1.0/24"], "192.0.2.1");
    let store = bench.of("own");
    let mut health = store.health();
    let is_down = |health: &Health, asked: &str| matches!(health, Health::Down(why) if why.contains(asked));
    bench.server.fail_next(&[404]);
    watched(store.clone(), async |mut events| {
        timeout(SOON, health.wait_for(|health| is_down(health, "list nodes"))).await.unwrap().unwrap();
        events.snapshot().await;
        timeout(SOON, health.wait_for(|health| *health == Health::Up)).await.unwrap().unwrap();
        bench.server.fail_next(&[404; 3]);
        bench.server.close_watches();
        timeout(SOON, health.wait_for(|health| is_down(health, "watch nodes"))).await.unwrap().unwrap();
        annotate(&bench, "own", "192.0.2.2");
        applied(&mut events, "10.5.1.0-24", "192.0.2.2").await;
        assert_eq!(*health.borrow(), Health::Up);
    })
    .await;
}
