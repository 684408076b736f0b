//! The reconciler on grounds of each kind, with the real kernel: host-gw, direct routes, a blackhole, a table of its own.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lease::{Event, Revision};
use overlay::contract::Family;
use overlay::{Deed, Direct, ELSEWHERE, ELSEWHERE_INDEX, Ground, Guard, Netlink, Reconciler, RouteTable, Scope, State};

use crate::common::{DEADLINE, in_namespace, json, sh};

const TABLE: u32 = 7_654_321;
const PRIORITY: u32 = 5_000;

/// A host with a link on which others can be near.
fn link(family: Family) {
    sh(&format!("ip link add {ELSEWHERE} index {ELSEWHERE_INDEX} type bridge && ip link set {ELSEWHERE} up"));
    sh(&format!("ip {} address add {}/{} dev {ELSEWHERE}", family.ip(), family.underlay(1), family.full_mask()));
}

fn somebody(family: Family, deed: &Deed) {
    sh(&deed.on(family.name()).to_string());
}

fn ground(family: Family, direct: Direct) -> Ground {
    let vtep = (direct != Direct::Always).then(|| family.spec());
    Ground { network: family.network(), subnet: family.subnet(1), vtep, direct, blackhole: false, table: None }
}

async fn reconciler(family: Family, ground: Ground) -> Reconciler<Netlink> {
    let host_gw = ground.direct == Direct::Always;
    let kernel = Netlink::open(Scope::of(&ground, None)).unwrap();
    Reconciler::new(kernel, ground, family.local(host_gw), Guard::DEFAULT, Instant::now()).await.unwrap()
}

/// Names these peers, and no others.
fn snapshot(reconciler: &mut Reconciler<Netlink>, family: Family, peers: impl IntoIterator<Item = u32>) {
    let host_gw = reconciler.desired().ground().direct == Direct::Always;
    let named = peers.into_iter().map(|n| Event::InitApply(family.lease(n, n, host_gw)));
    let events: Vec<Event> = [Event::Init].into_iter().chain(named).chain([Event::InitDone(Revision(1))]).collect();
    reconciler.leases(&events, Instant::now());
}

/// Lets it work until things are as they should be.
async fn until(reconciler: &mut Reconciler<Netlink>, what: &str, mut right: impl FnMut(&Reconciler<Netlink>) -> bool) {
    let deadline = Instant::now() + DEADLINE / 2;
    loop {
        while reconciler.step(Instant::now()).await.unwrap().more {}
        if right(reconciler) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not {what}: {}\n{}",
            reconciler.state(),
            sh("ip route show table all; ip -6 route show table all")
        );
        let due = reconciler.next_due().unwrap_or(deadline).min(deadline);
        tokio::select! {
            heard = reconciler.listen() => heard.unwrap(),
            () = tokio::time::sleep_until(due.into()) => {}
        }
    }
}

async fn in_step(reconciler: &mut Reconciler<Netlink>) {
    until(reconciler, "in step", |reconciler| reconciler.state() == State::InStep).await;
}

/// By which device `ip` says that the kernel would route to a container of the nth host; none where it would not.
fn leaves_by(family: Family, n: u32) -> Option<String> {
    let told = sh(&format!("ip -j {} route get {} 2>/dev/null || true", family.ip(), family.subnet(n).nth(7).unwrap()));
    let told: serde_json::Value = serde_json::from_str(told.trim()).ok()?;
    told[0]["dev"].as_str().filter(|_| told[0]["type"].as_str().is_none_or(|kind| kind == "unicast")).map(str::to_owned)
}

/// The prefixes of the routes with our protocol number in a table.
fn ours(family: Family, table: u32) -> Vec<String> {
    let list = json(&format!("ip {} -j route show table {table} proto 76 2>/dev/null || true", family.ip()));
    let mut prefixes: Vec<String> = list.iter().map(|route| route["dst"].as_str().unwrap().to_owned()).collect();
    prefixes.sort();
    prefixes
}

fn prefixes(family: Family, peers: impl IntoIterator<Item = u32>) -> Vec<String> {
    let mut prefixes: Vec<String> = peers.into_iter().map(|n| family.subnet(n).to_string()).collect();
    prefixes.sort();
    prefixes
}

/// The rules with our protocol number.
fn rules(family: Family) -> Vec<String> {
    sh(&format!("ip {} rule show", family.ip())).lines().filter(|rule| rule.contains("proto 76")).map(str::to_owned).collect()
}

/// Sends packets to a container of the nth host as fast as it can, and counts those for which there was no route.
struct Sender {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(u64, u64)>,
}

impl Sender {
    fn start(family: Family, n: u32) -> Self {
        // Opened here, in the namespace of this thread, which it stays in.
        let socket = UdpSocket::bind(SocketAddr::new(family.pick("0.0.0.0", "::").parse().unwrap(), 0)).unwrap();
        let to = SocketAddr::new(family.subnet(n).nth(7).unwrap(), 9);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut sent, mut unrouted) = (0, 0);
            while !stopped.load(Ordering::Relaxed) {
                match socket.send_to(b"x", to) {
                    Ok(_) => sent += 1,
                    // A neighbour that does not answer is no missing route.
                    Err(error) if error.raw_os_error() == Some(nix::libc::EHOSTUNREACH) && family == Family::V4 => sent += 1,
                    Err(_) => unrouted += 1,
                }
                std::thread::sleep(Duration::from_micros(20));
            }
            (sent, unrouted)
        });
        Self { stop, thread }
    }

    /// Packets that were sent, and those for which there was no route.
    fn finish(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn host_gw_makes_routes_alone_and_names_who_is_not_on_a_link() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            link(family);
            somebody(family, &Deed::Near(family.underlay(2)));
            let mut reconciler = reconciler(family, ground(family, Direct::Always)).await;
            snapshot(&mut reconciler, family, [2, 3]);
            let trouble = format!("{}: {} is not on a link of this host: host-gw needs that", family.subnet(3), family.underlay(3));
            until(&mut reconciler, "in trouble with one", |reconciler| reconciler.state() == State::Troubled(1, trouble.clone())).await;
            assert_eq!(ours(family, 254), prefixes(family, [2]));
            assert!(json("ip -j -d link show type vxlan").is_empty());
            assert_eq!(leaves_by(family, 2).as_deref(), Some(ELSEWHERE));
            somebody(family, &Deed::Near(family.underlay(3)));
            in_step(&mut reconciler).await;
            assert_eq!(ours(family, 254), prefixes(family, [2, 3]));

            // Kept, and swept when the lease is gone.
            sh(&format!("ip {} route flush proto 76", family.ip()));
            until(&mut reconciler, "healed", |_| ours(family, 254) == prefixes(family, [2, 3])).await;
            reconciler.leases(&[Event::Delete(family.lease_key(2))], Instant::now());
            in_step(&mut reconciler).await;
            assert_eq!(ours(family, 254), prefixes(family, [3]));
        });
    }
}

#[test]
fn a_peer_that_goes_out_of_reach_and_comes_back_is_never_without_a_route() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            link(family);
            somebody(family, &Deed::Near(family.underlay(2)));
            let mut reconciler = reconciler(family, ground(family, Direct::WhereReachable)).await;
            snapshot(&mut reconciler, family, [2, 3]);
            in_step(&mut reconciler).await;
            let sender = Sender::start(family, 2);
            for _ in 0..20 {
                for (deed, device) in [(Deed::Far(family.underlay(2)), family.name()), (Deed::Near(family.underlay(2)), ELSEWHERE)] {
                    somebody(family, &deed);
                    until(&mut reconciler, device, |_| leaves_by(family, 2).as_deref() == Some(device)).await;
                    assert_eq!(leaves_by(family, 3).as_deref(), Some(family.name()));
                }
            }
            let (sent, unrouted) = sender.finish();
            assert!(sent > 0 && unrouted == 0, "{unrouted} of {sent} had no route");
            in_step(&mut reconciler).await;
            assert_eq!(reconciler.observed().neighbours.len(), 1, "of a direct peer there is only a route");
            assert_eq!(ours(family, 254), prefixes(family, [2, 3]));
        });
    }
}

#[test]
fn what_flanneld_left_goes_once_the_peer_is_known_and_ours_is_there() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            link(family);
            for n in [2, 3, 4] {
                somebody(family, &Deed::Near(family.underlay(n)));
                somebody(family, &Deed::PutFlannelds { prefix: family.subnet(n), via: family.underlay(n) });
            }
            somebody(family, &Deed::Far(family.underlay(4)));
            let flannelds = || {
                json(&format!("ip {} -j route show proto boot", family.ip())).iter().filter(|route| route["gateway"].is_string()).count()
            };
            let senders = [2, 4].map(|n| Sender::start(family, n));
            let mut reconciler = reconciler(family, ground(family, Direct::WhereReachable)).await;
            reconciler.leases(&[Event::Init, Event::InitDone(Revision(1))], Instant::now());
            in_step(&mut reconciler).await;
            assert_eq!(flannelds(), 3, "whose they are is not known");
            for n in [2, 4] {
                reconciler.leases(&[Event::Apply(family.lease(n, n, false))], Instant::now());
            }
            until(&mut reconciler, "taken over", |_| flannelds() == 1).await;
            in_step(&mut reconciler).await;
            assert_eq!((leaves_by(family, 2).as_deref(), leaves_by(family, 4).as_deref()), (Some(ELSEWHERE), Some(family.name())));
            for (sent, unrouted) in senders.map(Sender::finish) {
                assert!(sent > 0 && unrouted == 0, "{unrouted} of {sent} had no route");
            }
            // One that is put while we run goes the same way.
            somebody(family, &Deed::PutFlannelds { prefix: family.subnet(2), via: family.underlay(2) });
            until(&mut reconciler, "taken over", |_| flannelds() == 1).await;
        });
    }
}

#[test]
fn what_no_container_has_is_dropped_and_containers_are_reached() {
    for family in Family::BOTH {
        for table in [None, Some(RouteTable { id: TABLE, priority: PRIORITY })] {
            in_namespace(|| async move {
                link(family);
                sh(&format!("ip {} route add default dev {ELSEWHERE}", family.ip()));
                let ground = Ground { blackhole: true, table, ..ground(family, Direct::Never) };
                let mut reconciler = reconciler(family, ground).await;
                // From the start, before anybody is known.
                until(&mut reconciler, "black", |_| leaves_by(family, 1).is_none()).await;
                let gateway = family.subnet(1).nth(1).unwrap();
                sh("ip link add cni0 type bridge && ip link set cni0 up");
                sh(&format!("ip {} address add {gateway}/{} dev cni0", family.ip(), family.subnet(1).len()));
                until(&mut reconciler, "reached", |_| leaves_by(family, 1).as_deref() == Some("cni0")).await;
                sh(&format!("ip {} route del blackhole {} table {}", family.ip(), family.subnet(1), table.map_or(254, |table| table.id)));
                sh("ip link del cni0");
                until(&mut reconciler, "black again", |_| leaves_by(family, 1).is_none()).await;
                snapshot(&mut reconciler, family, [2]);
                in_step(&mut reconciler).await;
                assert_eq!(leaves_by(family, 2).as_deref(), Some(family.name()));
            });
        }
    }
}

#[test]
fn routes_move_to_a_table_and_back_without_a_moment_between() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            link(family);
            somebody(family, &Deed::Near(family.underlay(3)));
            // Another agent's, on this host, too.
            let other = family.pick("192.168.0.0/16", "fdff::/32");
            let ip = family.ip();
            sh(&format!("ip {ip} route add {other} dev {ELSEWHERE} proto 76 metric 5 table 88"));
            sh(&format!("ip {ip} rule add to {other} lookup 88 priority 5000 protocol 76"));
            let main = ground(family, Direct::WhereReachable);
            let table = Ground { table: Some(RouteTable { id: TABLE, priority: PRIORITY }), ..main.clone() };
            let all = prefixes(family, [2, 3, 4]);
            let others_rule = rules(family);
            let mut before = reconciler(family, main.clone()).await;
            snapshot(&mut before, family, [2, 3, 4]);
            in_step(&mut before).await;
            drop(before);
            for (ground, here, there) in [(table.clone(), TABLE, 254), (main, 254, TABLE), (table, TABLE, 254)] {
                let senders = [2, 3].map(|n| Sender::start(family, n));
                let mut reconciler = reconciler(family, ground).await;
                until(&mut reconciler, "beside", |_| ours(family, here) == all).await;
                assert_eq!(ours(family, there), all, "nothing goes before the leases are known");
                snapshot(&mut reconciler, family, [2, 3, 4]);
                in_step(&mut reconciler).await;
                assert_eq!((ours(family, here), ours(family, there)), (all.clone(), vec![]));
                for (sent, unrouted) in senders.map(Sender::finish) {
                    assert!(sent > 0 && unrouted == 0, "{unrouted} of {sent} had no route");
                }
                let mut own = rules(family);
                own.retain(|rule| !others_rule.contains(rule));
                assert_eq!(own.len(), usize::from(here == TABLE), "{own:?}");
                assert_eq!(ours(family, 88), [other]);
                if here == TABLE {
                    sh(&format!("ip {ip} rule del priority {PRIORITY} to {}", family.network()));
                    until(&mut reconciler, "healed", |_| rules(family).len() == 2).await;
                    sh(&format!("ip {ip} route flush table {TABLE}"));
                    until(&mut reconciler, "healed", |_| ours(family, TABLE) == all).await;
                }
                assert_eq!(leaves_by(family, 2).as_deref(), Some(family.name()));
                assert_eq!(leaves_by(family, 3).as_deref(), Some(ELSEWHERE));
            }
        });
    }
}

#[test]
fn all_that_is_ours_can_be_swept_away_and_nothing_else() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            link(family);
            somebody(family, &Deed::Near(family.underlay(3)));
            let (ip, other) = (family.ip(), family.pick("192.168.0.0/16", "fdff::/32"));
            sh(&format!("ip {ip} route add {other} dev {ELSEWHERE} proto 76 metric 5"));
            sh(&format!("ip {ip} route add {} dev {ELSEWHERE} metric 7", family.subnet(8)));
            let table = Some(RouteTable { id: TABLE, priority: PRIORITY });
            let ground = Ground { blackhole: true, table, ..ground(family, Direct::WhereReachable) };
            let mut reconciler = reconciler(family, ground).await;
            snapshot(&mut reconciler, family, [2, 3]);
            in_step(&mut reconciler).await;
            drop(reconciler);
            let leftovers = overlay::leftovers(family.network()).await.unwrap();
            assert_eq!(leftovers.len(), 5, "three routes, two rules: {leftovers:#?}");
            for leftover in leftovers {
                leftover.remove().await.unwrap();
            }
            assert_eq!((ours(family, TABLE), ours(family, 254), rules(family)), (vec![], vec![other.to_owned()], vec![]));
            assert_eq!(json(&format!("ip {ip} -j route show {}", family.subnet(8))).len(), 1);
            assert!(overlay::leftovers(family.network()).await.unwrap().is_empty());
        });
    }
}

#[test]
fn another_address_of_the_host_is_enough_to_be_reached_directly() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            link(family);
            let mut reconciler = reconciler(family, ground(family, Direct::WhereReachable)).await;
            snapshot(&mut reconciler, family, [2]);
            in_step(&mut reconciler).await;
            assert_eq!(leaves_by(family, 2).as_deref(), Some(family.name()));
            let address = format!("{}/{} dev {ELSEWHERE}", family.underlay(9), family.full_mask() - 8);
            sh(&format!("ip {} address add {address}", family.ip()));
            until(&mut reconciler, "direct", |_| leaves_by(family, 2).as_deref() == Some(ELSEWHERE)).await;
            sh(&format!("ip {} address del {address}", family.ip()));
            until(&mut reconciler, "through the tunnel", |_| leaves_by(family, 2).as_deref() == Some(family.name())).await;
            // Policy routing counts: who is sent elsewhere by a rule is not near.
            sh(&format!("ip {} address add {address}", family.ip()));
            until(&mut reconciler, "direct", |_| leaves_by(family, 2).as_deref() == Some(ELSEWHERE)).await;
            sh(&format!("ip {} rule add to {} prohibit priority 77", family.ip(), family.underlay(2)));
            until(&mut reconciler, "through the tunnel", |_| leaves_by(family, 2).as_deref() == Some(family.name())).await;
            in_step(&mut reconciler).await;
        });
    }
}
