//! What the kernel should hold: the VTEP, and for each peer an FDB entry, a neighbour and a route.
//!
//! Kept as the peers themselves plus an index by MAC; the entries are derived from them when they are asked for, so
//! that fifty thousand peers cost a few megabytes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;

use lease::{MacAddr, Subnet};

use crate::device::VtepSpec;
use crate::entry::{FdbTo, Key, RouteKey, RouteTo};

/// The route protocol number (`rtm_protocol`) that our routes carry; not assigned in iproute2's `rt_protos`.
pub const ROUTE_PROTOCOL: u8 = 76;

/// A host of the overlay other than this one, its record found good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The subnet whose containers it carries.
    pub subnet: Subnet,
    /// Its VTEP's MAC.
    pub mac: MacAddr,
    /// Its address on the underlay.
    pub dst: IpAddr,
}

/// What the kernel should hold on one VTEP.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    vtep: Option<VtepSpec>,
    owns_name: bool,
    peers: BTreeMap<IpAddr, Far>,
    macs: BTreeMap<MacAddr, Shared>,
}

/// A peer less its subnet's address, which is its key.
#[derive(Debug, Clone, Copy)]
struct Far {
    len: u8,
    mac: MacAddr,
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
    /// The VTEP; none while this host has no lease, and then nothing is desired at all.
    #[must_use]
    pub fn vtep(&self) -> Option<&VtepSpec> {
        self.vtep.as_ref()
    }

    /// Says what the VTEP should be.
    pub fn set_vtep(&mut self, vtep: VtepSpec) {
        self.vtep = Some(vtep);
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

    /// How many FDB entries are desired: fewer than peers where one host holds more than one subnet.
    #[must_use]
    pub fn macs(&self) -> usize {
        self.macs.len()
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
        let holder = subnet.address();
        self.macs.entry(mac).and_modify(|shared| *shared = Shared { dst, peers: shared.peers + 1, holder }).or_insert(Shared {
            dst,
            peers: 1,
            holder,
        });
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
        touch(Key::Fdb(mac));
        let Some(shared) = self.macs.get_mut(&mac) else { return };
        shared.peers -= 1;
        if shared.peers == 0 {
            self.macs.remove(&mac);
        } else if shared.holder == subnet.address() {
            // Rare, and worth a walk: one host with several subnets gave one of them back.
            if let Some((other, _)) = self.peers.iter().find(|(address, far)| far.mac == mac && **address != subnet.address()) {
                shared.holder = *other;
            }
        }
    }

    fn touch(&self, subnet: Subnet, mac: MacAddr, touch: &mut impl FnMut(Key)) {
        touch(Key::Fdb(mac));
        touch(Key::Neighbour(subnet.address()));
        if let Some(key) = self.route_key(subnet) {
            touch(Key::Route(key));
        }
    }

    /// The key of the route to a peer's subnet. None without a VTEP.
    #[must_use]
    pub fn route_key(&self, subnet: Subnet) -> Option<RouteKey> {
        let network = self.vtep.as_ref()?.network;
        Some(RouteKey { prefix: subnet, metric: route_metric(subnet, network) })
    }

    /// Where frames to this MAC should be sent.
    #[must_use]
    pub fn fdb(&self, mac: MacAddr) -> Option<FdbTo> {
        self.vtep.as_ref()?;
        self.macs.get(&mac).map(|shared| FdbTo { dst: shared.dst, plain: true })
    }

    /// The MAC that this neighbour should have.
    #[must_use]
    pub fn neighbour(&self, address: IpAddr) -> Option<MacAddr> {
        self.vtep.as_ref()?;
        self.peers.get(&address).map(|far| far.mac)
    }

    /// Where the route with this key should lead.
    #[must_use]
    pub fn route(&self, key: RouteKey) -> Option<RouteTo> {
        self.peer(key.prefix)?;
        (self.route_key(key.prefix)? == key).then(|| RouteTo {
            gateway: Some(key.prefix.address()),
            onlink: true,
            protocol: ROUTE_PROTOCOL,
            plain: true,
        })
    }

    /// Every key that should be there, in the order of [`Key`].
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let vtep = self.vtep.iter().flat_map(|_| [Key::Forwarding, Key::Device]);
        let fdb = self.macs.keys().map(|mac| Key::Fdb(*mac));
        let neighbours = self.peers.keys().map(|address| Key::Neighbour(*address));
        let routes = self.peers().filter_map(|peer| self.route_key(peer.subnet).map(Key::Route));
        vtep.chain(fdb).chain(neighbours).chain(routes)
    }
}

/// The metric of the route to a subnet: its number within the network, plus one.
///
/// IPv4 routes that differ in nothing but their gateway share one bucket of the kernel's `fib_info` hash (net/ipv4/fib_semantics.c,
/// `fib_info_hashfn_1`, which leaves the gateway out), so that n of them cost O(n²); the metric is part of the hash. It is part of the
/// route's identity too, and so must depend on nothing that changes.
#[must_use]
pub fn route_metric(subnet: Subnet, network: Subnet) -> u32 {
    let index = subnet.index_in(network).unwrap_or(0) % u128::from(u32::MAX);
    u32::try_from(index).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(subnet: &str, mac: &str, dst: &str) -> Peer {
        Peer { subnet: subnet.parse().unwrap(), mac: mac.parse().unwrap(), dst: dst.parse().unwrap() }
    }

    #[test]
    fn a_mac_that_two_subnets_share_goes_with_the_last_of_them() {
        let mut desired = Desired::default();
        let (a, b) = (peer("10.5.1.0/24", "02:00:00:00:00:01", "192.168.0.1"), peer("10.5.2.0/24", "02:00:00:00:00:01", "192.168.0.1"));
        desired.put(a, &mut |_| ());
        desired.put(b, &mut |_| ());
        assert_eq!((desired.len(), desired.macs()), (2, 1));
        desired.del(a.subnet, &mut |_| ());
        assert_eq!(desired.holder(a.mac), Some(b));
        desired.del(b.subnet, &mut |_| ());
        assert_eq!(desired.holder(a.mac), None);
    }

    #[test]
    fn a_changed_mac_touches_the_old_fdb_entry_too() {
        let mut desired = Desired::default();
        desired.put(peer("10.5.1.0/24", "02:00:00:00:00:01", "192.168.0.1"), &mut |_| ());
        let mut touched = Vec::new();
        desired.put(peer("10.5.1.0/24", "02:00:00:00:00:02", "192.168.0.1"), &mut |key| touched.push(key));
        assert!(touched.contains(&Key::Fdb("02:00:00:00:00:01".parse().unwrap())));
        assert!(touched.contains(&Key::Fdb("02:00:00:00:00:02".parse().unwrap())));
    }

    #[test]
    fn overlap_is_found_on_both_sides() {
        let mut desired = Desired::default();
        desired.put(peer("10.5.4.0/22", "02:00:00:00:00:01", "192.168.0.1"), &mut |_| ());
        for (text, overlaps) in
            [("10.5.5.0/24", true), ("10.5.0.0/16", true), ("10.5.3.0/24", false), ("10.5.8.0/24", false), ("10.5.4.0/22", true)]
        {
            assert_eq!(desired.overlapping(text.parse().unwrap()).is_some(), overlaps, "{text}");
        }
    }

    #[test]
    fn the_metric_is_the_subnets_number_plus_one() {
        let network = "10.5.0.0/16".parse().unwrap();
        assert_eq!(route_metric("10.5.52.0/24".parse().unwrap(), network), 53);
        assert_eq!(route_metric("10.5.0.64/26".parse().unwrap(), network), 2);
        assert_eq!(route_metric("fc00:db8:0:53::/64".parse().unwrap(), "fc00:db8::/48".parse().unwrap()), 0x54);
        assert!(route_metric("fc00:db8:ffff:ffff::/64".parse().unwrap(), "fc00::/16".parse().unwrap()) > 0);
    }
}
