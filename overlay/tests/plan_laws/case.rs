//! What the laws are tried on: grounds, peers, and kernels that something has happened to.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;

use lease::{MacAddr, Mtu};
use overlay::contract::Family;
use overlay::{
    Deed, Desired, Direct, Ground, Kernel, ModelKernel, Observed, Op, Peer, RouteKey, RouteTable, RouteTo, RuleKey, Scope, TABLE_MAIN,
    VtepSpec, Way,
};
use proptest::prelude::*;

/// How many subnets there are to choose from: few, so that what is desired and what is there meet often.
pub(crate) const SUBNETS: u32 = 12;

/// The table of our own, and one that an earlier run may have had.
const TABLES: [u32; 2] = [99, 300];

/// One way in which an overlay can be set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) family: Family,
    pub(crate) direct: Direct,
    blackhole: bool,
    table: bool,
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let direct = prop_oneof![2 => Just(Direct::Never), 3 => Just(Direct::WhereReachable), 1 => Just(Direct::Always)];
    (family, direct, any::<bool>(), any::<bool>()).prop_map(|(family, direct, blackhole, table)| Case { family, direct, blackhole, table })
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

impl Case {
    pub(crate) fn ground(self) -> Ground {
        let Self { family, direct, blackhole, table } = self;
        let vtep = (direct != Direct::Always).then(|| family.spec());
        let table = table.then_some(RouteTable { id: TABLES[0], priority: 5_000 });
        Ground { network: family.network(), subnet: family.subnet(1), vtep, direct, blackhole, table }
    }

    /// The peer of number `n`, whose MAC and address come from a further number, so that they change and are shared.
    pub(crate) fn peer(self, n: u32, mac: u32) -> Peer {
        let Self { family, direct, .. } = self;
        Peer { subnet: family.subnet(n), mac: (direct != Direct::Always).then(|| family.mac(mac)), dst: family.underlay(mac) }
    }

    /// What should be in the kernel, once it has been asked who is near.
    pub(crate) fn desired(self, peers: &[Peer], kernel: &ModelKernel) -> Desired {
        let mut desired = Desired::new(self.ground());
        for peer in peers {
            desired.put(*peer, &mut |_| ());
        }
        if self.direct != Direct::Never {
            desired.set_near(near(peers, kernel), &mut |_| ());
        }
        desired
    }

    /// The first operations on this ground, in a kernel that has nothing yet.
    fn ready(self) -> Vec<Op> {
        if self.direct == Direct::Always { Vec::new() } else { self.family.create() }
    }

    pub(crate) fn after(self, deeds: &[Deed]) -> ModelKernel {
        let kernel = ModelKernel::new(Scope::of(&self.ground(), None));
        for deed in deeds {
            kernel.somebody(deed);
        }
        kernel
    }

    /// A route that does not carry our protocol number, but is flanneld's: by its form, to one of our peers.
    pub(crate) fn is_flannelds(self, peers: &[Peer], key: RouteKey, to: RouteTo) -> bool {
        let form = key.metric == self.family.pick(0, 1024) && key.table == TABLE_MAIN && to.protocol == 3;
        let to_peer = peers.iter().any(|peer| peer.subnet == key.prefix && to.gateway == Some(peer.dst));
        form && to_peer && self.direct != Direct::Never
    }

    /// Holds what the kernel has against the peers, with no help of the code under test.
    pub(crate) fn assert_in_step(self, peers: &[Peer], kernel: &ModelKernel) {
        let Self { family, direct, blackhole, table } = self;
        let near: BTreeSet<IpAddr> = near(peers, kernel).into_iter().filter_map(|(dst, near)| near.map(|_| dst)).collect();
        let is_direct = |peer: &&Peer| direct != Direct::Never && near.contains(&peer.dst);
        let observed = seen(kernel);
        let tunnelled: Vec<&Peer> = peers.iter().filter(|peer| direct != Direct::Always && !is_direct(peer)).collect();
        if direct != Direct::Always {
            let (spec, device) = (family.spec(), observed.device.as_ref().unwrap());
            assert!(device.up && device.mtu == spec.mtu && device.mac == spec.mac && device.no_link_local);
            let neighbours: Vec<(IpAddr, MacAddr)> = tunnelled.iter().map(|peer| (peer.subnet.address(), peer.mac.unwrap())).collect();
            assert_eq!(observed.neighbours.iter().map(|(address, mac)| (*address, *mac)).collect::<Vec<_>>(), neighbours);
            let fdb: BTreeSet<(MacAddr, IpAddr)> = tunnelled.iter().map(|peer| (peer.mac.unwrap(), peer.dst)).collect();
            assert_eq!(observed.fdb.iter().map(|(mac, to)| (*mac, to.dst)).collect::<BTreeSet<_>>(), fdb);
        }
        let id = if table { TABLES[0] } else { TABLE_MAIN };
        let mut routes: BTreeSet<String> =
            tunnelled.iter().map(|peer| format!("{} via {} by tunnel in {id}", peer.subnet, peer.subnet.address())).collect();
        routes.extend(peers.iter().filter(is_direct).map(|peer| format!("{} via {} in {id}", peer.subnet, peer.dst)));
        routes.extend(blackhole.then(|| format!("blackhole {} in {id}", family.subnet(1))));
        let out_of_reach =
            |key: &RouteKey| direct == Direct::Always && peers.iter().any(|peer| peer.subnet == key.prefix && !is_direct(&peer));
        let have = observed.routes.iter().filter(|(key, to)| !(out_of_reach(key) && to.way != Way::Tunnel)).map(|(key, to)| match to.way {
            Way::Tunnel => format!("{} via {} by tunnel in {}", key.prefix, to.gateway.unwrap(), key.table),
            Way::Link(_) => format!("{} via {} in {}", key.prefix, to.gateway.unwrap(), key.table),
            Way::Blackhole => format!("blackhole {} in {}", key.prefix, key.table),
            Way::Other => format!("{key}, odd"),
        });
        assert_eq!(have.collect::<BTreeSet<_>>(), routes);
        let (network, own, shorter) = (family.network(), family.subnet(1), family.subnet(1).len() - 1);
        let mut rules = BTreeSet::new();
        if table {
            rules.insert(format!("to {network} lookup {id} priority 5000"));
            rules.extend(blackhole.then(|| format!("to {own} lookup 254 suppress_prefixlength {shorter} priority 4999")));
        }
        assert_eq!(observed.rules.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), rules);
    }
}

fn near(peers: &[Peer], kernel: &ModelKernel) -> Vec<(IpAddr, Option<overlay::IfIndex>)> {
    let asked: Vec<IpAddr> = peers.iter().map(|peer| peer.dst).collect();
    let answers = block_on(kernel.clone().near(&asked)).unwrap();
    asked.into_iter().zip(answers).collect()
}

/// What a dump would tell.
pub(crate) fn seen(kernel: &ModelKernel) -> Observed {
    block_on(kernel.clone().dump()).unwrap()
}

/// Peers that a lease set can have: one address for each MAC.
pub(crate) fn peers(case: Case) -> impl Strategy<Value = Vec<Peer>> {
    let one = (2..SUBNETS, 2..SUBNETS).prop_map(move |(n, mac)| case.peer(n, mac));
    proptest::collection::btree_map(2..SUBNETS, one, 0..8).prop_map(|peers| {
        let seen: std::collections::BTreeMap<_, _> = peers.into_values().map(|peer| (peer.subnet, peer)).collect();
        seen.into_values().collect()
    })
}

/// What somebody, or an agent before us, may have done.
pub(crate) fn deed(case: Case) -> BoxedStrategy<Deed> {
    let family = case.family;
    // Where there is no VTEP, what is done to one is not looked at.
    let tunnel = case.direct != Direct::Always;
    let n = 2..SUBNETS;
    let on_vtep = prop_oneof![
        (n.clone(), n.clone()).prop_map(move |(a, b)| Op::PutFdb { mac: family.mac(a), dst: family.underlay(b) }),
        (n.clone(), n.clone()).prop_map(move |(a, b)| Op::PutNeighbour { address: family.subnet(a).address(), mac: family.mac(b) }),
        n.clone().prop_map(move |a| Op::DelFdb { mac: family.mac(a) }),
        n.clone().prop_map(move |a| Op::DelNeighbour { address: family.subnet(a).address() }),
        Just(Op::DelDevice),
        Just(Op::SetUp),
        Just(Op::SetMtu(Mtu(1400))),
        n.clone().prop_map(move |a| Op::SetMac(family.mac(a + 100))),
        n.clone().prop_map(move |a| Op::PutAddress(family.subnet(a).nth(1).unwrap())),
        Just(Op::DelAddress { address: family.spec().address, len: family.full_mask() }),
        Just(Op::SetLearning(true)),
        Just(Op::CreateDevice(Box::new(family.spec()))),
        Just(Op::CreateDevice(Box::new(VtepSpec { port: 4789, ..family.spec() }))),
    ];
    let to = (n.clone(), n.clone(), any::<bool>())
        .prop_map(move |(a, b, direct)| if direct || !tunnel { family.direct(b) } else { family.route(a).1 });
    let table = prop_oneof![Just(TABLE_MAIN), Just(TABLES[0]), Just(TABLES[1])];
    let key = (n.clone(), 0..SUBNETS, any::<bool>(), table.clone()).prop_map(move |(a, metric, same, table)| {
        let key = family.route(a).0;
        RouteKey { metric: if same { key.metric } else { metric }, table, ..key }
    });
    let put = (key.clone(), to.clone()).prop_map(move |(key, to)| {
        // Its own next hop behind the tunnel: another would be refused as somebody's address.
        let gateway = if to.way == Way::Tunnel { Some(key.prefix.address()) } else { to.gateway };
        Op::PutRoute { key, to: RouteTo { gateway, ..to }, replace: false }
    });
    let rule = (prop_oneof![Just(4_999_u32), Just(5_000), Just(5_001)], table).prop_map(move |(priority, table)| RuleKey {
        priority,
        to: family.network(),
        table,
        at_least: None,
    });
    let route_or_rule = prop_oneof![
        6 => put,
        1 => (key, to).prop_map(|(key, to)| Op::DelRoute { key, to: RouteTo { protocol: 0, ..to } }),
        1 => Just(Op::PutRoute { key: family.blackhole().0, to: family.blackhole().1, replace: false }),
        1 => rule.clone().prop_map(Op::PutRule),
        1 => rule.prop_map(Op::DelRule),
    ];
    let others = prop_oneof![
        Just(Deed::SetThreaded),
        n.clone().prop_map(move |a| Deed::AgeNeighbour(family.subnet(a).address())),
        Just(Deed::SetDown),
        Just(Deed::FlushRoutes { ipv6: family == Family::V6 }),
    ];
    let ways = prop_oneof![
        3 => n.clone().prop_map(move |a| Deed::Near(family.underlay(a))),
        1 => n.clone().prop_map(move |a| Deed::Far(family.underlay(a))),
    ];
    // The next hop of an IPv6 route through the tunnel is refused where another's route leads to it: none of these there.
    let foreign = prop_oneof![
        (n.clone(), 0..SUBNETS).prop_map(move |(a, metric)| Deed::PutForeign(RouteKey { metric: metric + 100, ..family.route(a).0 })),
        (n.clone(), n).prop_map(move |(a, b)| Deed::PutFlannelds { prefix: family.subnet(a), via: family.underlay(b) }),
    ];
    let on_vtep = on_vtep.prop_map(move |op| if tunnel { op } else { Op::EnableForwarding { ipv6: family == Family::V6 } });
    let mine = prop_oneof![6 => on_vtep.prop_map(Deed::Op), 5 => route_or_rule.prop_map(Deed::Op), 2 => others, 4 => ways];
    if family == Family::V4 { prop_oneof![8 => mine, 1 => foreign].boxed() } else { mine.boxed() }
}

/// A kernel that something has happened to.
pub(crate) fn kernel(case: Case) -> impl Strategy<Value = Vec<Deed>> {
    (any::<bool>(), proptest::collection::vec(deed(case), 0..40)).prop_map(move |(ready, deeds)| {
        let ready = if ready { case.ready() } else { Vec::new() };
        ready.into_iter().map(Deed::Op).chain(deeds).collect()
    })
}
