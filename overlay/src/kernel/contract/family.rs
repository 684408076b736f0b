//! The two address families, and the made-up hosts that tests use in each.

use std::net::IpAddr;

use lease::{MacAddr, Mtu, Subnet, Vni};

use crate::kernel::Scope;
use crate::{ELSEWHERE_INDEX, Ground, Op, RouteKey, RouteTo, TABLE_MAIN, VtepSpec, Way};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// One word or the other.
    #[must_use]
    pub fn pick<T>(self, v4: T, v6: T) -> T {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }

    /// The VTEP's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.pick("flannel.1", "flannel-v6.1")
    }

    /// The option that makes `ip` speak of it.
    #[must_use]
    pub fn ip(self) -> &'static str {
        self.pick("-4", "-6")
    }

    /// The overlay network.
    #[must_use]
    pub fn network(self) -> Subnet {
        self.pick("10.0.0.0/8", "fc00::/16").parse().unwrap()
    }

    /// The underlay address of the nth host.
    #[must_use]
    pub fn underlay(self, n: u32) -> IpAddr {
        let first: IpAddr = self.pick("172.16.0.0", "fd00::").parse().unwrap();
        Subnet::host(first).nth(u128::from(n)).unwrap()
    }

    /// The subnet of the nth host.
    #[must_use]
    pub fn subnet(self, n: u32) -> Subnet {
        let (len, shift) = self.pick((24, 8), (64, 64));
        Subnet::new(self.network().nth(u128::from(n) << shift).unwrap(), len).unwrap()
    }

    /// The MAC of the nth host's VTEP.
    #[must_use]
    pub fn mac(self, n: u32) -> MacAddr {
        let [a, b, c, d] = n.to_be_bytes();
        MacAddr::new([0x02, 0x42, a, b, c, d])
    }

    /// The route to the nth host's subnet.
    #[must_use]
    pub fn route(self, n: u32) -> (RouteKey, RouteTo) {
        let prefix = self.subnet(n);
        let to = RouteTo { way: Way::Tunnel, gateway: Some(prefix.address()), onlink: true, protocol: 76, plain: true };
        (RouteKey { prefix, metric: n + 1, table: TABLE_MAIN }, to)
    }

    /// Where that route leads when the nth host is reached directly, out of [`ELSEWHERE`](crate::ELSEWHERE).
    #[must_use]
    pub fn direct(self, n: u32) -> RouteTo {
        RouteTo { way: Way::Link(ELSEWHERE_INDEX), gateway: Some(self.underlay(n)), onlink: false, protocol: 76, plain: true }
    }

    /// The route that drops what no container of ours has.
    #[must_use]
    pub fn blackhole(self) -> (RouteKey, RouteTo) {
        let to = RouteTo { way: Way::Blackhole, gateway: None, onlink: false, protocol: 76, plain: true };
        (RouteKey { prefix: self.subnet(1), metric: u32::MAX, table: TABLE_MAIN }, to)
    }

    /// The entries for the nth host.
    #[must_use]
    pub fn puts(self, n: u32) -> [Op; 3] {
        let (key, to) = self.route(n);
        [
            Op::PutFdb { mac: self.mac(n), dst: self.underlay(n) },
            Op::PutNeighbour { address: self.subnet(n).address(), mac: self.mac(n) },
            Op::PutRoute { key, to, replace: false },
        ]
    }

    /// Their deletion.
    #[must_use]
    pub fn dels(self, n: u32) -> [Op; 3] {
        let (key, to) = self.route(n);
        [Op::DelRoute { key, to }, Op::DelNeighbour { address: self.subnet(n).address() }, Op::DelFdb { mac: self.mac(n) }]
    }

    /// The VTEP of host number 1.
    #[must_use]
    pub fn spec(self) -> VtepSpec {
        VtepSpec {
            name: self.name().to_owned(),
            vni: Vni::new(1).unwrap(),
            port: 8472,
            local: self.underlay(1),
            gbp: false,
            learning: false,
            mac: self.mac(1),
            mtu: Mtu(1450),
            address: self.subnet(1).address(),
            network: self.network(),
        }
    }

    /// The length in bits of one address as a prefix.
    #[must_use]
    pub fn full_mask(self) -> u8 {
        self.pick(32, 128)
    }

    /// What makes that VTEP.
    #[must_use]
    pub fn create(self) -> Vec<Op> {
        let spec = self.spec();
        let address = spec.address;
        vec![Op::CreateDevice(Box::new(spec)), Op::DisableLinkLocal, Op::DisableAcceptRa, Op::PutAddress(address), Op::SetUp]
    }

    /// All through that VTEP.
    #[must_use]
    pub fn ground(self) -> Ground {
        Ground::tunnel(self.spec(), self.subnet(1))
    }

    /// What is looked at.
    #[must_use]
    pub fn scope(self) -> Scope {
        Scope::of(&self.ground(), None)
    }
}
