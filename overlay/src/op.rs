//! One change to the kernel, and the command that it equals.

use std::fmt;
use std::net::IpAddr;

use lease::{MacAddr, Mtu};

use crate::desired::ROUTE_PROTOCOL;
use crate::device::VtepSpec;
use crate::entry::{Aspect, Key, RouteKey, RouteTo, RuleKey, TABLE_MAIN, Way};

/// One change to the kernel. Every `Put` is idempotent but for a new route; deleting what is gone is success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Switches forwarding on for the address family.
    EnableForwarding {
        /// IPv6 instead of IPv4.
        ipv6: bool,
    },
    /// Creates the device, down, with all its attributes in one message.
    CreateDevice(Box<VtepSpec>),
    /// Deletes the device with all that hangs on it.
    DelDevice,
    /// Changes the tunnel's source address in place.
    SetLocal(IpAddr),
    /// Switches learning of source addresses on or off in place.
    SetLearning(bool),
    /// Changes the hardware address. While the device is up the kernel flushes its neighbour entries.
    SetMac(MacAddr),
    /// Changes the MTU.
    SetMtu(Mtu),
    /// Keeps the kernel from giving the device an IPv6 link-local address.
    DisableLinkLocal,
    /// Keeps the device from taking router advertisements.
    DisableAcceptRa,
    /// Puts an address with a full mask.
    PutAddress(IpAddr),
    /// Deletes an address.
    DelAddress {
        /// The address.
        address: IpAddr,
        /// Its prefix length in bits.
        len: u8,
    },
    /// Sets the device up.
    SetUp,
    /// Puts an FDB entry, over another for the same MAC.
    PutFdb {
        /// The remote VTEP's MAC.
        mac: MacAddr,
        /// Its address on the underlay.
        dst: IpAddr,
    },
    /// Deletes the FDB entry of a MAC.
    DelFdb {
        /// The remote VTEP's MAC.
        mac: MacAddr,
    },
    /// Puts a permanent neighbour entry, over another for the same address.
    PutNeighbour {
        /// The remote subnet's network address.
        address: IpAddr,
        /// The remote VTEP's MAC.
        mac: MacAddr,
    },
    /// Deletes a neighbour entry.
    DelNeighbour {
        /// The remote subnet's network address.
        address: IpAddr,
    },
    /// Puts a rule with our protocol number.
    PutRule(RuleKey),
    /// Deletes a rule with our protocol number.
    DelRule(RuleKey),
    /// Puts a route.
    PutRoute {
        /// Destination, metric and table.
        key: RouteKey,
        /// Way, next hop and protocol.
        to: RouteTo,
        /// Whether one of ours with the same key is replaced. If not, one that is there, whosever it is, is an error.
        replace: bool,
    },
    /// Deletes a route.
    DelRoute {
        /// Destination, metric and table.
        key: RouteKey,
        /// Where it leads: way, protocol and, off the device, next hop have to be the same. To the kernel a metric of 0 means any: without
        /// this it would take the next best along, once the one that was meant is gone.
        to: RouteTo,
    },
}

impl Op {
    /// What it changes.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::EnableForwarding { .. } => Key::Forwarding,
            Self::CreateDevice(_)
            | Self::DelDevice
            | Self::SetLocal(_)
            | Self::SetLearning(_)
            | Self::SetMac(_)
            | Self::SetMtu(_)
            | Self::DisableLinkLocal
            | Self::DisableAcceptRa
            | Self::PutAddress(_)
            | Self::DelAddress { .. }
            | Self::SetUp => Key::Device,
            Self::PutFdb { mac, .. } | Self::DelFdb { mac } => Key::Fdb(*mac),
            Self::PutNeighbour { address, .. } | Self::DelNeighbour { address } => Key::Neighbour(*address),
            Self::PutRule(key) | Self::DelRule(key) => Key::Rule(*key),
            Self::PutRoute { key, .. } | Self::DelRoute { key, .. } => Key::Route(*key),
        }
    }

    /// What of that.
    #[must_use]
    pub fn aspect(&self) -> Aspect {
        match self {
            Self::SetLocal(_) => Aspect::Local,
            Self::SetLearning(_) => Aspect::Learning,
            Self::SetMac(_) => Aspect::Mac,
            Self::SetMtu(_) => Aspect::Mtu,
            Self::DisableLinkLocal => Aspect::LinkLocal,
            Self::DisableAcceptRa => Aspect::AcceptRa,
            Self::PutAddress(_) | Self::DelAddress { .. } => Aspect::Addresses,
            Self::SetUp => Aspect::Up,
            Self::EnableForwarding { .. }
            | Self::CreateDevice(_)
            | Self::DelDevice
            | Self::PutFdb { .. }
            | Self::DelFdb { .. }
            | Self::PutNeighbour { .. }
            | Self::DelNeighbour { .. }
            | Self::PutRule(_)
            | Self::DelRule(_)
            | Self::PutRoute { .. }
            | Self::DelRoute { .. } => Aspect::Whole,
        }
    }

    /// Prints as the `ip`, `bridge` or `sysctl` command that does the same to the device of this name.
    #[must_use]
    pub fn on<'a>(&'a self, device: &'a str) -> impl fmt::Display + 'a {
        OnDevice { op: self, device }
    }
}

struct OnDevice<'a> {
    op: &'a Op,
    device: &'a str,
}

impl fmt::Display for OnDevice<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, device } = self;
        match op {
            Op::EnableForwarding { ipv6: false } => write!(out, "sysctl -w net.ipv4.ip_forward=1"),
            Op::EnableForwarding { ipv6: true } => write!(out, "sysctl -w net.ipv6.conf.all.forwarding=1"),
            Op::CreateDevice(spec) => {
                let VtepSpec { name, vni, port, local, gbp, learning, mac, mtu, address: _, network: _ } = spec.as_ref();
                let learning = if *learning { "learning" } else { "nolearning" };
                write!(out, "ip link add {name} mtu {mtu} address {mac} type vxlan id {vni} local {local} dstport {port} {learning}")?;
                if *gbp { out.write_str(" gbp") } else { Ok(()) }
            }
            Op::DelDevice => write!(out, "ip link del {device}"),
            Op::SetLocal(local) => write!(out, "ip link set {device} type vxlan local {local}"),
            Op::SetLearning(true) => write!(out, "ip link set {device} type vxlan learning"),
            Op::SetLearning(false) => write!(out, "ip link set {device} type vxlan nolearning"),
            Op::SetMac(mac) => write!(out, "ip link set {device} address {mac}"),
            Op::SetMtu(mtu) => write!(out, "ip link set {device} mtu {mtu}"),
            Op::DisableLinkLocal => write!(out, "ip link set {device} addrgenmode none"),
            Op::DisableAcceptRa => write!(out, "sysctl -w net/ipv6/conf/{device}/accept_ra=0"),
            Op::PutAddress(address) => {
                let (len, nodad) = if address.is_ipv4() { (32, "") } else { (128, " nodad") };
                write!(out, "ip address replace {address}/{len} dev {device}{nodad}")
            }
            Op::DelAddress { address, len } => write!(out, "ip address del {address}/{len} dev {device}"),
            Op::SetUp => write!(out, "ip link set {device} up"),
            Op::PutFdb { mac, dst } => write!(out, "bridge fdb replace {mac} dev {device} dst {dst} self permanent"),
            Op::DelFdb { mac } => write!(out, "bridge fdb del {mac} dev {device} self"),
            Op::PutNeighbour { address, mac } => write!(out, "ip neighbour replace {address} lladdr {mac} dev {device} nud permanent"),
            Op::DelNeighbour { address } => write!(out, "ip neighbour del {address} dev {device}"),
            Op::PutRule(key) => write!(out, "{} add {key} protocol {ROUTE_PROTOCOL}", ip_rule(key)),
            Op::DelRule(key) => write!(out, "{} del {key} protocol {ROUTE_PROTOCOL}", ip_rule(key)),
            Op::PutRoute { key, to, replace } => {
                let verb = if *replace { "replace" } else { "add" };
                route(out, verb, key, to, device)
            }
            Op::DelRoute { key, to } => {
                let gateway = to.gateway.filter(|_| to.way != Way::Tunnel);
                route(out, "del", key, &RouteTo { gateway, onlink: false, ..*to }, device)
            }
        }
    }
}

/// Of which family a rule is, has to be said.
fn ip_rule(key: &RuleKey) -> &'static str {
    if key.to.is_ipv4() { "ip rule" } else { "ip -6 rule" }
}

/// A direct route is printed without its interface, which is the one that the kernel finds by itself.
fn route(out: &mut fmt::Formatter<'_>, verb: &str, key: &RouteKey, to: &RouteTo, device: &str) -> fmt::Result {
    let RouteKey { prefix, metric, table } = key;
    let RouteTo { way, gateway, onlink, protocol, plain: _ } = to;
    let kind = if *way == Way::Blackhole { "blackhole " } else { "" };
    write!(out, "ip route {verb} {kind}{prefix}")?;
    if let Some(gateway) = gateway {
        write!(out, " via {gateway}")?;
    }
    if *way == Way::Tunnel {
        write!(out, " dev {device}")?;
    }
    if *onlink {
        out.write_str(" onlink")?;
    }
    write!(out, " proto {protocol} metric {metric}")?;
    if *table == TABLE_MAIN { Ok(()) } else { write!(out, " table {table}") }
}
