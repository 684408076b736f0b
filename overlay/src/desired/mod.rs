//! What the kernel should hold: the VTEP, and for each peer an FDB entry, a neighbour and a route, or a direct route alone.
//!
//! Kept as the peers themselves plus an index by MAC; the entries are derived from them when they are asked for, so
//! that fifty thousand peers cost a few megabytes.

mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;

use lease::{MacAddr, Subnet};

use crate::device::{IfIndex, VtepSpec};
use crate::entry::{FdbTo, Key, RuleKey};
use crate::ground::{Direct, Ground};
pub(crate) use routes::flannelds_key;
pub use routes::route_metric;

/// The route protocol number (`rtm_protocol`) that our routes and rules carry; not assigned in iproute2's `rt_protos`.
pub const ROUTE_PROTOCOL: u8 = 76;

/// A host of the overlay other than this one, its record found good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The subnet whose containers it carries.
    pub subnet: Subnet,
    /// Its VTEP's MAC; none where it has no VTEP (host-gw), or only a direct route to it is known.
    pub mac: Option<MacAddr>,
    /// Its address on the underlay.
    pub dst: IpAddr,
}

/// What the kernel should hold for one address family.
#[derive(Debug, Clone)]
pub struct Desired {
    ground: Ground,
    owns_name: bool,
    peers: BTreeMap<IpAddr, Far>,
    macs: BTreeMap<MacAddr, Shared>,
    /// The peers' addresses that are reached with no gateway between, and by which interface.
    near: BTreeMap<IpAddr, IfIndex>,
}

/// A peer less its subnet's address, which is its key.
#[derive(Debug, Clone, Copy)]
struct Far {
    len: u8,
    mac: Option<MacAddr>,
    dst: IpAddr,
}

/// Where a MAC is, and how many peers have it: one host may hold more than one subnet.
#[derive(Debug, Clone, Copy)]
struct Shared {
    dst: IpAddr,
    peers: u32,
    /// The subnet of one of them.
    holder: IpAddr,
}

impl Desired {
    /// No peers yet.
    #[must_use]
    pub fn new(ground: Ground) -> Self {
        Self { ground, owns_name: false, peers: BTreeMap::new(), macs: BTreeMap::new(), near: BTreeMap::new() }
    }

    /// What it is made for.
    #[must_use]
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// The VTEP; none where there is no tunnel.
    #[must_use]
    pub fn vtep(&self) -> Option<&VtepSpec> {
        self.ground.vtep.as_ref()
    }

    /// Whether the VTEP has stood under its name since this was made: then whatever virtual device bears the name now is in its place.
    #[must_use]
    pub fn owns_name(&self) -> bool {
        self.owns_name
    }

    /// Says that the VTEP stands.
    pub fn vtep_stands(&mut self) {
        self.owns_name = true;
    }

    /// How many peers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether there is no peer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// How many neighbours are desired: one for each peer behind the tunnel.
    #[must_use]
    pub fn neighbours(&self) -> usize {
        if self.near.is_empty() { self.peers.len() } else { self.peers.values().filter(|far| self.is_tunnelled(far)).count() }
    }

    /// How many routes are desired: one for each peer, and the blackhole.
    #[must_use]
    pub fn routes(&self) -> usize {
        self.peers.len() + usize::from(self.ground.blackhole)
    }

    /// How many FDB entries are desired: fewer than neighbours where one host holds more than one subnet.
    #[must_use]
    pub fn macs(&self) -> usize {
        if self.near.is_empty() {
            self.macs.len()
        } else {
            self.macs.values().filter(|shared| !self.near.contains_key(&shared.dst)).count()
        }
    }

    /// The peer with this subnet.
    #[must_use]
    pub fn peer(&self, subnet: Subnet) -> Option<Peer> {
        let far = self.peers.get(&subnet.address())?;
        (far.len == subnet.len()).then_some(Peer { subnet, mac: far.mac, dst: far.dst })
    }

    /// All peers, by address.
    pub fn peers(&self) -> impl Iterator<Item = Peer> + '_ {
        self.peers_after(None)
    }

    /// The peers whose subnets come after this one, by address.
    pub fn peers_after(&self, subnet: Option<Subnet>) -> impl Iterator<Item = Peer> + '_ {
        let start = subnet.map_or(Bound::Unbounded, |subnet| Bound::Excluded(subnet.address()));
        self.peers.range((start, Bound::Unbounded)).filter_map(|(address, far)| {
            let Far { len, mac, dst } = *far;
            Some(Peer { subnet: Subnet::new(*address, len).ok()?, mac, dst })
        })
    }

    /// The peer whose subnet has an address in common with this one.
    #[must_use]
    pub fn overlapping(&self, subnet: Subnet) -> Option<Peer> {
        let at = |(address, far): (&IpAddr, &Far)| {
            let peer = Peer { subnet: Subnet::new(*address, far.len).ok()?, mac: far.mac, dst: far.dst };
            peer.subnet.overlaps(subnet).then_some(peer)
        };
        let below = self.peers.range(..=subnet.address()).next_back().and_then(at);
        below.or_else(|| self.peers.range(subnet.address()..).next().and_then(at))
    }

    /// A peer that has this MAC.
    #[must_use]
    pub fn holder(&self, mac: MacAddr) -> Option<Peer> {
        let address = self.macs.get(&mac)?.holder;
        let far = self.peers.get(&address)?;
        Some(Peer { subnet: Subnet::new(address, far.len).ok()?, mac: far.mac, dst: far.dst })
    }

    /// Puts a peer in the place of the one with the same subnet, and tells the keys that this concerns.
    ///
    /// No other peer may overlap its subnet, nor have its MAC elsewhere: [`Peers`](crate::Peers) sees to that.
    pub fn put(&mut self, peer: Peer, touch: &mut impl FnMut(Key)) {
        let Peer { subnet, mac, dst } = peer;
        let before = self.peer(subnet);
        if before == Some(peer) {
            return;
        }
        if let Some(before) = before {
            self.release(before, touch);
        }
        self.peers.insert(subnet.address(), Far { len: subnet.len(), mac, dst });
        if let Some(mac) = mac {
            let holder = subnet.address();
            let first = Shared { dst, peers: 1, holder };
            self.macs.entry(mac).and_modify(|shared| *shared = Shared { dst, peers: shared.peers + 1, holder }).or_insert(first);
        }
        self.touch(subnet, mac, touch);
    }

    /// Takes the peer with this subnet away, and tells the keys that this concerns.
    pub fn del(&mut self, subnet: Subnet, touch: &mut impl FnMut(Key)) -> Option<Peer> {
        let peer = self.peer(subnet)?;
        self.peers.remove(&subnet.address());
        self.release(peer, touch);
        self.touch(subnet, peer.mac, touch);
        Some(peer)
    }

    /// One peer less has its MAC.
    fn release(&mut self, peer: Peer, touch: &mut impl FnMut(Key)) {
        let Peer { subnet, mac, dst: _ } = peer;
        let Some(mac) = mac else { return };
        touch(Key::Fdb(mac));
        let Some(shared) = self.macs.get_mut(&mac) else { return };
        shared.peers -= 1;
        if shared.peers == 0 {
            self.macs.remove(&mac);
        } else if shared.holder == subnet.address() {
            // Rare, and worth a walk: one host with several subnets gave one of them back.
            if let Some((other, _)) = self.peers.iter().find(|(address, far)| far.mac == Some(mac) && **address != subnet.address()) {
                shared.holder = *other;
            }
        }
    }

    fn touch(&self, subnet: Subnet, mac: Option<MacAddr>, touch: &mut impl FnMut(Key)) {
        if let Some(mac) = mac {
            touch(Key::Fdb(mac));
        }
        touch(Key::Neighbour(subnet.address()));
        touch(Key::Route(self.route_key(subnet)));
        if self.ground.direct != Direct::Never {
            touch(Key::Route(flannelds_key(subnet)));
        }
    }

    /// Takes in by which interfaces these addresses are reached with no gateway between, and tells the keys that this concerns.
    pub fn set_near(&mut self, answers: impl IntoIterator<Item = (IpAddr, Option<IfIndex>)>, touch: &mut impl FnMut(Key)) {
        let mut changed = BTreeSet::new();
        for (dst, near) in answers {
            let before = match near {
                Some(index) => self.near.insert(dst, index),
                None => self.near.remove(&dst),
            };
            if before != near {
                changed.insert(dst);
            }
        }
        if !changed.is_empty() {
            for peer in self.peers().filter(|peer| changed.contains(&peer.dst)) {
                self.touch(peer.subnet, peer.mac, touch);
            }
        }
    }

    /// By which interface a peer is reached directly, where it is.
    #[must_use]
    pub fn near(&self, dst: IpAddr) -> Option<IfIndex> {
        self.near.get(&dst).copied()
    }

    /// The addresses of peers that are reached directly by this interface.
    pub(crate) fn near_by(&self, index: IfIndex) -> impl Iterator<Item = IpAddr> + '_ {
        self.near.iter().filter(move |(_, by)| **by == index).map(|(dst, _)| *dst)
    }

    /// Forgets how all but these addresses (in order) are reached: no peer has them any more.
    pub(crate) fn forget_near_but(&mut self, addresses: &[IpAddr]) {
        self.near.retain(|dst, _| addresses.binary_search(dst).is_ok());
    }

    /// Whether a peer is to be reached through the tunnel.
    fn is_tunnelled(&self, far: &Far) -> bool {
        self.ground.vtep.is_some() && far.mac.is_some() && !self.near.contains_key(&far.dst)
    }

    /// Where frames to this MAC should be sent.
    #[must_use]
    pub fn fdb(&self, mac: MacAddr) -> Option<FdbTo> {
        self.ground.vtep.as_ref()?;
        let shared = self.macs.get(&mac).filter(|shared| !self.near.contains_key(&shared.dst))?;
        Some(FdbTo { dst: shared.dst, plain: true })
    }

    /// The MAC that this neighbour should have.
    #[must_use]
    pub fn neighbour(&self, address: IpAddr) -> Option<MacAddr> {
        self.peers.get(&address).filter(|far| self.is_tunnelled(far))?.mac
    }

    /// Whether there should be this rule.
    #[must_use]
    pub fn has_rule(&self, key: RuleKey) -> bool {
        self.ground.rules().any(|rule| rule == key)
    }

    /// Every key that should be there, in the order of [`Key`].
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let device = self.ground.vtep.iter().map(|_| Key::Device);
        let fdb = self.macs.keys().map(|mac| Key::Fdb(*mac));
        let neighbours = self.peers.keys().map(|address| Key::Neighbour(*address));
        let rules = self.ground.rules().map(Key::Rule);
        let routes = self.peers().map(|peer| self.route_key(peer.subnet)).chain(self.ground.blackhole_key()).map(Key::Route);
        [Key::Forwarding].into_iter().chain(device).chain(fdb).chain(neighbours).chain(rules).chain(routes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(subnet: &str, mac: &str, dst: &str) -> Peer {
        Peer { subnet: subnet.parse().unwrap(), mac: Some(mac.parse().unwrap()), dst: dst.parse().unwrap() }
    }

    fn desired() -> Desired {
        let (network, subnet) = ("10.5.0.0/16".parse().unwrap(), "10.5.99.0/24".parse().unwrap());
        Desired::new(Ground { network, subnet, vtep: None, direct: Direct::Never, blackhole: false, table: None })
    }

    #[test]
    fn a_mac_that_two_subnets_share_goes_with_the_last_of_them() {
        let mut desired = desired();
        let (a, b) = (peer("10.5.1.0/24", "02:00:00:00:00:01", "192.168.0.1"), peer("10.5.2.0/24", "02:00:00:00:00:01", "192.168.0.1"));
        desired.put(a, &mut |_| ());
        desired.put(b, &mut |_| ());
        assert_eq!((desired.len(), desired.macs()), (2, 1));
        desired.del(a.subnet, &mut |_| ());
        assert_eq!(desired.holder(a.mac.unwrap()), Some(b));
        desired.del(b.subnet, &mut |_| ());
        assert_eq!(desired.holder(a.mac.unwrap()), None);
    }

    #[test]
    fn a_changed_mac_touches_the_old_fdb_entry_too() {
        let mut desired = desired();
        desired.put(peer("10.5.1.0/24", "02:00:00:00:00:01", "192.168.0.1"), &mut |_| ());
        let mut touched = Vec::new();
        desired.put(peer("10.5.1.0/24", "02:00:00:00:00:02", "192.168.0.1"), &mut |key| touched.push(key));
        assert!(touched.contains(&Key::Fdb("02:00:00:00:00:01".parse().unwrap())));
        assert!(touched.contains(&Key::Fdb("02:00:00:00:00:02".parse().unwrap())));
    }

    #[test]
    fn overlap_is_found_on_both_sides() {
        let mut desired = desired();
        desired.put(peer("10.5.4.0/22", "02:00:00:00:00:01", "192.168.0.1"), &mut |_| ());
        for (text, overlaps) in
            [("10.5.5.0/24", true), ("10.5.0.0/16", true), ("10.5.3.0/24", false), ("10.5.8.0/24", false), ("10.5.4.0/22", true)]
        {
            assert_eq!(desired.overlapping(text.parse().unwrap()).is_some(), overlaps, "{text}");
        }
    }
}
