//! FDB, neighbours and routes: what is put is there, in `ip`'s eyes and in a dump's; what is deleted is gone, once and again.

use nix::errno::Errno;
use overlay::{Event, FdbTo, Kernel, Op, RouteKey, RouteTo};

use crate::common::{in_namespace, json, open, sh, with_vtep};
use overlay::contract::{Family, apply, events};

#[test]
fn what_is_put_is_there_for_ip_and_bridge() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let mut kernel = with_vtep(family).await;
            apply(&mut kernel, &family.puts(2)).await;
            let (name, ip) = (family.name(), family.ip());

            let fdb = json(&format!("bridge -j fdb show dev {name}")).remove(0);
            assert_eq!((&fdb["mac"], &fdb["dst"]), (&family.mac(2).to_string().into(), &family.underlay(2).to_string().into()));
            assert_eq!((&fdb["flags"], &fdb["state"]), (&["self"].as_slice().into(), &"permanent".into()));

            let neighbour = json(&format!("ip {ip} -j neighbour show dev {name} nud permanent")).remove(0);
            assert_eq!(
                (&neighbour["dst"], &neighbour["lladdr"]),
                (&family.subnet(2).address().to_string().into(), &family.mac(2).to_string().into(),)
            );

            let route = json(&format!("ip {ip} -j route show dev {name} proto 76")).remove(0);
            assert_eq!(
                (&route["dst"], &route["gateway"]),
                (&family.subnet(2).to_string().into(), &family.subnet(2).address().to_string().into(),)
            );
            assert_eq!((&route["metric"], &route["flags"]), (&3.into(), &["onlink"].as_slice().into()));
        });
    }
}

#[test]
fn a_dump_and_the_events_tell_the_same() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let mut kernel = with_vtep(family).await;
            let mut observed = kernel.dump().await.unwrap();
            let (key, to) = family.route(2);
            apply(&mut kernel, &[family.puts(2), family.puts(3), family.puts(4)].concat()).await;
            apply(&mut kernel, &family.dels(3)).await;
            for event in events(&mut kernel) {
                assert_ne!(event, Event::Lost);
                observed.fold(&event);
            }
            assert_eq!(observed, kernel.dump().await.unwrap());
            assert_eq!(observed.routes.get(&key), Some(&to));
            assert_eq!(observed.routes.len(), 2);
            assert_eq!(observed.neighbours.get(&family.subnet(4).address()), Some(&family.mac(4)));
            assert_eq!(observed.fdb.get(&family.mac(4)), Some(&FdbTo { dst: family.underlay(4), plain: true }));
        });
    }
}

#[test]
fn to_put_what_is_there_is_silent_and_to_delete_what_is_gone_is_success() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let mut kernel = with_vtep(family).await;
            let mut puts = family.puts(2);
            apply(&mut kernel, &puts).await;
            assert_eq!(events(&mut kernel).len(), 3);
            if let [.., Op::PutRoute { replace, .. }] = &mut puts {
                *replace = true;
            }
            let before = kernel.dump().await.unwrap();
            apply(&mut kernel, &puts).await;
            assert_eq!(kernel.dump().await.unwrap(), before);
            for _ in 0..2 {
                apply(&mut kernel, &family.dels(2)).await;
                assert!(json(&format!("bridge -j fdb show dev {}", family.name())).is_empty());
                assert!(json(&format!("ip {} -j route show dev {} proto 76", family.ip(), family.name())).is_empty());
            }
        });
    }
}

#[test]
fn entries_are_replaced_in_place() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let mut kernel = with_vtep(family).await;
            apply(&mut kernel, &family.puts(2)).await;
            let (key, to) = family.route(2);
            let to = RouteTo { gateway: Some(family.subnet(9).address()), ..to };
            apply(
                &mut kernel,
                &[
                    Op::PutFdb { mac: family.mac(2), dst: family.underlay(9) },
                    Op::PutNeighbour { address: family.subnet(2).address(), mac: family.mac(9) },
                    Op::PutRoute { key, to, replace: true },
                ],
            )
            .await;
            let observed = kernel.dump().await.unwrap();
            assert_eq!(observed.fdb, [(family.mac(2), FdbTo { dst: family.underlay(9), plain: true })].into());
            assert_eq!(observed.neighbours, [(family.subnet(2).address(), family.mac(9))].into());
            assert_eq!(observed.routes, [(key, to)].into());
        });
    }
}

#[test]
fn a_new_route_is_refused_where_one_is_and_anothers_is_never_deleted() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            sh("ip link add up0 type bridge && ip link set up0 up");
            let mut kernel = with_vtep(family).await;
            let (key, to) = family.route(2);
            sh(&format!("ip {} route add {} dev up0 metric {}", family.ip(), key.prefix, key.metric));
            assert_eq!(kernel.dump().await.unwrap().foreign.keys().collect::<Vec<_>>(), [&key]);
            let failures = kernel.apply(&[Op::PutRoute { key, to, replace: false }]).await.unwrap();
            // IPv6 looks up the gateway also of an onlink route, and finds it behind the other's interface.
            let errno = if family == Family::V4 { Errno::EEXIST } else { Errno::EINVAL };
            assert_eq!(failures.iter().map(|f| f.errno).collect::<Vec<_>>(), [errno as i32], "{failures:?}");
            apply(&mut kernel, &[Op::DelRoute { key, to }]).await;
            assert_eq!(json(&format!("ip {} -j route show {}", family.ip(), key.prefix)).len(), 1);
        });
    }
}

#[test]
fn what_others_made_differently_is_seen_as_not_plain() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let mut kernel = with_vtep(family).await;
            let (name, ip) = (family.name(), family.ip());
            let (s2, s3, s4) = (family.subnet(2), family.subnet(3), family.subnet(4));
            let own = family.subnet(1).address();
            sh(&format!("bridge fdb add {} dev {name} dst {} port 1234 self permanent", family.mac(2), family.underlay(2)));
            sh(&format!("bridge fdb add {} dev {name} dst {} vni 9 self permanent", family.mac(3), family.underlay(3)));
            sh(&format!("bridge fdb add {} dev {name} dst {} self static", family.mac(4), family.underlay(4)));
            sh(&format!("bridge fdb add {} dev {name} dst {} self dynamic", family.mac(5), family.underlay(5)));
            sh(&format!("bridge fdb add 00:00:00:00:00:00 dev {name} dst {} self permanent", family.underlay(6)));
            sh(&format!("ip {ip} route add {s2} via {} dev {name} onlink mtu 1400", s2.address()));
            sh(&format!("ip {ip} route add {s3} via {} dev {name} onlink src {own}", s3.address()));
            sh(&format!("ip {ip} route add {s4} via {} dev {name} onlink", s4.address()));
            let observed = kernel.dump().await.unwrap();
            let fdb: Vec<_> = observed.fdb.iter().map(|(mac, to)| (*mac, to.plain)).collect();
            let flood = lease::MacAddr::new([0; 6]);
            assert_eq!(fdb, [(flood, true), (family.mac(2), false), (family.mac(3), false), (family.mac(4), false)]);
            let routes: Vec<_> = observed.routes.iter().map(|(key, to)| (key.prefix, to.plain)).collect();
            assert_eq!(routes, [(s2, false), (s3, false), (s4, true)]);

            // And it is made plain by a put.
            assert_eq!(events(&mut kernel), [], "the dump showed all that was told before it");
            for n in [2, 3, 4] {
                apply(&mut kernel, &[Op::PutFdb { mac: family.mac(n), dst: family.underlay(n) }]).await;
                assert_eq!(
                    events(&mut kernel),
                    [Event::Fdb { mac: family.mac(n), to: Some(FdbTo { dst: family.underlay(n), plain: true }) }],
                    "{n}"
                );
            }
        });
    }
}

#[test]
fn what_is_none_of_ours_is_left_out() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let mut kernel = with_vtep(family).await;
            let (name, ip) = (family.name(), family.ip());
            let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
            sh(&format!("ip link add up0 type bridge && ip {ip} address add {} dev up0", family.underlay(1)));
            sh("ip link set up0 up");
            sh(&format!("ip neighbour add {} lladdr {} dev {name} nud permanent", other.subnet(2).address(), family.mac(2)));
            sh(&format!("ip {ip} neighbour add proxy {} dev {name}", family.subnet(3).address()));
            sh(&format!("ip {ip} neighbour add {} lladdr {} dev {name} nud stale", family.subnet(4).address(), family.mac(4)));
            sh(&format!("ip {ip} neighbour add {} lladdr {} dev up0 nud permanent", family.subnet(5).address(), family.mac(5)));
            sh(&format!("ip {ip} route add {} dev {name} table 99", family.subnet(6)));
            sh(&format!("ip {ip} route add default dev up0"));
            sh(&format!("ip {ip} route add blackhole {}", family.subnet(7)));
            if family == Family::V4 {
                sh(&format!("ip route add {} dev {name} tos 4", family.subnet(8)));
            }
            let observed = kernel.dump().await.unwrap();
            assert_eq!(observed.neighbours, [].into());
            assert_eq!(observed.routes, [].into());
            let foreign: Vec<_> = observed.foreign.keys().map(|RouteKey { prefix, .. }| *prefix).collect();
            assert_eq!(foreign, [family.subnet(7)]);
            for event in events(&mut kernel) {
                match event {
                    Event::Neighbour { address, mac } => assert_eq!((address, mac), (family.subnet(4).address(), None)),
                    Event::ForeignRoute { key, .. } => assert_eq!(key.prefix, family.subnet(7)),
                    other => panic!("{other:?}"),
                }
            }
        });
    }
}

#[test]
fn entries_on_a_missing_device_fail_and_their_deletes_succeed() {
    in_namespace(|| async {
        let mut kernel = open(Family::V4);
        let failures = kernel.apply(&[Family::V4.puts(2), Family::V4.dels(2)].concat()).await.unwrap();
        assert_eq!(failures.iter().map(|f| (f.index, f.errno)).collect::<Vec<_>>(), [0, 1, 2].map(|n| (n, Errno::ENODEV as i32)));
        // The same when it went a moment ago.
        let mut kernel = with_vtep(Family::V4).await;
        sh("ip link del flannel.1");
        let failures = kernel.apply(&[Family::V4.puts(2), Family::V4.dels(2)].concat()).await.unwrap();
        assert_eq!(failures.iter().map(|f| (f.index, f.errno)).collect::<Vec<_>>(), [0, 1, 2].map(|n| (n, Errno::ENODEV as i32)));
    });
}
