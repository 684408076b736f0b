//! The plan: which operations lead from what the kernel holds to what it should hold.
//!
//! Pure, total and deterministic. It looks at the keys it is given and at nothing else, so that one change costs the
//! same with ten peers or fifty thousand. Puts come first, in the order of [`Key`]: device, FDB, neighbour, route. Then
//! deletes, the other way round.

use std::collections::BTreeSet;
use std::fmt;

use crate::desired::Desired;
use crate::device::{Device, Kind, VtepSpec, Vxlan};
use crate::entry::{Key, RouteKey, RouteTo};
use crate::observed::Observed;
use crate::op::Op;

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

/// Plans these keys, which are to come in their order. Without a VTEP desired there is nothing to do.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed, keys: impl IntoIterator<Item = Key>) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = desired.vtep() else { return plan };
    let mut lost = Lost::default();
    let mut carried = observed.device.as_ref().is_some_and(|device| matches!(device.kind, Kind::Vxlan(_)));
    let mut settled = is_settled(spec, observed);
    for key in keys {
        match key {
            Key::Forwarding => {
                if observed.forwarding == Some(false) {
                    plan.puts.push(Op::EnableForwarding { ipv6: !spec.network.is_ipv4() });
                }
            }
            Key::Device => match plan_device(spec, observed, desired.owns_name()) {
                Ok(ops) => {
                    lost = Lost::by(&ops);
                    (carried, settled) = (true, true);
                    plan.puts.extend(ops);
                }
                Err(blocked) => plan.blocked.push((key, blocked)),
            },
            // Without a VTEP there is nothing to hang entries on.
            Key::Fdb(_) | Key::Neighbour(_) | Key::Route(_) if !carried => {}
            // These the kernel would refuse, or drop again when the device is put right.
            Key::Neighbour(_) | Key::Route(_) if !settled => {}
            Key::Fdb(mac) => {
                let (want, have) = (desired.fdb(mac), observed.fdb.get(&mac).copied().filter(|_| !lost.all));
                entry(&mut plan, want, have, |to, _| Ok(Op::PutFdb { mac, dst: to.dst }), Op::DelFdb { mac });
            }
            Key::Neighbour(address) => {
                let (want, have) = (desired.neighbour(address), observed.neighbours.get(&address).copied().filter(|_| !lost.neighbours));
                entry(&mut plan, want, have, |mac, _| Ok(Op::PutNeighbour { address, mac }), Op::DelNeighbour { address });
            }
            Key::Route(key) => {
                let (want, have) = (desired.route(key), observed.routes.get(&key).copied().filter(|_| !lost.all));
                let put = |to: RouteTo, replace| {
                    if observed.foreign.contains_key(&key) {
                        Err(Blocked::ForeignRoute(key))
                    } else {
                        Ok(Op::PutRoute { key, to, replace })
                    }
                };
                entry(&mut plan, want, have, put, Op::DelRoute { key, protocol: have.map_or(0, |have| have.protocol) });
            }
        }
    }
    plan.dels.reverse();
    plan
}

/// Everything that differs, in one plan.
#[must_use]
pub fn plan_all(desired: &Desired, observed: &Observed) -> Plan {
    let keys: BTreeSet<Key> = match desired.vtep() {
        // Where the device has to be made or made anew, what hangs on it now does not count.
        Some(spec) if plan_device(spec, observed, desired.owns_name()).is_ok_and(|ops| !ops.is_empty()) => {
            desired.keys().chain(observed_keys(observed)).collect()
        }
        _ => differences(desired, observed),
    };
    plan(desired, observed, keys)
}

/// The keys at which the two differ.
#[must_use]
pub fn differences(desired: &Desired, observed: &Observed) -> BTreeSet<Key> {
    let Some(spec) = desired.vtep() else { return BTreeSet::new() };
    let differs = |key: &Key| match *key {
        Key::Forwarding => observed.forwarding == Some(false),
        Key::Device => plan_device(spec, observed, desired.owns_name()).map_or(true, |ops| !ops.is_empty()),
        Key::Fdb(mac) => desired.fdb(mac) != observed.fdb.get(&mac).copied(),
        Key::Neighbour(address) => desired.neighbour(address) != observed.neighbours.get(&address).copied(),
        Key::Route(key) => desired.route(key) != observed.routes.get(&key).copied(),
    };
    desired.keys().chain(observed_keys(observed)).filter(differs).collect()
}

fn observed_keys(observed: &Observed) -> impl Iterator<Item = Key> + '_ {
    let Observed { forwarding: _, device: _, addresses: _, neighbours, fdb, routes, foreign: _ } = observed;
    let fdb = fdb.keys().map(|mac| Key::Fdb(*mac));
    let neighbours = neighbours.keys().map(|address| Key::Neighbour(*address));
    fdb.chain(neighbours).chain(routes.keys().map(|key| Key::Route(*key)))
}

fn entry<V: PartialEq>(plan: &mut Plan, want: Option<V>, have: Option<V>, put: impl FnOnce(V, bool) -> Result<Op, Blocked>, del: Op) {
    if want == have {
        return;
    }
    match want {
        None => plan.dels.push(del),
        Some(want) => {
            let key = del.key();
            match put(want, have.is_some()) {
                Ok(op) => plan.puts.push(op),
                Err(blocked) => plan.blocked.push((key, blocked)),
            }
        }
    }
}

/// Whether neighbours and routes stay on the device: it is a VXLAN device, up, and has its MAC.
#[must_use]
pub fn is_settled(spec: &VtepSpec, observed: &Observed) -> bool {
    observed.device.as_ref().is_some_and(|device| matches!(device.kind, Kind::Vxlan(_)) && device.up && device.mac == spec.mac)
}

/// What has to be done to the device and its addresses. Nothing else is looked at. A virtual device of another kind is replaced where
/// the name is ours.
///
/// # Errors
/// [`Blocked::NotVxlan`].
pub fn plan_device(spec: &VtepSpec, observed: &Observed, owns_name: bool) -> Result<Vec<Op>, Blocked> {
    let mut ops = Vec::new();
    let fresh = Device {
        index: crate::IfIndex(0),
        kind: Kind::Vxlan(as_created(spec)),
        up: false,
        mtu: spec.mtu,
        mac: spec.mac,
        no_link_local: false,
        accept_ra: Some(true),
        threaded: Some(false),
    };
    let mut addresses = &observed.addresses;
    let none = BTreeSet::new();
    let (device, vxlan) = match &observed.device {
        Some(device) => match &device.kind {
            Kind::Other(kind) if !owns_name || kind.is_empty() => {
                return Err(Blocked::NotVxlan { name: spec.name.clone(), kind: kind.clone() });
            }
            Kind::Vxlan(vxlan) if can_be_made_right(spec, device, vxlan) => (device, vxlan),
            Kind::Vxlan(_) | Kind::Other(_) => {
                ops.push(Op::DelDevice);
                ops.push(Op::CreateDevice(Box::new(spec.clone())));
                addresses = &none;
                (&fresh, &as_created(spec))
            }
        },
        None => {
            ops.push(Op::CreateDevice(Box::new(spec.clone())));
            addresses = &none;
            (&fresh, &as_created(spec))
        }
    };
    let Device { index: _, kind: _, up, mtu, mac, no_link_local, accept_ra, threaded: _ } = device;
    let mut ensure = |right: bool, op: Op| {
        if !right {
            ops.push(op);
        }
    };
    ensure(vxlan.local == Some(spec.local), Op::SetLocal(spec.local));
    ensure(vxlan.learning == spec.learning, Op::SetLearning(spec.learning));
    ensure(*mac == spec.mac, Op::SetMac(spec.mac));
    ensure(*mtu == spec.mtu, Op::SetMtu(spec.mtu));
    ensure(*no_link_local, Op::DisableLinkLocal);
    ensure(*accept_ra != Some(true), Op::DisableAcceptRa);
    let full = if spec.address.is_ipv4() { 32 } else { 128 };
    ensure(addresses.contains(&(spec.address, full)), Op::PutAddress(spec.address));
    for (address, len) in addresses {
        ensure(
            (*address, *len) == (spec.address, full) || !does_not_belong(spec, *address),
            Op::DelAddress { address: *address, len: *len },
        );
    }
    ensure(*up, Op::SetUp);
    Ok(ops)
}

/// An address of the overlay that is not ours, or a link-local one.
fn does_not_belong(spec: &VtepSpec, address: std::net::IpAddr) -> bool {
    let link_local = matches!(address, std::net::IpAddr::V6(address) if address.is_unicast_link_local());
    link_local || spec.network.contains(address)
}

fn as_created(spec: &VtepSpec) -> Vxlan {
    let VtepSpec { name: _, vni, port, local, gbp, learning, mac: _, mtu: _, address: _, network: _ } = *spec;
    Vxlan { vni, port, local: Some(local), parent: None, learning, gbp, external: false }
}

/// Whether the kernel can change the device into what it should be (drivers/net/vxlan/vxlan_core.c, `vxlan_changelink`:
/// neither VNI, port, GBP nor mode can be). A device that flanneld bound to its underlay is left bound: making it anew
/// would lose packets. One whose NAPI was threaded stays deaf when that is switched off again (measured on 6.18): what has queued up in
/// its `gro_cells` meanwhile is never taken out.
fn can_be_made_right(spec: &VtepSpec, device: &Device, vxlan: &Vxlan) -> bool {
    let Vxlan { vni, port, local, parent: _, learning: _, gbp, external } = *vxlan;
    let same_family = local.is_none_or(|local| local.is_ipv4() == spec.local.is_ipv4());
    vni == spec.vni && port == spec.port && gbp == spec.gbp && !external && same_family && device.threaded != Some(true)
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
