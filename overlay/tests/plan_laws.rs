//! The laws of the plan, over random peers and random kernels; and the reconciler's one law: whatever happens, in whatever
//! order, it ends in step.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use lease::{BackendType, Entry, Event, Expiry, LeaseKey, LeaseRecord, MacAddr, Mtu, Revision, VtepData};
use overlay::contract::Family;
use overlay::plan::{Plan, plan, plan_all};
use overlay::{Deed, Desired, Guard, Kernel, Key, Local, ModelKernel, Observed, Op, Peer, Reconciler, RouteKey, RouteTo, State, VtepSpec};
use proptest::prelude::*;

const FAMILY: Family = Family::V4;

/// How many subnets there are to choose from: few, so that what is desired and what is there meet often.
const SUBNETS: u32 = 12;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// The peer of number `n`, whose MAC and address come from two further numbers, so that they change and are shared.
fn peer(n: u32, mac: u32, dst: u32) -> Peer {
    Peer { subnet: FAMILY.subnet(n), mac: Some(FAMILY.mac(mac)), dst: FAMILY.underlay(dst) }
}

/// Peers that a lease set can have: one address for each MAC.
fn peers() -> impl Strategy<Value = Vec<Peer>> {
    let one = (2..SUBNETS, 2..SUBNETS).prop_map(|(n, mac)| peer(n, mac, mac));
    proptest::collection::btree_map(2..SUBNETS, one, 0..8).prop_map(|peers| {
        let seen: std::collections::BTreeMap<_, _> = peers.into_values().map(|peer| (peer.subnet, peer)).collect();
        seen.into_values().collect()
    })
}

fn desired(peers: &[Peer]) -> Desired {
    let mut desired = Desired::new(FAMILY.ground());
    for peer in peers {
        desired.put(*peer, &mut |_| ());
    }
    desired
}

/// What somebody, or an agent before us, may have done.
fn deed() -> impl Strategy<Value = Deed> {
    let n = 2..SUBNETS;
    prop_oneof![
        (n.clone(), n.clone(), n.clone()).prop_map(|(a, b, _)| Deed::Op(Op::PutFdb { mac: FAMILY.mac(a), dst: FAMILY.underlay(b) })),
        (n.clone(), n.clone()).prop_map(|(a, b)| Deed::Op(Op::PutNeighbour { address: FAMILY.subnet(a).address(), mac: FAMILY.mac(b) })),
        (n.clone(), 0..SUBNETS).prop_map(|(a, metric)| {
            let (key, to) = FAMILY.route(a);
            Deed::Op(Op::PutRoute { key: RouteKey { metric, ..key }, to, replace: false })
        }),
        n.clone().prop_map(|a| Deed::Op(Op::PutRoute { key: FAMILY.route(a).0, to: FAMILY.route(a).1, replace: false })),
        n.clone().prop_map(|a| Deed::Op(Op::DelFdb { mac: FAMILY.mac(a) })),
        n.clone().prop_map(|a| Deed::Op(Op::DelNeighbour { address: FAMILY.subnet(a).address() })),
        Just(Deed::SetThreaded),
        n.clone().prop_map(|a| {
            let (key, to) = FAMILY.route(a);
            Deed::Op(Op::DelRoute { key, to: RouteTo { protocol: 0, ..to } })
        }),
        n.clone().prop_map(|a| Deed::AgeNeighbour(FAMILY.subnet(a).address())),
        (n.clone(), 0..SUBNETS).prop_map(|(a, metric)| Deed::PutForeign(RouteKey { metric: metric + 100, ..FAMILY.route(a).0 })),
        Just(Deed::Op(Op::DelDevice)),
        Just(Deed::SetDown),
        Just(Deed::Op(Op::SetUp)),
        Just(Deed::Op(Op::SetMtu(Mtu(1400)))),
        n.clone().prop_map(|a| Deed::Op(Op::SetMac(FAMILY.mac(a + 100)))),
        n.prop_map(|a| Deed::Op(Op::PutAddress(FAMILY.subnet(a).nth(1).unwrap()))),
        Just(Deed::Op(Op::DelAddress { address: FAMILY.spec().address, len: FAMILY.full_mask() })),
        Just(Deed::FlushRoutes { ipv6: false }),
        Just(Deed::Op(Op::SetLearning(true))),
        Just(Deed::Op(Op::CreateDevice(Box::new(FAMILY.spec())))),
        Just(Deed::Op(Op::CreateDevice(Box::new(VtepSpec { port: 4789, ..FAMILY.spec() })))),
    ]
}

/// A kernel that something has happened to.
fn kernel() -> impl Strategy<Value = Vec<Deed>> {
    (any::<bool>(), proptest::collection::vec(deed(), 0..40)).prop_map(|(ready, deeds)| {
        let ready = if ready { FAMILY.create() } else { Vec::new() };
        ready.into_iter().map(Deed::Op).chain(deeds).collect()
    })
}

fn after(deeds: &[Deed]) -> ModelKernel {
    let kernel = ModelKernel::new(FAMILY.scope());
    for deed in deeds {
        kernel.somebody(deed);
    }
    kernel
}

/// Applies all, the plan's way: every operation has to be legal when its turn comes.
fn apply(kernel: &ModelKernel, ops: &[Op]) {
    let failures = block_on(kernel.clone().apply(ops)).unwrap();
    assert!(failures.is_empty(), "{failures:?} of {ops:#?}");
}

fn is_delete(op: &Op) -> bool {
    matches!(op, Op::DelFdb { .. } | Op::DelNeighbour { .. } | Op::DelRoute { .. })
}

/// The entries of the kernel that are not desired, by key.
fn entries(observed: &Observed) -> BTreeSet<Key> {
    let fdb = observed.fdb.keys().map(|mac| Key::Fdb(*mac));
    let neighbours = observed.neighbours.keys().map(|address| Key::Neighbour(*address));
    fdb.chain(neighbours).chain(observed.routes.keys().map(|key| Key::Route(*key))).collect()
}

/// Holds what the kernel has against the peers, with no help of the code under test.
fn assert_in_step(peers: &[Peer], observed: &Observed) {
    let spec = FAMILY.spec();
    let device = observed.device.as_ref().unwrap();
    assert!(device.up && device.mtu == spec.mtu && device.mac == spec.mac && device.no_link_local);
    let neighbours: Vec<(IpAddr, MacAddr)> = peers.iter().map(|peer| (peer.subnet.address(), peer.mac.unwrap())).collect();
    assert_eq!(observed.neighbours.iter().map(|(address, mac)| (*address, *mac)).collect::<Vec<_>>(), neighbours);
    let fdb: BTreeSet<(MacAddr, IpAddr)> = peers.iter().map(|peer| (peer.mac.unwrap(), peer.dst)).collect();
    assert_eq!(observed.fdb.iter().map(|(mac, to)| (*mac, to.dst)).collect::<BTreeSet<_>>(), fdb);
    let routes: BTreeSet<String> = peers.iter().map(|peer| format!("{} via {}", peer.subnet, peer.subnet.address())).collect();
    let have = observed.routes.iter().map(|(key, to)| format!("{} via {}", key.prefix, to.gateway.unwrap()));
    assert_eq!(have.collect::<BTreeSet<_>>(), routes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn applying_a_plan_reaches_what_is_desired_and_the_next_plan_is_empty(peers in peers(), deeds in kernel()) {
        let (kernel, desired) = (after(&deeds), desired(&peers));
        let ops: Vec<Op> = plan_all(&desired, &kernel.truth()).ops().cloned().collect();
        apply(&kernel, &ops);
        assert_in_step(&peers, &kernel.truth());
        prop_assert_eq!(plan_all(&desired, &kernel.truth()), Plan::default());
    }

    #[test]
    fn holding_back_deletes_leaves_every_entry_where_it_was(peers in peers(), deeds in kernel()) {
        let (kernel, desired) = (after(&deeds), desired(&peers));
        let plan = plan_all(&desired, &kernel.truth());
        prop_assert!(!plan.puts.iter().any(is_delete));
        prop_assert!(plan.dels.iter().all(is_delete));
        let recreated = plan.puts.contains(&Op::DelDevice);
        let before = entries(&kernel.truth());
        apply(&kernel, &plan.puts);
        // A change of MAC flushes neighbours, whoever makes it: those that are desired are put again.
        let flushed = plan.puts.iter().any(|op| matches!(op, Op::SetMac(_)));
        let mut lost = before.difference(&entries(&kernel.truth())).copied().collect::<BTreeSet<_>>();
        lost.retain(|key| !(flushed && matches!(key, Key::Neighbour(_))));
        prop_assert!(recreated || lost.is_empty(), "lost {:?}", lost);
    }

    #[test]
    fn stopping_after_any_operation_and_starting_again_still_converges(peers in peers(), deeds in kernel(), stop in 0..60_usize) {
        let (kernel, desired) = (after(&deeds), desired(&peers));
        let ops: Vec<Op> = plan_all(&desired, &kernel.truth()).ops().take(stop).cloned().collect();
        apply(&kernel, &ops);
        let rest: Vec<Op> = plan_all(&desired, &kernel.truth()).ops().cloned().collect();
        apply(&kernel, &rest);
        assert_in_step(&peers, &kernel.truth());
    }

    #[test]
    fn what_is_not_ours_stays_as_it_is(peers in peers(), deeds in kernel()) {
        let (kernel, desired) = (after(&deeds), desired(&peers));
        let before = kernel.truth().foreign;
        let plan = plan_all(&desired, &kernel.truth());
        for op in plan.ops() {
            if let Key::Route(key) = op.key() {
                prop_assert!(!before.contains_key(&key) || matches!(op, Op::DelRoute { .. }), "{:?}", op);
            }
        }
        apply(&kernel, &plan.ops().cloned().collect::<Vec<_>>());
        prop_assert_eq!(kernel.truth().foreign, before);
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(peers in peers(), deeds in kernel(), seed in any::<u64>()) {
        let mut shuffled = peers.clone();
        let mut rng = lease::Rng::new(seed);
        for index in (1..shuffled.len()).rev() {
            shuffled.swap(index, rng.below(index + 1));
        }
        let truth = after(&deeds).truth();
        prop_assert_eq!(plan_all(&desired(&peers), &truth), plan_all(&desired(&shuffled), &truth));
    }

    #[test]
    fn a_plan_of_some_keys_touches_those_alone(peers in peers(), deeds in kernel(), n in 2..SUBNETS) {
        let keys = BTreeSet::from([Key::Fdb(FAMILY.mac(n)), Key::Neighbour(FAMILY.subnet(n).address()), Key::Route(FAMILY.route(n).0)]);
        let plan = plan(&desired(&peers), &after(&deeds).truth(), keys.iter().copied());
        prop_assert!(plan.ops().all(|op| keys.contains(&op.key())));
    }
}

/// What can happen to a reconciler.
#[derive(Debug, Clone)]
enum Happening {
    Joins(u32, u32),
    Leaves(u32),
    Deed(Deed),
    EventsAreLost,
    KernelRefuses(u32),
    Steps(u8),
    Snapshot(Vec<u32>),
}

fn happening() -> impl Strategy<Value = Happening> {
    let n = 2..SUBNETS;
    prop_oneof![
        4 => (n.clone(), n.clone()).prop_map(|(n, mac)| Happening::Joins(n, mac)),
        2 => n.clone().prop_map(Happening::Leaves),
        6 => deed().prop_map(Happening::Deed),
        1 => Just(Happening::EventsAreLost),
        1 => n.clone().prop_map(Happening::KernelRefuses),
        3 => (0..4_u8).prop_map(Happening::Steps),
        1 => proptest::collection::vec(n, 0..6).prop_map(Happening::Snapshot),
    ]
}

fn lease_of(n: u32, mac: u32) -> Entry {
    let public_ip = match FAMILY.underlay(mac) {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    };
    let vtep = VtepData { vni: FAMILY.spec().vni, mac: FAMILY.mac(mac) };
    let record =
        LeaseRecord { public_ip, public_ipv6: None, backend: BackendType::Vxlan, vtep: Some(vtep), vtep_v6: None, owner: None, boot: None };
    let revision = Revision(n.into());
    Entry { key: key_of(n), record: Ok(record), created: revision, modified: revision, expiry: Expiry::Lease(1) }
}

fn key_of(n: u32) -> LeaseKey {
    LeaseKey::new(Some(FAMILY.subnet(n)), None).unwrap()
}

fn local() -> Local {
    let spec = FAMILY.spec();
    let subnet = lease::Subnet::new(spec.address, 24).unwrap();
    let key = LeaseKey::new(Some(subnet), None).unwrap();
    let vtep = Some(VtepData { vni: spec.vni, mac: spec.mac });
    Local { key, subnet, network: spec.network, subnet_len: 24, vtep, addresses: vec![spec.local] }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_reconciler_ends_in_step(happenings in proptest::collection::vec(happening(), 0..60), before in kernel()) {
        let kernel = after(&before);
        let mut now = Instant::now();
        let mut peers = std::collections::BTreeMap::new();
        let outcome = block_on(async {
            let mut reconciler = Reconciler::new(kernel.clone(), FAMILY.ground(), local(), Guard::DEFAULT, now).await.unwrap();
            reconciler.leases(&[Event::Init, Event::InitDone(Revision(1))], now);
            for happening in &happenings {
                match happening {
                    Happening::Joins(n, mac) => {
                        peers.insert(*n, *mac);
                        reconciler.leases(&[Event::Apply(lease_of(*n, *mac))], now);
                    }
                    Happening::Leaves(n) => {
                        peers.remove(n);
                        reconciler.leases(&[Event::Delete(key_of(*n))], now);
                    }
                    Happening::Snapshot(named) => {
                        peers = named.iter().map(|n| (*n, *n)).collect();
                        let entries = peers.iter().map(|(n, mac)| Event::InitApply(lease_of(*n, *mac)));
                        let events: Vec<Event> = [Event::Init].into_iter().chain(entries).chain([Event::InitDone(Revision(2))]).collect();
                        reconciler.leases(&events, now);
                    }
                    Happening::Deed(deed) => kernel.somebody(deed),
                    Happening::EventsAreLost => kernel.lose_events(),
                    Happening::KernelRefuses(n) => kernel.fail_next(Key::Fdb(FAMILY.mac(*n)), 12),
                    Happening::Steps(count) => {
                        for _ in 0..*count {
                            hear(&mut reconciler);
                            reconciler.step(now).await.unwrap();
                        }
                    }
                }
            }
            // Long enough for every backoff, hold and fight; step by step, as it would be woken.
            for _ in 0..200 {
                hear(&mut reconciler);
                while reconciler.step(now).await.unwrap().more {}
                now += Duration::from_secs(10);
            }
            let want: Vec<Peer> = reconciler.desired().peers().collect();
            (reconciler.state(), want)
        });
        let (state, want) = outcome;
        prop_assert_eq!(state, State::InStep);
        assert_in_step(&want, &kernel.truth());
        // Whoever conflicts with nobody is a peer.
        for (n, mac) in &peers {
            let alone = peers.values().filter(|other| *other == mac).count() == 1;
            prop_assert!(!alone || want.contains(&peer(*n, *mac, *mac)), "{} is missing from {:?}", n, want);
        }
        prop_assert!(want.len() <= peers.len());
    }
}

/// Takes in what the kernel has to say, if anything.
fn hear(reconciler: &mut Reconciler<ModelKernel>) {
    let _ = reconciler.listen().now_or_never();
}
