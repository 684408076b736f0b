//! What the data plane shows of itself: everything, when somebody asks.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use lease::LeaseKey;
use overlay::{Kernel, Key, Matter, Observed, Reconciler, Reject, State, Trouble, VtepSpec, Way};

use crate::status::{self, Count, DataPlane, DataPlaneState, EntryState, Fight, Heal, Held, Peer, PeerState, Rejected, Vtep};

/// All that there is to say of the data plane.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) vtep: Option<Vtep>,
    pub(crate) data_plane: DataPlane,
    pub(crate) peers: Vec<Peer>,
    pub(crate) rejected: Vec<Rejected>,
    pub(crate) strays: u64,
    pub(crate) heals: Vec<Heal>,
    pub(crate) fights: Vec<Fight>,
    pub(crate) held: Option<Held>,
    pub(crate) filter: Option<status::Filter>,
    pub(crate) warnings: Vec<String>,
}

pub(super) fn desired<K: Kernel>(reconciler: &Reconciler<K>) -> Count {
    let desired = reconciler.desired();
    Count { neighbours: count(desired.neighbours()), fdb: count(desired.macs()), routes: count(desired.routes()) }
}

pub(super) fn observed(observed: &Observed) -> Count {
    Count { neighbours: count(observed.neighbours.len()), fdb: count(observed.fdb.len()), routes: count(observed.routes.len()) }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

pub(crate) fn of<K: Kernel>(reconciler: &Reconciler<K>) -> View {
    let device = reconciler.device_name();
    let heals = reconciler.heals().map(|heal| Heal {
        at_unix_ms: heal.at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX)),
        command: heal.ops.iter().map(|op| op.on(device).to_string()).collect::<Vec<_>>().join(" && "),
        why: format!("{} undone", heal.key),
    });
    let mut heals: Vec<Heal> = heals.collect();
    heals.reverse();
    let now = Instant::now();
    let held = reconciler.peers().held_until().map(|until| Held {
        peers: count(reconciler.peers().held().count()),
        passes_in: until.saturating_duration_since(now).as_secs(),
        reason: "the store's last snapshot suddenly lacks them".to_owned(),
    });
    let rejected = reconciler.peers().rejected();
    View {
        vtep: reconciler.desired().vtep().map(|spec| vtep(spec, reconciler.observed())),
        data_plane: data_plane(reconciler),
        peers: peers(reconciler),
        rejected: rejected.map(|(key, reason)| rejection(key, reason)).collect(),
        strays: count(reconciler.peers().strays()),
        heals,
        fights: fights(reconciler),
        held,
        filter: None,
        warnings: shadows(reconciler),
    }
}

fn rejection(key: LeaseKey, reason: &Reject) -> Rejected {
    let duplicate = matches!(reason, Reject::OverlapsOwn(..) | Reject::Overlaps(_));
    Rejected { key: key.to_string(), reason: reason.to_string(), duplicate }
}

fn vtep(spec: &VtepSpec, observed: &Observed) -> Vtep {
    let device = observed.device.as_ref();
    let right = overlay::plan::plan_device(spec, observed, false).map(|ops| ops.is_empty());
    let state = match (device, right) {
        (None, _) => "missing".to_owned(),
        (Some(_), Ok(true)) => "in step".to_owned(),
        (Some(_), Ok(false)) => "being put right".to_owned(),
        (Some(_), Err(blocked)) => blocked.to_string(),
    };
    Vtep {
        name: spec.name.clone(),
        ifindex: device.map(|device| device.index.0),
        mac: device.map_or(spec.mac, |device| device.mac),
        mtu: device.map_or(spec.mtu, |device| device.mtu).0,
        vni: spec.vni.get(),
        port: spec.port,
        local: spec.local,
        up: device.is_some_and(|device| device.up),
        state,
    }
}

fn data_plane<K: Kernel>(reconciler: &Reconciler<K>) -> DataPlane {
    let (state, reason, pending) = match reconciler.state() {
        State::InStep => (DataPlaneState::InStep, None, 0),
        State::Waiting => (DataPlaneState::Converging, Some("the leases are not all known yet".to_owned()), 0),
        State::Converging(work) => (DataPlaneState::Converging, None, work),
        State::Unforwarding(reason) => (DataPlaneState::Blocked, Some(reason), 1),
        State::Troubled(keys, reason) => (DataPlaneState::Blocked, Some(reason), keys),
    };
    let retrying = count(reconciler.retries().refused() + reconciler.retries().outdone());
    DataPlane { state, reason, desired: desired(reconciler), observed: observed(reconciler.observed()), pending: count(pending), retrying }
}

fn peers<K: Kernel>(reconciler: &Reconciler<K>) -> Vec<Peer> {
    let (desired, observed) = (reconciler.desired(), reconciler.observed());
    let refused: BTreeMap<Key, String> = reconciler
        .retries()
        .troubles()
        .filter_map(|(Matter(key, _), trouble)| match trouble {
            Trouble::Refused { reason, .. } => Some((key, reason)),
            Trouble::Fight { .. } => None,
        })
        .collect();
    let entry = |key: Key, there: bool, right: bool| {
        Some(match refused.get(&key) {
            Some(reason) => EntryState::Retrying(reason.clone()),
            None if right => EntryState::Ok,
            None if there => EntryState::Differs,
            None => EntryState::Missing,
        })
    };
    let kept: std::collections::BTreeSet<_> = reconciler.peers().rejected().flat_map(|(key, _)| [key.v4(), key.v6()]).flatten().collect();
    let peer = |peer: overlay::Peer| {
        let overlay::Peer { subnet, mac, dst } = peer;
        let address = subnet.address();
        // Of a direct peer there is only a route.
        let mac = mac.filter(|_| desired.near(dst).is_none());
        let neighbour = desired.neighbour(address).and_then(|want| {
            let have = observed.neighbours.get(&address);
            entry(Key::Neighbour(address), have.is_some(), have == Some(&want))
        });
        let fdb = mac.and_then(|mac| {
            let (want, have) = (desired.fdb(mac)?, observed.fdb.get(&mac));
            entry(Key::Fdb(mac), have.is_some(), have == Some(&want))
        });
        let key = desired.route_key(subnet);
        let have = observed.routes.get(&key).copied();
        let route = match desired.out_of_reach(key) {
            Some(dst) => Some(EntryState::Retrying(format!("{dst} is not on a link of this host"))),
            None => entry(Key::Route(key), have.is_some(), have == desired.route(key)),
        };
        let whole = [&neighbour, &fdb, &route].into_iter().flatten().all(|state| *state == EntryState::Ok);
        let state = match (kept.contains(&subnet), whole) {
            (true, _) => PeerState::KeptLast,
            (false, true) => PeerState::InStep,
            (false, false) => PeerState::Converging,
        };
        Peer { subnet, public_ip: dst, mac, state, neighbour, fdb, route }
    };
    desired.peers().map(peer).collect()
}

fn fights<K: Kernel>(reconciler: &Reconciler<K>) -> Vec<Fight> {
    let fight = |(matter, trouble): (Matter, Trouble)| match trouble {
        Trouble::Fight { count, next, who } => {
            let next_in = next.saturating_duration_since(Instant::now()).as_secs();
            let who = who.map_or_else(|| "unknown".to_owned(), |who| who.to_string());
            Some(Fight { what: matter.to_string(), times: count.into(), who: Some(who), next_in })
        }
        Trouble::Refused { .. } => None,
    };
    reconciler.retries().troubles().filter_map(fight).collect()
}

/// Foreign routes that take a peer's traffic, and addresses that two peers have.
fn shadows<K: Kernel>(reconciler: &Reconciler<K>) -> Vec<String> {
    let (desired, observed) = (reconciler.desired(), reconciler.observed());
    let mut warnings = Vec::new();
    for (key, to) in &observed.foreign {
        let Some(peer) = desired.overlapping(key.prefix) else { continue };
        let ours = desired.route_key(peer.subnet);
        let longer = key.prefix.len() > peer.subnet.len();
        let wins = key.table == ours.table && (longer || (ours.prefix == key.prefix && key.metric < ours.metric));
        if wins {
            let out = if let Way::Link(index) = to.way { format!(" out of interface {index}") } else { String::new() };
            warnings.push(format!("a foreign route {key}{out} takes the traffic for {}: delete it", peer.subnet));
        }
    }
    let mut addresses = BTreeMap::new();
    for peer in desired.peers() {
        if let Some(other) = addresses.insert(peer.dst, peer.subnet) {
            warnings.push(format!("{other} and {} are both behind {}: a lease left over, or a clone", peer.subnet, peer.dst));
        }
    }
    warnings
}
