//! The laws.
#![expect(missing_docs, clippy::missing_panics_doc, reason = "their names say what they say, and they panic when they are broken")]

use nix::errno::Errno;

use super::{Family, World, apply, events, follow};
use crate::kernel::errno_number;
use crate::{Deed, ELSEWHERE_INDEX, Event, FdbTo, Kernel, Op, RouteKey, RouteTo, RuleKey, TABLE_MAIN};

async fn with_peers<W: World>(world: &mut W, family: Family) -> crate::Observed {
    let kernel = world.kernel();
    apply(kernel, &family.create()).await;
    apply(kernel, &[family.puts(2), family.puts(3)].concat()).await;
    kernel.dump().await.unwrap()
}

async fn errnos(kernel: &mut impl Kernel, ops: &[Op]) -> Vec<(usize, Errno)> {
    let failures = kernel.apply(ops).await.unwrap();
    failures.iter().map(|failure| (failure.index, Errno::from_raw(failure.errno))).collect()
}

pub async fn a_dump_and_the_events_behind_it_end_at_the_truth<W: World>(world: &mut W, family: Family) {
    let mut observed = world.kernel().dump().await.unwrap();
    let (key, to) = family.route(2);
    let steps = [
        family.create(),
        vec![Op::EnableForwarding { ipv6: family == Family::V6 }],
        [family.puts(2), family.puts(3), family.puts(4)].concat(),
        family.dels(3).to_vec(),
        vec![Op::PutFdb { mac: family.mac(2), dst: family.underlay(9) }],
        vec![Op::PutNeighbour { address: family.subnet(2).address(), mac: family.mac(9) }],
        vec![Op::PutRoute { key, to: RouteTo { protocol: 77, ..to }, replace: true }],
        vec![Op::SetLearning(true), Op::SetLocal(family.underlay(8)), Op::SetMtu(lease::Mtu(1400))],
    ];
    for ops in steps {
        apply(world.kernel(), &ops).await;
        follow(world.kernel(), &mut observed).await;
        assert_eq!(observed, world.kernel().dump().await.unwrap(), "after {ops:?}");
    }
    let deeds = [
        Deed::AgeNeighbour(family.subnet(2).address()),
        Deed::Op(Op::DelFdb { mac: family.mac(2) }),
        Deed::Op(Op::DelRoute { key, to: RouteTo { protocol: 0, ..to } }),
        Deed::FlushRoutes { ipv6: family == Family::V6 },
        Deed::PutForeign(key),
        Deed::SetDown,
        Deed::Op(Op::SetUp),
        Deed::Op(Op::SetMac(family.mac(9))),
        Deed::Op(Op::DelDevice),
        Deed::DelForeign(key),
        Deed::CreateOther,
    ];
    for deed in deeds {
        world.somebody(&deed);
        follow(world.kernel(), &mut observed).await;
        assert_eq!(observed, world.kernel().dump().await.unwrap(), "after {deed:?}");
    }
}

pub async fn what_is_there_already_is_put_in_silence<W: World>(world: &mut W, family: Family) {
    let before = with_peers(world, family).await;
    let (key, to) = family.route(2);
    let [fdb, neighbour, _] = family.puts(2);
    apply(world.kernel(), &[fdb, neighbour]).await;
    let mut told = events(world.kernel());
    told.retain(|event| !matches!(event, Event::Address { present: true, .. }));
    assert_eq!(told, []);
    // Only of a route does IPv6 tell it all the same.
    apply(world.kernel(), &[Op::PutRoute { key, to, replace: true }]).await;
    assert_eq!(world.kernel().dump().await.unwrap(), before);
}

pub async fn what_is_gone_is_deleted_with_success<W: World>(world: &mut W, family: Family) {
    with_peers(world, family).await;
    let address = Op::DelAddress { address: family.subnet(1).address(), len: family.full_mask() };
    for _ in 0..2 {
        apply(world.kernel(), &family.dels(2)).await;
        apply(world.kernel(), std::slice::from_ref(&address)).await;
    }
    for _ in 0..2 {
        apply(world.kernel(), &[Op::DelDevice]).await;
        apply(world.kernel(), &family.dels(3)).await;
        apply(world.kernel(), std::slice::from_ref(&address)).await;
    }
    let left = world.kernel().dump().await.unwrap();
    assert_eq!(left, crate::Observed { forwarding: left.forwarding, ..crate::Observed::default() });
}

pub async fn a_failure_is_its_own_operations_alone<W: World>(world: &mut W, family: Family) {
    with_peers(world, family).await;
    let ops = [family.puts(2), family.puts(4), family.puts(3), family.puts(5)].concat();
    assert_eq!(errnos(world.kernel(), &ops).await, [(2, Errno::EEXIST), (8, Errno::EEXIST)]);
    assert_eq!(world.kernel().dump().await.unwrap().routes.len(), 4);
}

pub async fn a_new_route_is_refused_where_one_is<W: World>(world: &mut W, family: Family) {
    with_peers(world, family).await;
    let (key, to) = family.route(2);
    let other = RouteTo { gateway: Some(family.subnet(9).address()), ..to };
    assert_eq!(errnos(world.kernel(), &[Op::PutRoute { key, to: other, replace: false }]).await, [(0, Errno::EEXIST)]);
    assert_eq!(world.kernel().dump().await.unwrap().routes.get(&key), Some(&to));
    apply(world.kernel(), &[Op::PutRoute { key, to: other, replace: true }]).await;
    assert_eq!(world.kernel().dump().await.unwrap().routes.get(&key), Some(&other));
}

pub async fn deleting_a_route_of_any_metric_takes_none_of_another_protocol_along<W: World>(world: &mut W, family: Family) {
    let before = with_peers(world, family).await;
    let (key, to) = family.route(2);
    let any = RouteKey { metric: 0, ..key };
    apply(world.kernel(), &[Op::DelRoute { key: any, to: RouteTo { protocol: to.protocol + 1, ..to } }]).await;
    assert_eq!(world.kernel().dump().await.unwrap(), before);
    apply(world.kernel(), &[Op::DelRoute { key: any, to }]).await;
    let left = world.kernel().dump().await.unwrap().routes;
    assert!(!left.contains_key(&key) && left.len() == before.routes.len() - 1, "a metric of 0 is any: {left:?}");
}

pub async fn a_route_needs_the_device_up<W: World>(world: &mut W, family: Family) {
    let create = family.create();
    apply(world.kernel(), create.split_last().unwrap().1).await;
    assert_eq!(errnos(world.kernel(), &family.puts(2)).await, [(2, Errno::ENETDOWN)]);
    let observed = world.kernel().dump().await.unwrap();
    assert_eq!((observed.fdb.len(), observed.neighbours.len(), observed.routes.len()), (1, 1, 0));
}

pub async fn a_gateway_is_no_address_of_ours<W: World>(world: &mut W, family: Family) {
    with_peers(world, family).await;
    let (key, to) = family.route(4);
    let to = RouteTo { gateway: Some(family.subnet(1).address()), ..to };
    assert_eq!(errnos(world.kernel(), &[Op::PutRoute { key, to, replace: false }]).await, [(0, Errno::EINVAL)]);
}

pub async fn down_and_up_loses_routes_and_neighbours_and_keeps_the_fdb<W: World>(world: &mut W, family: Family) {
    let mut observed = with_peers(world, family).await;
    let fdb = observed.fdb.clone();
    world.somebody(&Deed::SetDown);
    assert!(follow(world.kernel(), &mut observed).await.contains(&Event::Lost));
    world.somebody(&Deed::Op(Op::SetUp));
    assert!(!follow(world.kernel(), &mut observed).await.contains(&Event::Lost));
    assert_eq!((observed.routes.len(), observed.neighbours.len(), &observed.fdb), (0, 0, &fdb));
    assert_eq!(observed.addresses.len(), family.pick(1, 0), "IPv6 addresses go with the state");
}

pub async fn a_changed_mac_flushes_the_neighbours<W: World>(world: &mut W, family: Family) {
    let mut observed = with_peers(world, family).await;
    let routes = observed.routes.clone();
    world.somebody(&Deed::Op(Op::SetMac(family.mac(9))));
    follow(world.kernel(), &mut observed).await;
    assert_eq!((observed.neighbours.len(), observed.fdb.len(), &observed.routes), (0, 2, &routes));
    assert_eq!(observed.device.unwrap().mac, family.mac(9));
}

pub async fn threads_that_hand_on_packets_are_told_of<W: World>(world: &mut W, family: Family) {
    let mut observed = with_peers(world, family).await;
    follow(world.kernel(), &mut observed).await;
    assert_eq!(observed.device.as_ref().unwrap().threaded, Some(false));
    world.somebody(&Deed::SetThreaded);
    while observed.device.as_ref().unwrap().threaded == Some(false) {
        let mut told = Vec::new();
        world.kernel().wait_events(&mut told).await.unwrap();
        for event in &told {
            observed.fold(event);
        }
    }
    assert_eq!(observed.device.as_ref().unwrap().threaded, Some(true));
    assert_eq!(observed, world.kernel().dump().await.unwrap());
    world.somebody(&Deed::Op(Op::DelDevice));
    apply(world.kernel(), &family.create()).await;
    follow(world.kernel(), &mut observed).await;
    assert_eq!(observed.device.unwrap().threaded, Some(false), "a new device has none");
}

pub async fn a_deleted_device_takes_everything_along<W: World>(world: &mut W, family: Family) {
    let mut observed = with_peers(world, family).await;
    world.somebody(&Deed::Op(Op::DelDevice));
    let told = events(world.kernel());
    assert_eq!(told.last(), Some(&Event::DeviceGone));
    for event in &told {
        observed.fold(event);
    }
    assert_eq!(observed, world.kernel().dump().await.unwrap());
    let before = with_peers(world, family).await;
    assert_eq!((before.fdb.len(), before.neighbours.len(), before.routes.len()), (2, 2, 2));
}

pub async fn nothing_hangs_on_a_device_that_is_not_there<W: World>(world: &mut W, family: Family) {
    let missing = [0, 1, 2].map(|index| (index, Errno::ENODEV));
    assert_eq!(errnos(world.kernel(), &family.puts(2)).await, missing);
    with_peers(world, family).await;
    world.somebody(&Deed::Op(Op::DelDevice));
    assert_eq!(errnos(world.kernel(), &family.puts(2)).await, missing, "before its going was read");
}

pub async fn a_second_device_is_refused<W: World>(world: &mut W, family: Family) {
    world.somebody(&Deed::CreateOther);
    let failures = world.kernel().apply(&[Op::CreateDevice(Box::new(family.spec()))]).await.unwrap();
    assert_eq!(failures.iter().map(|failure| failure.errno).collect::<Vec<_>>(), [errno_number(Errno::EEXIST)]);
}

pub async fn somebodys_route_is_seen_and_never_deleted<W: World>(world: &mut W, family: Family) {
    let mut observed = with_peers(world, family).await;
    let (key, to) = family.route(2);
    world.somebody(&Deed::PutForeign(key));
    follow(world.kernel(), &mut observed).await;
    assert!(observed.foreign.contains_key(&key) && !observed.routes.contains_key(&key), "{observed:?}");
    apply(world.kernel(), &family.dels(2)).await;
    assert!(world.kernel().dump().await.unwrap().foreign.contains_key(&key));
    let refusal = family.pick(Errno::EEXIST, Errno::EINVAL);
    assert_eq!(errnos(world.kernel(), &[Op::PutRoute { key, to, replace: false }]).await, [(0, refusal)]);
    world.somebody(&Deed::DelForeign(key));
    apply(world.kernel(), &family.puts(2)).await;
    let observed = world.kernel().dump().await.unwrap();
    assert_eq!((observed.foreign.len(), observed.routes.get(&key)), (0, Some(&to)));
    assert_eq!(observed.fdb.get(&family.mac(2)), Some(&FdbTo { dst: family.underlay(2), plain: true }));
}

pub async fn the_last_ipv4_address_takes_the_ipv4_routes_along<W: World>(world: &mut W, family: Family) {
    let mut observed = with_peers(world, family).await;
    let del = Op::DelAddress { address: family.subnet(1).address(), len: family.full_mask() };
    world.somebody(&Deed::Op(Op::PutAddress(family.subnet(9).address())));
    world.somebody(&Deed::Op(del));
    follow(world.kernel(), &mut observed).await;
    assert_eq!((observed.routes.len(), observed.neighbours.len()), (2, 2), "another address is left");
    world.somebody(&Deed::Op(Op::DelAddress { address: family.subnet(9).address(), len: family.full_mask() }));
    follow(world.kernel(), &mut observed).await;
    let left = family.pick(0, 2);
    assert_eq!((observed.routes.len(), observed.neighbours.len(), observed.fdb.len()), (left, left, 2));
}

pub async fn who_is_reached_without_a_gateway_is_near<W: World>(world: &mut W, family: Family) {
    let before = with_peers(world, family).await;
    let asked = [family.underlay(2), family.subnet(2).nth(7).unwrap(), family.underlay(3)];
    assert_eq!(world.kernel().near(&asked).await.unwrap(), [None, None, None], "what is behind the tunnel has a gateway");
    world.somebody(&Deed::Near(family.underlay(3)));
    assert_eq!(world.kernel().near(&asked).await.unwrap(), [None, None, Some(ELSEWHERE_INDEX)]);
    assert_eq!(world.kernel().near(&[]).await.unwrap(), []);
    let many = vec![family.underlay(3); 1_000];
    assert_eq!(world.kernel().near(&many).await.unwrap(), vec![Some(ELSEWHERE_INDEX); 1_000]);
    world.somebody(&Deed::Far(family.underlay(3)));
    assert_eq!(world.kernel().near(&asked).await.unwrap(), [None, None, None]);
    assert_eq!(world.kernel().dump().await.unwrap(), before, "it is only asked");
}

pub async fn a_direct_route_takes_the_place_of_the_tunnels_and_gives_it_back<W: World>(world: &mut W, family: Family) {
    let mut observed = with_peers(world, family).await;
    let (key, through) = family.route(2);
    let direct = family.direct(2);
    world.somebody(&Deed::Near(family.underlay(2)));
    for to in [direct, through, direct] {
        follow(world.kernel(), &mut observed).await;
        let before = observed.routes.clone();
        let put = Op::PutRoute { key, to, replace: true };
        if (family, to) == (Family::V6, through) {
            // The next hop has to be on the device, or nowhere, first.
            assert_eq!(errnos(world.kernel(), std::slice::from_ref(&put)).await, [(0, Errno::EINVAL)]);
            let key = RouteKey { prefix: lease::Subnet::host(key.prefix.address()), ..key };
            let to = RouteTo { gateway: None, onlink: false, ..to };
            apply(world.kernel(), &[Op::PutRoute { key, to, replace: true }, put, Op::DelRoute { key, to }]).await;
        } else {
            apply(world.kernel(), &[put]).await;
        }
        follow(world.kernel(), &mut observed).await;
        assert_eq!(observed.routes, before.into_iter().chain([(key, to)]).collect(), "in one step, and no other's");
        assert_eq!(observed, world.kernel().dump().await.unwrap());
    }
    apply(world.kernel(), &[Op::DelRoute { key, to: through }]).await;
    assert_eq!(world.kernel().dump().await.unwrap().routes.get(&key), Some(&direct), "it is not the one that was meant");
    apply(world.kernel(), &[Op::DelRoute { key, to: direct }, Op::DelRoute { key, to: direct }]).await;
    assert_eq!(world.kernel().dump().await.unwrap().routes.get(&key), None);
}

pub async fn a_direct_route_outlives_the_device_and_needs_its_next_hop_on_a_link<W: World>(world: &mut W, family: Family) {
    let (key, to) = (family.route(2).0, family.direct(2));
    let put = Op::PutRoute { key, to, replace: false };
    let refusal = family.pick(Errno::ENETUNREACH, Errno::EHOSTUNREACH);
    assert_eq!(errnos(world.kernel(), std::slice::from_ref(&put)).await, [(0, refusal)]);
    world.somebody(&Deed::Near(family.underlay(2)));
    apply(world.kernel(), std::slice::from_ref(&put)).await;
    let [fdb, ..] = family.puts(3);
    assert_eq!(errnos(world.kernel(), &[fdb, Op::DelRoute { key, to }, put]).await, [(0, Errno::ENODEV)], "only that needs the device");
    apply(world.kernel(), &family.create()).await;
    world.somebody(&Deed::Op(Op::DelDevice));
    let mut observed = world.kernel().dump().await.unwrap();
    world.somebody(&Deed::Far(family.underlay(2)));
    follow(world.kernel(), &mut observed).await;
    assert_eq!((observed.routes.get(&key), &observed.device), (Some(&to), &None), "a route stays when its next hop moves away");
    assert_eq!(observed, world.kernel().dump().await.unwrap());
}

pub async fn flannelds_route_is_foreign_and_deleted_alone<W: World>(world: &mut W, family: Family) {
    let mut observed = with_peers(world, family).await;
    let (key, to) = (family.route(2).0, family.direct(2));
    world.somebody(&Deed::Near(family.underlay(2)));
    world.somebody(&Deed::PutFlannelds { prefix: key.prefix, via: family.underlay(2) });
    follow(world.kernel(), &mut observed).await;
    assert_eq!(observed, world.kernel().dump().await.unwrap());
    let theirs = RouteKey { metric: family.pick(0, 1024), ..key };
    let to = RouteTo { protocol: 3, ..to };
    assert_eq!(observed.foreign, [(theirs, to)].into());
    let other = RouteTo { gateway: Some(family.underlay(3)), ..to };
    apply(world.kernel(), &[Op::DelRoute { key: theirs, to: other }]).await;
    assert_eq!(world.kernel().dump().await.unwrap(), observed, "by another next hop it is another's");
    apply(world.kernel(), &[Op::DelRoute { key: theirs, to }]).await;
    follow(world.kernel(), &mut observed).await;
    assert_eq!((&observed.foreign, observed.routes.len()), (&[].into(), 2));
    assert_eq!(observed, world.kernel().dump().await.unwrap());
}

pub async fn a_blackhole_is_put_seen_and_deleted<W: World>(world: &mut W, family: Family) {
    let mut observed = world.kernel().dump().await.unwrap();
    let (key, to) = family.blackhole();
    apply(world.kernel(), &[Op::PutRoute { key, to, replace: false }]).await;
    follow(world.kernel(), &mut observed).await;
    assert_eq!(observed.routes, [(key, to)].into());
    assert_eq!(observed, world.kernel().dump().await.unwrap());
    assert_eq!(world.kernel().near(&[family.subnet(1).nth(9).unwrap()]).await.unwrap(), [None]);
    for _ in 0..2 {
        apply(world.kernel(), &[Op::DelRoute { key, to }]).await;
        follow(world.kernel(), &mut observed).await;
        assert_eq!((&observed.routes, &observed), (&[].into(), &world.kernel().dump().await.unwrap()));
    }
}

pub async fn rules_are_put_seen_and_deleted_each_by_itself<W: World>(world: &mut W, family: Family) {
    let mut observed = world.kernel().dump().await.unwrap();
    let all = RuleKey { priority: 5_001, to: family.network(), table: 7_654_321, at_least: None };
    let containers = RuleKey { priority: 5_000, to: family.subnet(1), table: TABLE_MAIN, at_least: Some(family.subnet(1).len()) };
    for _ in 0..2 {
        apply(world.kernel(), &[Op::PutRule(containers), Op::PutRule(all)]).await;
        follow(world.kernel(), &mut observed).await;
        assert_eq!(observed.rules, [containers, all].into());
        assert_eq!(observed, world.kernel().dump().await.unwrap());
    }
    apply(world.kernel(), &[Op::DelRule(RuleKey { table: 9, ..all }), Op::DelRule(RuleKey { priority: 9, ..all })]).await;
    assert_eq!(world.kernel().dump().await.unwrap(), observed, "these are others");
    for _ in 0..2 {
        apply(world.kernel(), &[Op::DelRule(all)]).await;
        follow(world.kernel(), &mut observed).await;
        assert_eq!((&observed.rules, &observed), (&[containers].into(), &world.kernel().dump().await.unwrap()));
    }
}

pub async fn the_table_that_a_rule_of_ours_leads_to_is_seen<W: World>(world: &mut W, family: Family) {
    let mut observed = with_peers(world, family).await;
    for table in [99, 252, 300] {
        let rule = RuleKey { priority: 5_000, to: family.network(), table, at_least: None };
        let (key, to) = family.route(2);
        let key = RouteKey { table, ..key };
        apply(world.kernel(), &[Op::PutRoute { key, to, replace: false }]).await;
        follow(world.kernel(), &mut observed).await;
        assert!(!observed.routes.contains_key(&key), "whose table {table} is, is not known");
        assert_eq!(observed, world.kernel().dump().await.unwrap());
        apply(world.kernel(), &[Op::PutRule(rule)]).await;
        follow(world.kernel(), &mut observed).await;
        assert_eq!(observed.routes.get(&key), Some(&to));
        assert_eq!(observed, world.kernel().dump().await.unwrap());
        apply(world.kernel(), &[Op::DelRoute { key, to }, Op::DelRule(rule)]).await;
        follow(world.kernel(), &mut observed).await;
        assert_eq!((observed.routes.len(), observed.rules.len()), (2, 0), "the main table's stay");
        assert_eq!(observed, world.kernel().dump().await.unwrap());
    }
}
