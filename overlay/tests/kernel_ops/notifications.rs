//! What others do is told, and what the kernel does not tell is known to be lost.

use overlay::{Event, FdbTo, Kernel, Observed, Op, RuleKey, Scope};

use crate::common::{in_namespace, json, sh, with_vtep};
use overlay::contract::{Family, apply, events};

async fn with_peers(family: Family, peers: std::ops::Range<u32>) -> (overlay::Netlink, Observed) {
    let mut kernel = with_vtep(family).await;
    let ops: Vec<_> = peers.flat_map(|n| family.puts(n)).collect();
    apply(&mut kernel, &ops).await;
    let observed = kernel.dump().await.unwrap();
    (kernel, observed)
}

fn fold(observed: &mut Observed, told: &[Event]) {
    for event in told {
        observed.fold(event);
    }
}

/// What was told, less who did it.
fn what(kernel: &mut overlay::Netlink) -> Vec<Event> {
    let mut told = events(kernel);
    told.retain(|event| !matches!(event, Event::By(_)));
    told
}

#[test]
fn who_deleted_a_route_is_told_and_what_we_do_ourselves_is_nobodys_doing() {
    in_namespace(|| async move {
        let family = Family::V4;
        let (mut kernel, _) = with_peers(family, 2..4).await;
        let (key, _) = family.route(2);
        assert!(!events(&mut kernel).iter().any(|event| matches!(event, Event::By(_))));
        // A process that is still there when it is asked who it is.
        sh(&format!("{{ (echo route del {}; sleep 20) | ip -batch - ; }} >/dev/null 2>&1 &", key.prefix));
        let mut told = Vec::new();
        while !told.iter().any(|event| matches!(event, Event::Route { .. })) {
            kernel.wait_events(&mut told).await.unwrap();
        }
        let [Event::By(who), Event::Route { .. }] = told.as_slice() else { panic!("{told:?}") };
        assert!(who.starts_with("ip (process "), "{who}");
    });
}

#[test]
fn a_default_route_that_moves_may_make_another_interface_the_underlay() {
    in_namespace(|| async move {
        sh("ip link add one type bridge && ip link add two type bridge && ip link set one up && ip link set two up");
        let one: u32 = sh("cat /sys/class/net/one/ifindex").trim().parse().unwrap();
        let scope = Scope { underlay: Some(overlay::IfIndex(one)), ..Family::V4.scope() };
        let mut kernel = overlay::Netlink::open(scope).unwrap();
        kernel.dump().await.unwrap();
        events(&mut kernel);
        sh("ip route add default dev two");
        assert_eq!(what(&mut kernel), [Event::Underlay]);
        sh("ip route add 192.0.2.0/24 dev two");
        assert_eq!(what(&mut kernel), []);
        // Once the underlay's interface is gone, whatever comes may be the one that takes its place.
        sh("ip link del one");
        assert_eq!(events(&mut kernel).first(), Some(&Event::Underlay));
        sh("ip address add 192.0.2.1/24 dev two");
        assert!(events(&mut kernel).contains(&Event::Underlay));
    });
}

#[test]
fn deleted_entries_are_told() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let (mut kernel, _) = with_peers(family, 2..4).await;
            let (name, ip) = (family.name(), family.ip());
            let (key, to) = family.route(2);
            sh(&format!("ip {ip} route del {}", key.prefix));
            assert_eq!(what(&mut kernel), [Event::Route { key, to: None }]);
            sh(&format!("ip {ip} neighbour del {} dev {name}", family.subnet(2).address()));
            let gone = Event::Neighbour { address: family.subnet(2).address(), mac: None };
            let told = what(&mut kernel);
            assert!(!told.is_empty() && told.iter().all(|event| *event == gone), "{told:?}");
            sh(&format!("bridge fdb del {} dev {name}", family.mac(2)));
            assert_eq!(what(&mut kernel), [Event::Fdb { mac: family.mac(2), to: None }]);
            sh(&format!("ip {ip} route flush proto {}", to.protocol));
            assert_eq!(what(&mut kernel), [Event::Route { key: family.route(3).0, to: None }]);
        });
    }
}

#[test]
fn changed_entries_are_told() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let (mut kernel, mut observed) = with_peers(family, 2..4).await;
            let (name, ip) = (family.name(), family.ip());
            let address = family.subnet(2).address();
            sh(&format!("ip {ip} neighbour change {address} lladdr {} dev {name} nud permanent", family.mac(7)));
            sh(&format!("bridge fdb replace {} dev {name} dst {} self permanent", family.mac(2), family.underlay(7)));
            let (key, _) = family.route(2);
            sh(&format!("ip {ip} route replace {} via {} dev {name} onlink metric {}", key.prefix, family.subnet(7).address(), key.metric));
            for event in events(&mut kernel) {
                observed.fold(&event);
            }
            assert_eq!(observed.neighbours.get(&address), Some(&family.mac(7)));
            assert_eq!(observed.fdb.get(&family.mac(2)), Some(&FdbTo { dst: family.underlay(7), plain: true }));
            assert_eq!(observed.routes.get(&key).unwrap().gateway, Some(family.subnet(7).address()));
            sh(&format!("ip {ip} neighbour change {address} dev {name} nud stale"));
            assert!(events(&mut kernel).contains(&Event::Neighbour { address, mac: None }));
        });
    }
}

#[test]
fn a_route_taken_over_by_another_interface_is_gone_and_foreign() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            sh("ip link add up0 type bridge && ip link set up0 up");
            let (mut kernel, mut observed) = with_peers(family, 2..4).await;
            let (key, to) = family.route(2);
            let takes = |dev: &str| sh(&format!("ip {} route replace {} dev {dev} metric {}", family.ip(), key.prefix, key.metric));
            for take in [&|| takes("up0"), &|| takes(family.name()) as String] as [&dyn Fn() -> String; 2] {
                take();
                for event in events(&mut kernel) {
                    observed.fold(&event);
                }
                assert_eq!(observed, kernel.dump().await.unwrap());
            }
            assert!(observed.foreign.is_empty() && observed.routes[&key] != to);
        });
    }
}

#[test]
fn down_and_up_is_told_as_lost_and_keeps_the_fdb() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let (mut kernel, mut observed) = with_peers(family, 2..4).await;
            sh(&format!("ip link set {} down", family.name()));
            let told = events(&mut kernel);
            assert!(told.contains(&Event::Lost));
            for event in &told {
                observed.fold(event);
            }
            assert!(!observed.device.as_ref().unwrap().up && observed.neighbours.is_empty() && observed.fdb.len() == 2);
            sh(&format!("ip link set {} up", family.name()));
            let told = events(&mut kernel);
            assert!(!told.contains(&Event::Lost), "{told:?}");
            let dumped = kernel.dump().await.unwrap();
            assert!(dumped.device.unwrap().up && dumped.routes.is_empty() && dumped.neighbours.is_empty());
            assert_eq!(dumped.fdb.len(), 2);
        });
    }
}

#[test]
fn the_last_address_takes_the_ipv4_routes_along_and_that_is_told_as_lost() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let (mut kernel, mut observed) = with_peers(family, 2..4).await;
            sh(&format!("ip {} address flush dev {}", family.ip(), family.name()));
            let told = events(&mut kernel);
            fold(&mut observed, &told);
            let dumped = kernel.dump().await.unwrap();
            if family == Family::V4 {
                assert!(told.contains(&Event::Lost) && dumped.routes.is_empty());
                observed.routes.clear();
            }
            assert_eq!(observed, dumped);
        });
    }
}

#[test]
fn a_changed_mac_flushes_the_neighbours_and_tells() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let (mut kernel, mut observed) = with_peers(family, 2..4).await;
            sh(&format!("ip link set {} address {}", family.name(), family.mac(9)));
            for event in events(&mut kernel) {
                observed.fold(&event);
            }
            assert_eq!(observed.device.as_ref().unwrap().mac, family.mac(9));
            assert_eq!(observed.neighbours, [].into());
            assert_eq!(observed, kernel.dump().await.unwrap());
        });
    }
}

#[test]
fn a_deleted_and_remade_device_is_followed() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let (mut kernel, mut observed) = with_peers(family, 2..4).await;
            sh(&format!("ip link del {}", family.name()));
            let told = events(&mut kernel);
            assert!(told.contains(&Event::DeviceGone));
            fold(&mut observed, &told);
            assert_eq!(observed, kernel.dump().await.unwrap());

            sh(&format!("ip link add {} type vxlan id 1 local {} dstport 8472", family.name(), family.underlay(1)));
            sh(&format!("ip link set {0} addrgenmode none && ip link set {0} up", family.name()));
            sh(&format!("bridge fdb add {} dev {} dst {}", family.mac(2), family.name(), family.underlay(2)));
            let told = events(&mut kernel);
            assert!(!told.contains(&Event::Lost), "a new device has nothing on it that could be missed: {told:?}");
            fold(&mut observed, &told);
            assert_eq!(observed, kernel.dump().await.unwrap());
            assert_eq!(observed.fdb.len(), 1);
        });
    }
}

#[test]
fn a_device_that_is_renamed_is_gone_and_one_that_takes_the_name_may_carry_what_was_not_told() {
    in_namespace(|| async {
        let (mut kernel, _) = with_peers(Family::V4, 2..4).await;
        sh("ip link set flannel.1 down && ip link set flannel.1 name other0");
        assert!(events(&mut kernel).contains(&Event::DeviceGone));
        sh("bridge fdb del 02:42:00:00:00:02 dev other0");
        assert_eq!(events(&mut kernel), []);
        sh("ip link set other0 name flannel.1");
        let told = events(&mut kernel);
        assert!(matches!(told.as_slice(), [Event::Device(_), Event::Lost, ..]), "{told:?}");
        assert_eq!(kernel.dump().await.unwrap().fdb.len(), 1);
    });
}

#[test]
fn a_device_put_into_a_bridge_and_taken_out_is_not_gone() {
    in_namespace(|| async {
        let (mut kernel, _) = with_peers(Family::V4, 2..4).await;
        sh("ip link add br0 type bridge && ip link set flannel.1 master br0 && ip link set flannel.1 nomaster && ip link del br0");
        assert!(!events(&mut kernel).contains(&Event::DeviceGone));
        assert_eq!(kernel.dump().await.unwrap().fdb.len(), 2);
    });
}

#[test]
fn changes_of_the_underlay_are_told() {
    in_namespace(|| async {
        sh("ip link add up0 type bridge && ip link set up0 up");
        let index = json("ip -j link show dev up0")[0]["ifindex"].as_u64().unwrap();
        let scope = Scope { underlay: Some(overlay::IfIndex(u32::try_from(index).unwrap())), ..Family::V4.scope() };
        let mut kernel = overlay::Netlink::open(scope).unwrap();
        for change in ["ip link set up0 mtu 1400", "ip address add 192.0.2.1/24 dev up0", "ip address flush dev up0", "ip link del up0"] {
            sh(change);
            let told = events(&mut kernel);
            assert!(told.contains(&Event::Underlay), "{change}: {told:?}");
        }
    });
}

#[test]
fn waiting_ends_with_the_event_and_loses_none_when_it_is_dropped() {
    in_namespace(|| async {
        let (mut kernel, _) = with_peers(Family::V4, 2..4).await;
        let mut told = Vec::new();
        let soon = std::time::Duration::from_millis(1);
        assert!(tokio::time::timeout(soon, kernel.wait_events(&mut told)).await.is_err());
        sh("bridge fdb del 02:42:00:00:00:02 dev flannel.1");
        kernel.wait_events(&mut told).await.unwrap();
        assert_eq!(told, [Event::Fdb { mac: Family::V4.mac(2), to: None }]);
    });
}

#[test]
fn what_may_change_the_ways_to_other_hosts_is_told_and_what_we_do_is_not() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            sh("ip link add up0 type bridge && ip link set up0 up");
            let ip = family.ip();
            let mut kernel = overlay::Netlink::open(Scope { ways: true, ..family.scope() }).unwrap();
            // Without the address, whose IPv6 routes the kernel makes when its work queue comes to it.
            let create: Vec<Op> = family.create().into_iter().filter(|op| !matches!(op, Op::PutAddress(_))).collect();
            apply(&mut kernel, &create).await;
            events(&mut kernel);
            let own = [Op::PutRule(RuleKey { priority: 9, to: family.network(), table: 77, at_least: None })];
            apply(&mut kernel, &[&family.puts(2), &own[..]].concat()).await;
            let told = events(&mut kernel);
            assert!(!told.contains(&Event::Ways), "{told:?}");
            let near = format!("{}/{}", family.underlay(2), family.full_mask());
            for change in [
                format!("ip {ip} route add {near} dev up0"),
                format!("ip {ip} route add {near} dev up0 table 99"),
                format!("ip {ip} rule add to {near} lookup 99"),
                format!("ip {ip} rule del to {near} lookup 99"),
                format!("ip {ip} address add {} dev up0", family.underlay(1)),
                format!("ip {ip} address del {}/{} dev up0", family.underlay(1), family.full_mask()),
                "ip link set up0 down".to_owned(),
                "ip link del up0".to_owned(),
            ] {
                sh(&change);
                let told = events(&mut kernel);
                assert!(told.contains(&Event::Ways), "{change}: {told:?}");
            }
        });
    }
}
