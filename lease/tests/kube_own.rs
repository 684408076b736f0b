//! What the Node store reads and writes of its own Node.

#![expect(clippy::unwrap_used, reason = "tests say what went wrong by failing")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Nodes, watched};
use lease::store::contract::{key, record};
use lease::store::kube::{EventKind, KubeOptions, KubeStore, NodeEvent, NodeRef};
use lease::store::{Assigned, StoreError, WriteError};
use lease::{Event, LeaseRecord, LeaseStore};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

const KEY: &str = "10.5.1.0-24";
const TTL: Duration = Duration::from_secs(3_600);

fn said(address: &str) -> LeaseRecord {
    LeaseRecord { owner: None, ..record(address) }
}

fn bench() -> Nodes {
    let bench = Nodes::default();
    bench.server.put_node("own", &["10.5.1.0/24"]).unwrap();
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_is_assigned_is_its_pod_cidrs_or_why_it_has_none() {
    let bench = bench();
    assert_eq!(bench.of("own").assigned().await, Ok(Assigned::Key(key(KEY))));
    let not = async |name: &str| match bench.of(name).assigned().await {
        Ok(Assigned::Not(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(not("stranger").await.contains("Node stranger is not registered"));
    bench.server.put_node("bare", &[]).unwrap();
    assert!(not("bare").await.contains("--allocate-node-cidrs"));
    bench.server.put_node("odd", &["10.5.1.0/24", "10.5.2.0/24"]).unwrap();
    assert!(not("odd").await.contains("of one family"));
}

#[tokio::test(flavor = "multi_thread")]
async fn our_node_is_found_by_our_pod() {
    let bench = bench();
    let pod = NodeRef::Pod { namespace: "kube-flannel".to_owned(), name: "p".to_owned() };
    let store = KubeStore::new(KubeOptions { node: pod, ..bench.options("") }).unwrap();
    assert!(matches!(store.assigned().await, Err(StoreError::Protocol(_))), "no such pod");
    bench.server.put_pod("kube-flannel", "p", "own");
    assert_eq!(store.assigned().await, Ok(Assigned::Key(key(KEY))));
    assert_eq!(store.node_name().await.as_deref(), Ok("own"));
    bench.server.take_requests();
    store.assigned().await.unwrap();
    assert_eq!(bench.server.take_requests(), ["GET /api/v1/nodes/own"], "the name is asked for once");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_but_our_annotations() {
    let bench = bench();
    bench
        .server
        .annotate("own", &[("example.com/theirs", Some("1")), ("flannel.alpha.coreos.com/node-public-ip", Some("192.0.2.1"))])
        .unwrap();
    bench.server.heartbeat("own").unwrap();
    let before = bench.server.node("own").unwrap();
    let store = bench.of("own");
    let made = store.create(key(KEY), &said("192.0.2.1"), TTL).await.unwrap();
    let after = bench.server.node("own").unwrap();
    assert_eq!((&after["spec"], &after["status"]), (&before["spec"], &before["status"]));
    assert_eq!(after["metadata"]["annotations"]["flannel.alpha.coreos.com/public-ip"], "192.0.2.1");
    store.delete(&made).await.unwrap();
    assert_eq!(bench.server.node("own").unwrap()["metadata"]["annotations"], before["metadata"]["annotations"]);
    let other = store.create(key("10.5.2.0-24"), &said("192.0.2.1"), TTL).await;
    assert!(matches!(&other, Err(WriteError::Store(StoreError::Denied(why))) if why.contains("10.5.2.0-24")), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_do_not_disturb_a_write() {
    let bench = bench();
    let store = bench.of("own");
    let mut seen = store.create(key(KEY), &said("192.0.2.1"), TTL).await.unwrap();
    let bench = Arc::new(bench);
    let mut beating = JoinSet::new();
    let kubelet = Arc::clone(&bench);
    beating.spawn(async move {
        loop {
            kubelet.server.heartbeat("own").unwrap();
            sleep(Duration::from_millis(1)).await;
        }
    });
    for number in 2..20 {
        seen = store.replace(&seen, &said(&format!("192.0.2.{number}"))).await.unwrap();
    }
    beating.abort_all();
    assert_eq!(store.replace(&seen, &said("192.0.2.99")).await.unwrap().record, Ok(said("192.0.2.99")));
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_write_is_known_again_whatever_the_kubelet_writes() {
    let bench = bench();
    let store = bench.of("own");
    watched(store.clone(), async |mut events| {
        events.snapshot().await;
        let made = store.create(key(KEY), &said("192.0.2.1"), TTL).await.unwrap();
        assert_eq!(events.next().await, Event::Apply(made.clone()));
        (0..10).for_each(|_| bench.server.heartbeat("own").unwrap());
        bench.server.compact();
        assert_eq!(events.next().await, Event::Init);
        assert_eq!(events.next().await, Event::InitApply(made.clone()), "a later list is no other's write");
        assert!(matches!(events.next().await, Event::InitDone(_)));
        assert_eq!(store.get(key(KEY)).await, Ok(Some(made.clone())));
        bench.server.annotate("own", &[("flannel.alpha.coreos.com/public-ip", Some("192.0.2.66"))]).unwrap();
        let Event::Apply(theirs) = events.next().await else { panic!("another's write is one") };
        assert!(theirs.modified > made.modified);
        assert!(matches!(store.replace(&made, &said("192.0.2.1")).await, Err(WriteError::Conflict(Some(there))) if *there == theirs));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_is_known_again() {
    let bench = bench();
    let store = bench.of("own");
    bench.server.lose_next_reply();
    let made = store.create(key(KEY), &said("192.0.2.1"), TTL).await.unwrap();
    bench.server.lose_next_reply();
    let newer = store.replace(&made, &said("192.0.2.2")).await.unwrap();
    bench.server.lose_next_reply();
    store.delete(&newer).await.unwrap();
    assert_eq!(store.get(key(KEY)).await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_is_said_to_be_there_once_and_beside_the_other_conditions() {
    let bench = bench();
    let ready = json!({ "type": "Ready", "status": "True" });
    let unavailable = json!({ "type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated" });
    bench.server.put_object(json!({ "metadata": { "name": "cloud" }, "status": { "conditions": [ready, unavailable] } })).unwrap();
    let store = bench.of("cloud");
    store.set_network_available().await.unwrap();
    let node = bench.server.node("cloud").unwrap();
    let conditions = &node["status"]["conditions"];
    assert_eq!((&conditions[0], conditions.as_array().unwrap().len()), (&ready, 2));
    let condition = &conditions[1];
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("FlannelIsUp")));
    assert_eq!(condition["message"], "Flannel is running on this node");
    bench.server.take_requests();
    store.set_network_available().await.unwrap();
    assert_eq!(bench.server.take_requests(), ["GET /api/v1/nodes/cloud"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_put_on_our_node_once_in_a_while() {
    let bench = bench();
    let store = bench.of("own");
    let event = |message: &str| NodeEvent { kind: EventKind::Warning, reason: "Trouble", message: message.to_owned() };
    for message in ["a", "a", "b"] {
        store.note(event(message)).await.unwrap();
    }
    let events = bench.server.events();
    assert_eq!(events.iter().map(|event| event["message"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((&events[0]["involvedObject"]["name"], &events[0]["type"]), (&json!("own"), &json!("Warning")));
    assert_eq!(events[0]["metadata"]["namespace"], "default");
    bench.server.forbid("create", "events");
    let error = store.note(event("c")).await.unwrap_err().to_string();
    assert!(error.contains("create events"), "{error}");
    assert!(!matches!(&*store.health().borrow(), lease::store::Health::Down(_)), "the agent can do without");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_with_one_pod_cidr_are_told_on_both_and_nowhere_else() {
    let bench = bench();
    bench.of("own").create(key(KEY), &said("192.0.2.1"), TTL).await.unwrap();
    bench.server.put_node("twin", &["10.5.1.0/24"]).unwrap();
    bench.of("twin").create(key(KEY), &said("192.0.2.2"), TTL).await.unwrap();
    for (name, told) in [("onlooker", 0), ("own", 1), ("twin", 2)] {
        watched(bench.of(name), async |mut events| {
            events.snapshot().await;
            let told_by_then = || {
                let events = bench.server.events();
                anyhow::ensure!(events.len() == told, "{events:?}");
                Ok(())
            };
            // The onlooker is given a change to follow, so that whatever it had to say is said.
            bench.server.heartbeat("own").unwrap();
            testkit::wait_for("the Event", Duration::from_secs(20), told_by_then).unwrap();
        })
        .await;
    }
}
