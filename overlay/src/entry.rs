//! The entries that lead to the peers: FDB, neighbour, rule, route.

use std::fmt;
use std::net::IpAddr;

use lease::{MacAddr, Subnet};

use crate::device::IfIndex;

/// The routing table that overlay routes go to: `RT_TABLE_MAIN` (include/uapi/linux/rtnetlink.h).
pub const TABLE_MAIN: u32 = 254;

/// What one thing in the kernel is known by. In the order in which things are put; they are deleted the other way round.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Forwarding between interfaces, for the VTEP's address family.
    Forwarding,
    /// The VTEP with its attributes and addresses.
    Device,
    /// The FDB entry of this MAC: where frames to it are sent.
    Fdb(MacAddr),
    /// The neighbour entry of this address: which MAC it has.
    Neighbour(IpAddr),
    /// The rule that leads to a table of routes. While that is empty, the main table is asked as before.
    Rule(RuleKey),
    /// The route with this key.
    Route(RouteKey),
}

/// What of a key is repaired, and fought over. Only the device has more than one aspect: who keeps changing its MTU does not keep its
/// MAC from being put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aspect {
    /// That it is there, and of the right kind.
    Whole,
    /// The device's source address for the tunnel.
    Local,
    /// Whether it learns source addresses.
    Learning,
    /// Its MAC.
    Mac,
    /// Its MTU.
    Mtu,
    /// That it has no link-local address.
    LinkLocal,
    /// That it takes no router advertisements.
    AcceptRa,
    /// Its addresses.
    Addresses,
    /// That it is up.
    Up,
    /// What the kernel drops from it when it goes down or gets another MAC: routes and neighbours, all at once.
    Entries,
}

/// One thing that can be undone by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Matter<K = Key>(pub K, pub Aspect);

impl fmt::Display for Matter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(key, aspect) = self;
        key.fmt(out)?;
        out.write_str(match aspect {
            Aspect::Whole => "",
            Aspect::Local => " local address",
            Aspect::Learning => " learning",
            Aspect::Mac => " MAC",
            Aspect::Mtu => " MTU",
            Aspect::LinkLocal => " addrgenmode",
            Aspect::AcceptRa => " accept_ra",
            Aspect::Addresses => " addresses",
            Aspect::Up => " up",
            Aspect::Entries => " entries",
        })
    }
}

/// What a rule is known by: all of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleKey {
    /// When its turn comes: the lower, the earlier.
    pub priority: u32,
    /// The packets that it is for, by their destination.
    pub to: Subnet,
    /// The table that it has asked.
    pub table: u32,
    /// Whether shorter prefixes than this (bits) do not count in there (`suppress_prefixlength`, less one).
    pub at_least: Option<u8>,
}

/// What a route is known by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// Its destination.
    pub prefix: Subnet,
    /// Its metric (priority); part of the route's identity.
    pub metric: u32,
    /// Its table.
    pub table: u32,
}

/// By what a route leaves this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Through the tunnel: out of the VTEP.
    Tunnel,
    /// Out of this interface.
    Link(IfIndex),
    /// Not at all: its packets are dropped.
    Blackhole,
    /// In another way: by several interfaces, or refused.
    Other,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteTo {
    /// By what it leaves.
    pub way: Way,
    /// Its next hop; none for a route that is directly on the link.
    pub gateway: Option<IpAddr>,
    /// Whether the next hop is taken to be on the link without a check (`onlink`).
    pub onlink: bool,
    /// Who installed it (rtm_protocol).
    pub protocol: u8,
    /// Whether that is all there is to it. False with several next hops, a nexthop object, an encapsulation, metrics, a
    /// preferred source, or another type than unicast and blackhole.
    pub plain: bool,
}

/// Where an FDB entry leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdbTo {
    /// The remote VTEP's address on the underlay.
    pub dst: IpAddr,
    /// Whether that is all there is to it, and it is permanent. False with a port, VNI, or interface of its own.
    pub plain: bool,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, metric, table } = self;
        write!(out, "{prefix} metric {metric}")?;
        if *table == TABLE_MAIN { Ok(()) } else { write!(out, " table {table}") }
    }
}

impl fmt::Display for RuleKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { priority, to, table, at_least } = self;
        write!(out, "to {to} lookup {table}")?;
        if let Some(len) = at_least {
            write!(out, " suppress_prefixlength {}", len.saturating_sub(1))?;
        }
        write!(out, " priority {priority}")
    }
}

impl fmt::Debug for RuleKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Debug for RouteKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forwarding => out.write_str("forwarding"),
            Self::Device => out.write_str("device"),
            Self::Fdb(mac) => write!(out, "fdb {mac}"),
            Self::Neighbour(address) => write!(out, "neighbour {address}"),
            Self::Rule(key) => write!(out, "rule {key}"),
            Self::Route(key) => write!(out, "route {key}"),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}
