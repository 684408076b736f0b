//! Many operations at once: each failure is attributed, nothing of the rest is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nix::errno::Errno;
use overlay::{Event, Kernel, Op, RouteTo};

use crate::common::{in_namespace, json, open, with_vtep};
use overlay::contract::{Family, apply, events};

#[test]
fn of_a_thousand_operations_exactly_the_bad_ones_are_reported() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let mut kernel = with_vtep(family).await;
            // A gateway that is our own address is refused by either family.
            let own: IpAddr = family.subnet(1).address();
            let refusal = if family == Family::V4 { "Nexthop has invalid gateway" } else { "Gateway can not be a local address" };
            let bad: BTreeSet<usize> = (0..10).map(|n| n * 111).collect();
            let ops: Vec<_> = (0..1000_u32)
                .map(|n| {
                    let (key, to) = family.route(n + 2);
                    let gateway = if bad.contains(&usize::try_from(n).unwrap()) { Some(own) } else { to.gateway };
                    Op::PutRoute { key, to: RouteTo { gateway, ..to }, replace: false }
                })
                .collect();
            let failures = kernel.apply(&ops).await.unwrap();
            assert_eq!(failures.iter().map(|failure| failure.index).collect::<BTreeSet<_>>(), bad);
            assert_eq!(failures.len(), 10);
            assert!(failures.iter().all(|f| f.errno == Errno::EINVAL as i32 && f.reason.contains(refusal)), "{failures:?}");
            let routes = json(&format!("ip {} -j route show dev {} proto 76", family.ip(), family.name()));
            assert_eq!(routes.len(), 990);
            assert_eq!(kernel.dump().await.unwrap().routes.len(), 990);
        });
    }
}

#[test]
fn a_batch_of_nothing_but_failures_is_reported_in_full() {
    in_namespace(|| async {
        let mut kernel = with_vtep(Family::V4).await;
        let ops: Vec<_> = (2..1002).map(|n| Op::PutRoute { key: Family::V4.route(n).0, to: bad_route(), replace: false }).collect();
        let failures = kernel.apply(&ops).await.unwrap();
        assert_eq!(failures.iter().map(|failure| failure.index).collect::<Vec<_>>(), (0..1000).collect::<Vec<_>>());
    });
}

fn bad_route() -> RouteTo {
    RouteTo { gateway: Some(Family::V4.subnet(1).address()), ..Family::V4.route(1).1 }
}

#[test]
fn five_thousand_peers_are_dumped_as_ip_and_bridge_list_them() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let mut kernel = with_vtep(family).await;
            let mut folded = kernel.dump().await.unwrap();
            apply(&mut kernel, &(2..5002).flat_map(|n| family.puts(n)).collect::<Vec<_>>()).await;
            for event in events(&mut kernel) {
                assert_ne!(event, Event::Lost);
                folded.fold(&event);
            }
            let observed = kernel.dump().await.unwrap();
            assert_eq!(folded, observed);
            assert_eq!((observed.fdb.len(), observed.neighbours.len(), observed.routes.len()), (5000, 5000, 5000));

            let (name, ip) = (family.name(), family.ip());
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let fdb: BTreeMap<_, _> =
                json(&format!("bridge -j fdb show dev {name}")).iter().map(|e| (text(&e["mac"]), text(&e["dst"]))).collect();
            assert_eq!(fdb, observed.fdb.iter().map(|(mac, to)| (mac.to_string(), to.dst.to_string())).collect());
            let neighbours: BTreeMap<_, _> = json(&format!("ip {ip} -j neighbour show dev {name} nud permanent"))
                .iter()
                .map(|e| (text(&e["dst"]), text(&e["lladdr"])))
                .collect();
            assert_eq!(neighbours, observed.neighbours.iter().map(|(address, mac)| (address.to_string(), mac.to_string())).collect());
            let routes: BTreeMap<_, _> = json(&format!("ip {ip} -j route show dev {name} proto 76"))
                .iter()
                .map(|e| (text(&e["dst"]), (e["metric"].as_u64().unwrap_or_default(), text(&e["gateway"]))))
                .collect();
            let dumped = observed.routes.iter().map(|(key, to)| {
                (key.prefix.to_string(), (u64::from(key.metric), to.gateway.map(|gateway| gateway.to_string()).unwrap_or_default()))
            });
            assert_eq!(routes, dumped.collect());
        });
    }
}

#[test]
fn an_overrun_is_told_as_lost_and_the_next_dump_is_right() {
    in_namespace(|| async {
        let mut kernel = with_vtep(Family::V4).await;
        let mut other = open(Family::V4);
        // More than 16 MiB of notifications, and than any smaller buffer that this test may have been given.
        let peers = 2..5002;
        for _ in 0..5 {
            apply(
                &mut other,
                &peers.clone().map(|n| Op::PutFdb { mac: Family::V4.mac(n), dst: Family::V4.underlay(n) }).collect::<Vec<_>>(),
            )
            .await;
            apply(&mut other, &peers.clone().map(|n| Op::DelFdb { mac: Family::V4.mac(n) }).collect::<Vec<_>>()).await;
        }
        let mut told = Vec::new();
        kernel.take_events(&mut told).unwrap();
        assert!(told.contains(&Event::Lost), "{} events and none lost", told.len());
        assert_eq!(kernel.dump().await.unwrap().fdb, [].into());
    });
}
