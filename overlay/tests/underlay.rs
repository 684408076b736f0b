//! The machine's interfaces as the kernel has them, and the choice among them, in a namespace with several.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::net::IpAddr;

use overlay::contract::Family;
use overlay::underlay::{Choice, Interfaces, choose, find};

use crate::common::{in_namespace, json, sh};

fn of(family: Family) -> lease::Family {
    family.pick(lease::Family::V4, lease::Family::V6)
}

/// Two uplinks, both with a default route, and a tunnel of our own.
fn machine(family: Family) {
    let (a, b) = (family.pick("192.0.2", "2001:db8:a:"), family.pick("198.51.100", "2001:db8:b:"));
    let (dot, len) = family.pick((".", 24), (":", 64));
    for (name, net) in [("up0", a), ("up1", b)] {
        sh(&format!("ip link add {name} type bridge && ip link set {name} mtu 1400 up"));
        sh(&format!("ip address add {net}{dot}7/{len} dev {name} {}", family.pick("", "nodad")));
    }
    sh(&format!("ip route add default via {a}{dot}1 dev up0 metric 200 && ip route add default via {b}{dot}1 dev up1 metric 100"));
    sh(&format!("ip link add flannel.1 type vxlan id 1 dstport 8472 local {a}{dot}7"));
}

#[test]
fn interfaces_are_read_as_ip_lists_them() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            machine(family);
            let read = Interfaces::read(&[of(family)], None).await.unwrap();
            let listed = json(&format!("ip {} -j address show", family.ip()));
            for link in json("ip -j link show") {
                let interface = read.list.iter().find(|interface| link["ifname"] == interface.name).unwrap();
                assert_eq!((&link["ifindex"], &link["mtu"]), (&interface.index.0.into(), &interface.mtu.0.into()));
                assert_eq!(link["address"], interface.mac.to_string());
                let listed = listed.iter().find(|listed| listed["ifname"] == interface.name);
                let listed = listed.and_then(|listed| listed["addr_info"].as_array()).cloned().unwrap_or_default();
                let listed: Vec<_> = listed.iter().map(|address| address["local"].as_str().unwrap().to_owned()).collect();
                let read = interface.addresses.iter().filter(|address| lease::Family::of(address.address) == of(family));
                assert_eq!(read.map(|address| address.address.to_string()).collect::<Vec<_>>(), listed);
            }
        });
    }
}

#[test]
fn the_default_route_of_the_lowest_metric_decides() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            machine(family);
            let read = Interfaces::read(&[of(family)], None).await.unwrap();
            let underlay = choose(&Choice::default(), &[of(family)], &read).unwrap();
            assert_eq!((underlay.name.as_str(), underlay.mtu.0), ("up1", 1400));
            assert_eq!(underlay.end(of(family)).unwrap().address, family.pick("198.51.100.7", "2001:db8:b::7").parse::<IpAddr>().unwrap());
        });
    }
}

#[test]
fn can_reach_asks_the_kernel() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            machine(family);
            let target = Some(family.pick("192.0.2.99", "2001:db8:a::99").parse().unwrap());
            let underlay = find(&Choice { can_reach: target, ..Choice::default() }, &[of(family)]).await.unwrap();
            assert_eq!(underlay.name, "up0");
            assert_eq!(underlay.end(of(family)).unwrap().address, family.pick("192.0.2.7", "2001:db8:a::7").parse::<IpAddr>().unwrap());

            sh(&format!("ip {} route del default && ip {} route del default", family.ip(), family.ip()));
            let target = Some(family.pick("203.0.113.1", "2001:db8:c::1").parse().unwrap());
            let read = Interfaces::read(&[of(family)], target).await.unwrap();
            assert_eq!((read.reach, read.default_route(of(family))), (None, None));
        });
    }
}
