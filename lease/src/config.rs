//! The network configuration that all hosts share.

mod error;
mod parse;

use std::fmt;

pub use error::ConfigError;

use crate::{Family, LeaseKey, Mtu, Subnet, Vni};

/// The network configuration, validated: what stands under `<prefix>/config`. It is read with [`str::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Where IPv4 subnets come from; none when IPv4 is off.
    pub v4: Option<Pool>,
    /// Where IPv6 subnets come from; none when IPv6 is off. One of the two is on.
    pub v6: Option<Pool>,
    /// Whether filter rules are written in nftables' own form.
    pub nftables: bool,
    /// How traffic is carried.
    pub backend: Backend,
}

/// The subnets that hosts can lease, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// The whole overlay network.
    pub network: Subnet,
    /// The length in bits of one host's subnet.
    pub subnet_len: u8,
    /// The first subnet that may be leased.
    pub min: Subnet,
    /// The last subnet that may be leased.
    pub max: Subnet,
}

/// How traffic is carried between hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// In VXLAN.
    Vxlan(VxlanConfig),
    /// By routes alone.
    HostGw,
    /// Not at all: lease and subnet file only.
    Alloc,
}

/// The VXLAN backend's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VxlanConfig {
    /// The network identifier; 1 by default.
    pub vni: Vni,
    /// UDP destination port. 8472, the kernel's own, where the configuration says 0 or nothing.
    pub port: u16,
    /// Group-based policy extension.
    pub gbp: bool,
    /// Whether the device learns source addresses.
    pub learning: bool,
    /// Whether peers on the same link are reached by a plain route.
    pub direct_routing: bool,
    /// The outer MTU, where it is not to be the underlay's.
    pub mtu: Option<Mtu>,
}

impl NetworkConfig {
    /// Where the subnets of a family come from; none where it is off.
    #[must_use]
    pub fn pool(&self, family: Family) -> Option<Pool> {
        family.pick(self.v4, self.v6)
    }

    /// The overlay networks of the families that are on: IPv4's first.
    pub fn networks(&self) -> impl Iterator<Item = Subnet> + '_ {
        self.families().filter_map(|family| Some(self.pool(family)?.network))
    }

    /// The families that are on: IPv4 first.
    pub fn families(&self) -> impl Iterator<Item = Family> + '_ {
        Family::ALL.into_iter().filter(|family| self.pool(*family).is_some())
    }

    /// The same for hosts that are given their subnets: it does not say then how large those are, or which may be chosen.
    #[must_use]
    pub fn for_assigned(self) -> Self {
        let Self { v4, v6, .. } = self;
        Self { v4: v4.map(Pool::whole), v6: v6.map(Pool::whole), ..self }
    }

    /// Whether a lease of this key is one that this configuration hands out: the same families, and each subnet from its pool.
    #[must_use]
    pub fn admits(&self, key: LeaseKey) -> bool {
        let fits = |pool: Option<Pool>, subnet: Option<Subnet>| match (pool, subnet) {
            (Some(pool), Some(subnet)) => pool.admits(subnet),
            (None, None) => true,
            _ => false,
        };
        fits(self.v4, key.v4()) && fits(self.v6, key.v6())
    }
}

impl Pool {
    /// As large as its network: any subnet of that may be a host's.
    fn whole(self) -> Self {
        let Self { network, subnet_len: _, min: _, max: _ } = self;
        Self { network, subnet_len: network.len(), min: network, max: network }
    }

    /// Whether the subnet has the right length and lies between the first and the last.
    #[must_use]
    pub fn admits(&self, subnet: Subnet) -> bool {
        let bounds = self.index_of(self.min).zip(self.index_of(self.max));
        let index = self.index_of(subnet);
        index.zip(bounds).is_some_and(|(index, (min, max))| (min..=max).contains(&index))
    }

    /// How many subnets there are to lease.
    #[must_use]
    pub fn size(&self) -> u128 {
        self.index_of(self.min).zip(self.index_of(self.max)).map_or(0, |(min, max)| max - min + 1)
    }

    /// The subnet's number, counted from the start of the network; none where it is not one of its subnets.
    #[must_use]
    pub fn index_of(&self, subnet: Subnet) -> Option<u128> {
        if subnet.len() == self.subnet_len { subnet.index_in(self.network) } else { None }
    }

    /// The subnet with this number; none behind the network's end.
    #[must_use]
    pub fn at(&self, index: u128) -> Option<Subnet> {
        let step = 1_u128.checked_shl(u32::from(self.network.bits() - self.subnet_len))?;
        let subnet = Subnet::new(self.network.nth(index.checked_mul(step)?)?, self.subnet_len).ok()?;
        self.network.covers(subnet).then_some(subnet)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Vxlan(_) => "vxlan",
            Self::HostGw => "host-gw",
            Self::Alloc => "alloc",
        })
    }
}

#[cfg(test)]
mod tests;
