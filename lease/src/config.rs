//! The network configuration that all hosts share.

use crate::{Mtu, Subnet, Vni};

/// The network configuration, validated: what stands under `<prefix>/config`.
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
