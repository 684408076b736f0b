use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use super::*;

pub(super) fn report() -> Report {
    Report {
        version: "0.1.0".into(),
        pid: 42,
        uptime: 93_784,
        now_unix_ms: 1_000_000,
        ready: true,
        not_ready_because: None,
        lease: Lease {
            state: LeaseState::Held,
            subnet: Some("10.5.52.0/24".parse().unwrap()),
            how: Some("own lease".into()),
            expires_in: Some(82_800),
            owner: Some(lease::Owner::new([7; 16])),
            ..Lease::default()
        },
        vteps: vec![Vtep {
            name: "flannel.1".into(),
            ifindex: Some(7),
            mac: "c6:d2:32:6f:8f:44".parse().unwrap(),
            mtu: 1450,
            vni: 1,
            port: 8472,
            local: [192, 168, 77, 1].into(),
            up: true,
            state: "in step".into(),
        }],
        underlay: Some(Underlay {
            interface: "eth0".into(),
            address: [192, 168, 77, 1].into(),
            public_ip: None,
            ipv6_address: None,
            public_ipv6: None,
            mtu: 1500,
        }),
        store: Store { state: StoreState::Up, since: 10, endpoints: vec!["http://127.0.0.1:2379".into()], ..Store::default() },
        data_plane: DataPlane { state: DataPlaneState::InStep, ..DataPlane::default() },
        peers: vec![peer(33, PeerState::InStep)],
        rejected: vec![],
        stray_keys: 0,
        heals: vec![Heal { at_unix_ms: 997_000, command: "ip route replace 10.5.33.0/24".into(), why: "route deleted".into() }],
        fights: vec![],
        held_removals: None,
        stale: false,
        filter: None,
        packet_filters: vec![],
        config_changes: ConfigChanges::default(),
        warnings: vec![],
    }
}

fn peer(number: u8, state: PeerState) -> Peer {
    Peer {
        subnet: format!("10.5.{number}.0/24").parse().unwrap(),
        public_ip: [192, 168, 77, number].into(),
        mac: Some("02:00:00:00:00:01".parse().unwrap()),
        state,
        neighbour: Some(EntryState::Ok),
        fdb: Some(EntryState::Missing),
        route: Some(EntryState::Retrying("no such device".into())),
    }
}

/// A server with an agent behind it that hands out [`report`], for as long as the tasks are kept.
fn serve(subnet_file: &Path) -> JoinSet<()> {
    let server = Server::bind(subnet_file).unwrap();
    let (asks, mut asked) = mpsc::channel::<Asked>(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(server.serve(asks));
    tasks.spawn(async move {
        while let Some(reply) = asked.recv().await {
            let _ = reply.send(Box::new(report()));
        }
    });
    tasks
}

async fn ask_at(path: &Path) -> Result<String, AskError> {
    let path = path.to_owned();
    spawn_blocking(move || ask(&path)).await.unwrap()
}

async fn say(subnet_file: &Path, words: &'static [u8]) -> String {
    let path = socket_path(subnet_file);
    let talk = spawn_blocking(move || {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(words).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    });
    timeout(Duration::from_secs(10), talk).await.unwrap().unwrap()
}

#[tokio::test]
async fn the_report_arrives_as_it_was_made() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("flannel/subnet.env");
    let mut server = serve(&file);
    let text = ask_at(&file).await.unwrap();
    assert!(is_ready(&text));
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report());
    let mode = fs::metadata(socket_path(&file)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.shutdown().await;
    assert!(!socket_path(&file).exists(), "the socket was left behind");
}

#[tokio::test]
async fn bad_slow_and_oversized_requests_get_an_error_and_the_next_one_its_report() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("subnet.env");
    let _server = serve(&file);
    assert!(say(&file, b"reboot\n").await.contains("is no request"));
    assert!(say(&file, b"\xff\xfe\n").await.contains("is no request"));
    assert!(say(&file, &[b'x'; 4096]).await.contains("longer than"));
    assert!(say(&file, b"stat").await.contains("no request within"));
    // More askers than are served at once, none of whom says a word.
    let idle: Vec<UnixStream> = (0..20).map(|_| UnixStream::connect(socket_path(&file)).unwrap()).collect();
    drop(idle);
    assert!(ask_at(&file).await.is_ok());
}

#[tokio::test]
async fn a_dead_agents_socket_is_replaced_and_a_live_ones_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("subnet.env");
    // What kill -9 leaves: a socket that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(socket_path(&file)).unwrap());
    let _server = serve(&file);
    match Server::bind(&file) {
        Err(BindError::Running { pid, .. }) => assert_eq!(u32::try_from(pid).unwrap(), std::process::id()),
        other => panic!("{other:?}"),
    }
    assert!(ask_at(&file).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_was_removed_is_opened_again() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("subnet.env");
    let _server = serve(&file);
    fs::remove_file(socket_path(&file)).unwrap();
    timeout(Duration::from_secs(60), async {
        while !socket_path(&file).exists() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn without_an_agent_the_error_says_what_was_tried_and_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("subnet.env");
    let error = ask(&file).unwrap_err().to_string();
    assert!(error.contains("subnet.sock") && error.contains("--subnet-file"), "{error}");
}

#[tokio::test]
async fn an_agent_that_is_stopping_says_so() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("subnet.env");
    let (asks, asked) = mpsc::channel(1);
    drop(asked);
    let mut tasks = JoinSet::new();
    tasks.spawn(Server::bind(&file).unwrap().serve(asks));
    let error = ask_at(&file).await.unwrap_err().to_string();
    assert!(error.contains("the agent is stopping"), "{error}");
}

#[test]
fn a_healthy_report_is_short_and_aligned() {
    let text = render(&report());
    let wanted = "\
loden 0.1.0, process 42, up 1 d 2 h: ready

  lease     10.5.52.0/24, held (own lease), 23 h 0 min left unless it is renewed
  device    flannel.1 (#7), up, in step: c6:d2:32:6f:8f:44, MTU 1450, VNI 1, port 8472, from 192.168.77.1
  underlay  eth0: 192.168.77.1, MTU 1500
  store     up for 10 s: http://127.0.0.1:2379
  kernel    in step: 0 neighbours, 0 FDB entries, 0 routes

Peers (1)
  10.5.33.0/24  192.168.77.33  02:00:00:00:00:01  in step

Repaired lately (1)
  3 s ago  route deleted  ip route replace 10.5.33.0/24
";
    assert_eq!(text, wanted);
}

#[test]
fn problems_come_first_with_what_to_do() {
    let mut sick = report();
    sick.ready = false;
    sick.not_ready_because = Some("the lease is lost".into());
    sick.store = Store {
        state: StoreState::Down,
        since: 61,
        error: Some("connection refused".into()),
        endpoints: vec!["http://a:1".into()],
        ..Store::default()
    };
    sick.rejected = vec![Rejected { key: "10.5.9.0-24".into(), reason: "MAC is\u{1b}[31m\nmulticast".into(), duplicate: false }];
    sick.fights = vec![Fight { what: "ip route replace x".into(), times: 9, who: None, next_in: 30 }];
    sick.held_removals = Some(Held { peers: 100, passes_in: 60, reason: "the store says that all are gone".into() });
    sick.peers = (1..=30).map(|number| peer(number, if number == 30 { PeerState::Converging } else { PeerState::InStep })).collect();
    let text = render(&sick);
    let before = |a: &str, b: &str| {
        let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what:?} is not in:\n{text}"));
        assert!(place(a) < place(b), "{a:?} is not before {b:?} in:\n{text}");
    };
    before("NOT READY", "! the lease is lost");
    before("connection refused", "→ see that etcd runs at http://a:1");
    before("! record 10.5.9.0-24", "lease  ");
    before("10.5.30.0/24", "10.5.1.0/24");
    before("FDB entry missing, route fails: no such device", "… and 10 more");
    assert!(!text.contains('\u{1b}'), "a terminal escape got through");
}
