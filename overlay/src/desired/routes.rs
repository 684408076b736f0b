//! Where the routes to the peers should lead, and what they are known by.

use std::net::IpAddr;

use lease::Subnet;

use super::{Desired, ROUTE_PROTOCOL};
use crate::entry::{RouteKey, RouteTo, TABLE_MAIN, Way};
use crate::ground::Direct;

/// The key of the route that flanneld makes to a direct peer's subnet.
pub(crate) fn flannelds_key(prefix: Subnet) -> RouteKey {
    RouteKey { prefix, metric: if prefix.is_ipv4() { 0 } else { IP6_RT_PRIO_USER }, table: TABLE_MAIN }
}

/// Who makes a route with `ip route`, and says nothing else (include/uapi/linux/rtnetlink.h).
const RTPROT_BOOT: u8 = 3;

/// The metric of an IPv6 route that was made without one (`IP6_RT_PRIO_USER`, include/uapi/linux/ipv6_route.h).
const IP6_RT_PRIO_USER: u32 = 1024;

impl Desired {
    /// The key of the route to a peer's subnet: the same for each way, so that one replaces the other in one step.
    #[must_use]
    pub fn route_key(&self, subnet: Subnet) -> RouteKey {
        RouteKey { prefix: subnet, metric: route_metric(subnet, self.ground.network), table: self.ground.table_id() }
    }

    /// Where the route with this key should lead.
    #[must_use]
    pub fn route(&self, key: RouteKey) -> Option<RouteTo> {
        let to = |way, gateway| Some(RouteTo { way, gateway, onlink: way == Way::Tunnel, protocol: ROUTE_PROTOCOL, plain: true });
        if self.ground.blackhole_key() == Some(key) {
            return to(Way::Blackhole, None);
        }
        let far = self.peers.get(&key.prefix.address()).filter(|far| far.len == key.prefix.len() && self.route_key(key.prefix) == key)?;
        match self.near(far.dst) {
            Some(index) => to(Way::Link(index), Some(far.dst)),
            None if self.is_tunnelled(far) => to(Way::Tunnel, Some(key.prefix.address())),
            None => None,
        }
    }

    /// The address of the peer whose route this is, where that has to be a direct one and cannot be.
    #[must_use]
    pub fn out_of_reach(&self, key: RouteKey) -> Option<IpAddr> {
        let peer = self.peer(key.prefix).filter(|_| self.ground.direct == Direct::Always && self.route_key(key.prefix) == key)?;
        self.near(peer.dst).is_none().then_some(peer.dst)
    }

    /// Whether a route that does not carry our protocol number is one that flanneld made for a direct peer and left behind: by its form
    /// (`directRouting` of flannel's route network: only destination, next hop and interface are set), to exactly that peer.
    #[must_use]
    pub fn is_flannelds(&self, key: RouteKey, to: RouteTo) -> bool {
        let RouteTo { way, gateway, onlink: _, protocol, plain } = to;
        let form = plain && protocol == RTPROT_BOOT && matches!(way, Way::Link(_)) && key == flannelds_key(key.prefix);
        form && self.ground.direct != Direct::Never && self.peer(key.prefix).is_some_and(|peer| gateway == Some(peer.dst))
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

    #[test]
    fn the_metric_is_the_subnets_number_plus_one() {
        let network = "10.5.0.0/16".parse().unwrap();
        assert_eq!(route_metric("10.5.52.0/24".parse().unwrap(), network), 53);
        assert_eq!(route_metric("10.5.0.64/26".parse().unwrap(), network), 2);
        assert_eq!(route_metric("fc00:db8:0:53::/64".parse().unwrap(), "fc00:db8::/48".parse().unwrap()), 0x54);
        assert!(route_metric("fc00:db8:ffff:ffff::/64".parse().unwrap(), "fc00::/16".parse().unwrap()) > 0);
    }
}
