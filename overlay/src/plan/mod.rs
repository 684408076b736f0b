//! The plan: which operations lead from what the kernel holds to what it should hold.
//!
//! Pure, total and deterministic. It looks at the keys it is given and at nothing else, so that one change costs the
//! same with ten peers or fifty thousand. Puts come first, in the order of [`Key`]: device, FDB, neighbour, rule, route. Then
//! deletes, the other way round.

mod device;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use lease::Subnet;

use crate::desired::Desired;
use crate::device::{Kind, VtepSpec};
use crate::entry::{Key, RouteKey, RouteTo, TABLE_MAIN, Way};
use crate::observed::Observed;
use crate::op::Op;
pub use device::{is_settled, plan_device};

/// What is to be done about a set of keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Device operations and puts, in order.
    pub puts: Vec<Op>,
    /// Deletes of entries, in order. They can be held back as a whole: what remains is still a plan.
    pub dels: Vec<Op>,
    /// What cannot be done, and why.
    pub blocked: Vec<(Key, Blocked)>,
}

/// Something that is not ours stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// A device of another kind bears the VTEP's name.
    #[error("there is a device named {name} already, and it is no VXLAN device but {kind:?}: rename or delete it")]
    NotVxlan {
        /// The name.
        name: String,
        /// The kernel's name for its kind; empty for a physical one.
        kind: String,
    },
    /// A route with our key leads elsewhere.
    #[error("a foreign route {0} leads elsewhere: delete it or give it another metric")]
    ForeignRoute(RouteKey),
    /// A peer is not reached directly, and there is no other way.
    #[error("{subnet}: {dst} is not on a link of this host: host-gw needs that")]
    OutOfReach {
        /// The peer's.
        subnet: Subnet,
        /// Its address.
        dst: IpAddr,
    },
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { puts, dels, blocked } = self;
        puts.is_empty() && dels.is_empty() && blocked.is_empty()
    }

    /// All operations in order.
    pub fn ops(&self) -> impl Iterator<Item = &Op> {
        self.puts.iter().chain(&self.dels)
    }
}

/// Plans these keys, which are to come in their order.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed, keys: impl IntoIterator<Item = Key>) -> Plan {
    let mut plan = Plan::default();
    let mut base = Base::of(desired, observed);
    for key in keys {
        match key {
            Key::Forwarding => {
                if observed.forwarding == Some(false) {
                    plan.puts.push(Op::EnableForwarding { ipv6: !desired.ground().network.is_ipv4() });
                }
            }
            Key::Device => match desired.vtep().map(|spec| plan_device(spec, observed, desired.owns_name())) {
                Some(Ok(ops)) => {
                    base = Base { lost: Lost::by(&ops), carried: true, settled: true };
                    plan.puts.extend(ops);
                }
                Some(Err(blocked)) => plan.blocked.push((key, blocked)),
                None => {}
            },
            // Without a VTEP there is nothing to hang entries on.
            Key::Fdb(_) | Key::Neighbour(_) if !base.carried => {}
            // These the kernel would refuse, or drop again when the device is put right.
            Key::Neighbour(_) if !base.settled => {}
            Key::Fdb(mac) => {
                let (want, have) = (desired.fdb(mac), observed.fdb.get(&mac).copied().filter(|_| !base.lost.all));
                entry(&mut plan, want, have, |to, _| Ok(Op::PutFdb { mac, dst: to.dst }), |_| Op::DelFdb { mac });
            }
            Key::Neighbour(address) => {
                let have = observed.neighbours.get(&address).copied().filter(|_| !base.lost.neighbours);
                let put = |mac, _| Ok(Op::PutNeighbour { address, mac });
                entry(&mut plan, desired.neighbour(address), have, put, |_| Op::DelNeighbour { address });
            }
            Key::Rule(rule) => {
                let (want, have) = (desired.has_rule(rule).then_some(()), observed.rules.contains(&rule).then_some(()));
                entry(&mut plan, want, have, |(), _| Ok(Op::PutRule(rule)), |()| Op::DelRule(rule));
            }
            Key::Route(key) => route(&mut plan, desired, observed, base, key),
        }
    }
    plan.dels.reverse();
    plan
}

fn route(plan: &mut Plan, desired: &Desired, observed: &Observed, base: Base, key: RouteKey) {
    if let Some(dst) = desired.out_of_reach(key) {
        // One that is there still leads to where the peer was last: better than to wherever the default route does.
        return plan.blocked.push((Key::Route(key), Blocked::OutOfReach { subnet: key.prefix, dst }));
    }
    let want = desired.route(key);
    let have = observed.routes.get(&key).copied();
    let leads = |to: Option<RouteTo>, way| to.is_some_and(|to| to.way == way);
    if leads(want.or(have), Way::Tunnel) && !(base.carried && base.settled) {
        return;
    }
    let have = have.filter(|_| !(base.lost.all && leads(have, Way::Tunnel)));
    let (flannelds, foreign) = match observed.foreign.get(&key).copied() {
        Some(to) if desired.is_flannelds(key, to) => (Some(to), None),
        foreign => (None, foreign),
    };
    let put = |to: RouteTo, replace| match foreign {
        Some(_) => Err((Key::Route(key), Blocked::ForeignRoute(key))),
        None => Ok(Op::PutRoute { key, to, replace: replace || flannelds.is_some() }),
    };
    let stone = want.filter(|want| Some(*want) != have).and_then(|want| stepping_stone(desired, observed, key, want));
    plan.puts.extend(stone.map(|(key, to)| Op::PutRoute { key, to, replace: true }));
    plan.dels.extend(stone.map(|(key, to)| Op::DelRoute { key, to }));
    entry(plan, want, have, put, |to| Op::DelRoute { key, to });
    if let Some(to) = flannelds.filter(|_| want.is_none()) {
        plan.dels.push(Op::DelRoute { key, to });
    }
}

/// IPv6 looks up the next hop in the main table even with `onlink`, and refuses it where a route leads there by another interface
/// (`ip6_route_check_nh_onlink`, net/ipv6/route.c, v6.18). The next hop behind the tunnel lies within the peer's subnet, so a direct
/// route could not be replaced in one step, were it not for a route to the next hop alone: this.
fn stepping_stone(desired: &Desired, observed: &Observed, key: RouteKey, want: RouteTo) -> Option<(RouteKey, RouteTo)> {
    let gateway = want.gateway.filter(|gateway| want.way == Way::Tunnel && gateway.is_ipv6())?;
    let same_prefix = RouteKey { metric: 0, table: 0, ..key }..=RouteKey { metric: u32::MAX, table: u32::MAX, ..key };
    let ours = observed.routes.range(same_prefix.clone()).filter(|(_, to)| matches!(to.way, Way::Link(_)));
    let flannelds = observed.foreign.range(same_prefix).filter(|(key, to)| desired.is_flannelds(**key, **to));
    let to = RouteTo { gateway: None, onlink: false, ..want };
    let stone = RouteKey { prefix: Subnet::host(gateway), table: TABLE_MAIN, ..key };
    ours.chain(flannelds).any(|(key, _)| key.table == TABLE_MAIN).then_some((stone, to))
}

/// Everything that differs, in one plan.
#[must_use]
pub fn plan_all(desired: &Desired, observed: &Observed) -> Plan {
    let keys: BTreeSet<Key> = match desired.vtep() {
        // Where the device has to be made or made anew, what hangs on it now does not count.
        Some(spec) if plan_device(spec, observed, desired.owns_name()).is_ok_and(|ops| !ops.is_empty()) => {
            desired.keys().chain(observed_keys(desired, observed)).collect()
        }
        _ => differences(desired, observed),
    };
    plan(desired, observed, keys)
}

/// The keys at which the two differ.
#[must_use]
pub fn differences(desired: &Desired, observed: &Observed) -> BTreeSet<Key> {
    let device_differs = |spec: &VtepSpec| plan_device(spec, observed, desired.owns_name()).map_or(true, |ops| !ops.is_empty());
    let differs = |key: &Key| match *key {
        Key::Forwarding => observed.forwarding == Some(false),
        Key::Device => desired.vtep().is_some_and(device_differs),
        Key::Fdb(mac) => desired.fdb(mac) != observed.fdb.get(&mac).copied(),
        Key::Neighbour(address) => desired.neighbour(address) != observed.neighbours.get(&address).copied(),
        Key::Rule(rule) => desired.has_rule(rule) != observed.rules.contains(&rule),
        Key::Route(key) => {
            let flannelds = || observed.foreign.get(&key).is_some_and(|to| desired.is_flannelds(key, *to));
            desired.route(key) != observed.routes.get(&key).copied() || desired.out_of_reach(key).is_some() || flannelds()
        }
    };
    desired.keys().chain(observed_keys(desired, observed)).filter(differs).collect()
}

fn observed_keys<'a>(desired: &'a Desired, observed: &'a Observed) -> impl Iterator<Item = Key> + 'a {
    let Observed { forwarding: _, device: _, addresses: _, neighbours, fdb, rules, routes, foreign } = observed;
    let fdb = fdb.keys().map(|mac| Key::Fdb(*mac));
    let neighbours = neighbours.keys().map(|address| Key::Neighbour(*address));
    let flannelds = foreign.iter().filter(|(key, to)| desired.is_flannelds(**key, **to)).map(|(key, _)| key);
    let routes = routes.keys().chain(flannelds).map(|key| Key::Route(*key));
    fdb.chain(neighbours).chain(rules.iter().map(|rule| Key::Rule(*rule))).chain(routes)
}

fn entry<V: PartialEq>(
    plan: &mut Plan,
    want: Option<V>,
    have: Option<V>,
    put: impl FnOnce(V, bool) -> Result<Op, (Key, Blocked)>,
    del: impl FnOnce(V) -> Op,
) {
    match (want, have) {
        (None, None) => {}
        (None, Some(have)) => plan.dels.push(del(have)),
        (Some(want), have) if have.as_ref() == Some(&want) => {}
        (Some(want), have) => match put(want, have.is_some()) {
            Ok(op) => plan.puts.push(op),
            Err((key, blocked)) => plan.blocked.push((key, blocked)),
        },
    }
}

/// What the entries of a plan hang on.
#[derive(Debug, Clone, Copy)]
struct Base {
    lost: Lost,
    /// Whether there is a VTEP, which is all that an FDB entry needs.
    carried: bool,
    /// Whether neighbours and routes stay on it.
    settled: bool,
}

impl Base {
    fn of(desired: &Desired, observed: &Observed) -> Self {
        let vtep = desired.vtep();
        let carried = vtep.is_some() && observed.device.as_ref().is_some_and(|device| matches!(device.kind, Kind::Vxlan(_)));
        Self { lost: Lost::default(), carried, settled: vtep.is_some_and(|spec| is_settled(spec, observed)) }
    }
}

/// What the kernel will have thrown away once the device operations are through.
#[derive(Debug, Clone, Copy, Default)]
struct Lost {
    neighbours: bool,
    all: bool,
}

impl Lost {
    fn by(ops: &[Op]) -> Self {
        let all = ops.iter().any(|op| matches!(op, Op::CreateDevice(_)));
        // Up or down: `neigh_changeaddr`, net/core/neighbour.c (v6.18).
        let flushed = ops.iter().any(|op| matches!(op, Op::SetMac(_)));
        Self { neighbours: all || flushed, all }
    }
}

impl fmt::Display for Plan {
    /// One line for each operation is printed by [`Op::on`]; this is the summary.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { puts, dels, blocked } = self;
        write!(out, "{} put, {} deleted, {} blocked", puts.len(), dels.len(), blocked.len())
    }
}
