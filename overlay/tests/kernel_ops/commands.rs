//! An operation prints as the command that it equals: run by a shell, the command leaves the same state behind.

use std::net::IpAddr;

use lease::Mtu;
use overlay::{ELSEWHERE, ELSEWHERE_INDEX, Kernel, Op, RouteKey, RouteTo, RuleKey, TABLE_MAIN};
use serde_json::Value;

use crate::common::{in_namespace, json, open, sh};
use overlay::contract::{Family, apply};

fn script(family: Family) -> Vec<Op> {
    let len = if family == Family::V4 { 32 } else { 128 };
    let (key, to) = family.route(2);
    let (other_key, other_to) = family.route(3);
    let direct = RouteKey { metric: 5, ..family.route(4).0 };
    let to_near = family.direct(9);
    let (blackhole, to_nowhere) = family.blackhole();
    let all = RuleKey { priority: 5_001, to: family.network(), table: 300, at_least: None };
    let containers = RuleKey { priority: 5_000, to: family.subnet(1), table: TABLE_MAIN, at_least: Some(family.subnet(1).len()) };
    let subnet = |n: u32| -> IpAddr { family.subnet(n).address() };
    let spec = family.spec();
    vec![
        Op::EnableForwarding { ipv6: family == Family::V6 },
        Op::CreateDevice(Box::new(spec.clone())),
        Op::DelDevice,
        Op::CreateDevice(Box::new(spec)),
        Op::SetLocal(family.underlay(5)),
        Op::SetLearning(true),
        Op::SetLearning(false),
        Op::SetMac(family.mac(5)),
        Op::SetMtu(Mtu(1400)),
        Op::DisableLinkLocal,
        Op::DisableAcceptRa,
        Op::PutAddress(subnet(1)),
        Op::PutAddress(subnet(9)),
        Op::DelAddress { address: subnet(9), len },
        Op::SetUp,
        Op::PutFdb { mac: family.mac(2), dst: family.underlay(9) },
        Op::PutFdb { mac: family.mac(2), dst: family.underlay(2) },
        Op::PutFdb { mac: family.mac(3), dst: family.underlay(3) },
        Op::PutNeighbour { address: subnet(2), mac: family.mac(9) },
        Op::PutNeighbour { address: subnet(2), mac: family.mac(2) },
        Op::PutNeighbour { address: subnet(3), mac: family.mac(3) },
        Op::PutRoute { key, to, replace: false },
        Op::PutRoute { key, to: RouteTo { protocol: 77, ..to }, replace: true },
        Op::PutRoute { key: other_key, to: other_to, replace: false },
        Op::PutRoute { key: direct, to: RouteTo { gateway: None, onlink: false, ..to }, replace: false },
        Op::DelRoute { key: other_key, to: other_to },
        Op::PutRoute { key: RouteKey { table: 300, ..key }, to, replace: false },
        Op::PutRoute { key, to: to_near, replace: true },
        Op::PutRoute { key: blackhole, to: to_nowhere, replace: false },
        Op::PutRule(containers),
        Op::PutRule(all),
        Op::DelRoute { key, to: to_near },
        Op::DelRoute { key: RouteKey { table: 300, ..key }, to },
        Op::DelRoute { key: blackhole, to: to_nowhere },
        Op::DelRule(containers),
        Op::DelNeighbour { address: subnet(3) },
        Op::DelFdb { mac: family.mac(3) },
    ]
}

/// All that `ip` and `bridge` say of the device and its entries, but for the routes that the kernel makes by itself, which
/// come when its work queue gets to them.
fn state(family: Family) -> Vec<Vec<Value>> {
    let (name, ip) = (family.name(), family.ip());
    let mut state = vec![
        json(&format!("ip -j -d address show dev {name}")),
        json(&format!("bridge -j -d fdb show dev {name}")),
        json(&format!("ip {ip} -j -d neighbour show dev {name}")),
        json(&format!("ip {ip} -j -d route show table all proto 76")),
        json(&format!("ip {ip} -j -d route show table main")),
        json(&format!("ip {ip} -j -d rule show")),
        vec![sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding").into()],
        vec![sh(&format!("cat /proc/sys/net/ipv6/conf/{name}/accept_ra")).into()],
    ];
    // The index counts the devices made before; lists come in no order.
    for list in &mut state {
        list.retain(|entry| entry["protocol"] != "kernel");
        list.iter_mut().filter_map(Value::as_object_mut).for_each(|entry| drop(entry.remove("ifindex")));
        list.sort_by_key(ToString::to_string);
    }
    state
}

/// A host that is reached with no gateway between.
fn near(family: Family) {
    sh(&format!("ip link add {ELSEWHERE} index {ELSEWHERE_INDEX} type bridge && ip link set {ELSEWHERE} addrgenmode none up"));
    sh(&overlay::Deed::Near(family.underlay(9)).on(family.name()).to_string());
}

#[test]
fn each_operation_leaves_what_its_command_leaves() {
    for family in Family::BOTH {
        let script = script(family);
        for steps in 4..=script.len() {
            let ops = script.get(..steps).unwrap_or_default();
            let (mut by_netlink, mut by_shell) = (Vec::new(), Vec::new());
            in_namespace(|| async {
                near(family);
                apply(&mut open(family), ops).await;
                by_netlink = state(family);
            });
            in_namespace(|| async {
                near(family);
                for op in ops {
                    sh(&op.on(family.name()).to_string());
                }
                by_shell = state(family);
                let observed = open(family).dump().await.unwrap();
                assert!(observed.fdb.values().all(|to| to.plain) && observed.routes.values().all(|to| to.plain));
            });
            assert_eq!(by_netlink, by_shell, "after `{}`", ops.last().unwrap().on(family.name()));
        }
    }
}
