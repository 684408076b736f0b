//! The VTEP device: as it should be, and as the kernel has it.

use std::fmt;
use std::net::IpAddr;

use lease::{MacAddr, Mtu, Subnet, Vni};

/// An interface's index, unique within its network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfIndex(pub u32);

impl fmt::Display for IfIndex {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// The VTEP as it should be: unbound (no parent device), so that no change of the underlay's device takes it along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VtepSpec {
    /// `flannel.<VNI>`, or `flannel-v6.<VNI>`.
    pub name: String,
    /// VXLAN network identifier.
    pub vni: Vni,
    /// UDP destination port.
    pub port: u16,
    /// Source address of the tunnel's packets.
    pub local: IpAddr,
    /// Group-based policy extension.
    pub gbp: bool,
    /// Whether the device learns source addresses.
    pub learning: bool,
    /// Its own address, which the other hosts know from our lease.
    pub mac: MacAddr,
    /// Its MTU: the underlay's less the tunnel's overhead.
    pub mtu: Mtu,
    /// The network address of our subnet, which it bears with a full mask.
    pub address: IpAddr,
    /// The whole overlay network. Other addresses of it do not belong on the device.
    pub network: Subnet,
}

/// A device as the kernel has it, under the VTEP's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub index: IfIndex,
    /// What kind of device it is.
    pub kind: Kind,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its MTU.
    pub mtu: Mtu,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Whether the kernel gives it no IPv6 link-local address (`addrgenmode none`).
    pub no_link_local: bool,
    /// Whether it takes router advertisements; none where that cannot be read (IPv6 switched off).
    pub accept_ra: Option<bool>,
    /// Whether its packets are handed on by kernel threads (threaded NAPI), under which a VXLAN device stops receiving; none where that
    /// cannot be seen.
    pub threaded: Option<bool>,
}

/// What kind of device stands under the VTEP's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A VXLAN device.
    Vxlan(Vxlan),
    /// Some other device, by the kernel's name for its kind (`veth`, `dummy`, …; empty for a physical one).
    Other(String),
}

/// A VXLAN device's own settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// VXLAN network identifier.
    pub vni: Vni,
    /// UDP destination port.
    pub port: u16,
    /// Source address of the tunnel's packets, where one is set.
    pub local: Option<IpAddr>,
    /// The device that it is bound to, and that takes it along when it goes.
    pub parent: Option<IfIndex>,
    /// Whether it learns source addresses.
    pub learning: bool,
    /// Group-based policy extension.
    pub gbp: bool,
    /// Metadata mode (`external`), which is of no use to us.
    pub external: bool,
}
