//! Reads what hangs on a device: addresses, neighbours, FDB entries and routes; and the rules.
//!
//! The fixed part of a message says whom it concerns. Only what concerns us is decoded whole: fifty thousand entries of others cost
//! little, and one of theirs that the library cannot decode costs nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lease::{MacAddr, Subnet};
use netlink_packet_core::{DecodeError, Emitable, NLM_F_REPLACE, NlasIterator, ParseableParametrized, parse_ip};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeader, AddressMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteLwEnCapType, RouteMessage, RoutePreference, RouteProtocol, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::wire::{Message, decode};
use crate::{FdbTo, IfIndex, ROUTE_PROTOCOL, RouteKey, RouteTo, RuleKey, Way};

/// What stands for a table whose number is too large for a header (`RT_TABLE_COMPAT`, include/uapi/linux/rtnetlink.h).
const RT_TABLE_COMPAT: u32 = 252;

/// What the kernel says of a rule that suppresses nothing (`fib_nl_fill_rule`, net/core/fib_rules.c, v6.18).
const NO_SUPPRESSION: u32 = u32::MAX;

/// An address of an interface.
pub(super) struct Address {
    pub(super) index: IfIndex,
    pub(super) address: IpAddr,
    /// What it is deleted by. Of IPv4, that is the other end's where the two differ: `inet_rtm_deladdr`
    /// (net/ipv4/devinet.c, v6.18) matches `IFA_ADDRESS` and the length; `inet6_addr_del` the interface's own.
    pub(super) handle: IpAddr,
    pub(super) len: u8,
    pub(super) flags: AddressFlags,
    /// `RT_SCOPE_*` (rtnetlink.h): how far the address is known; the narrower, the larger.
    pub(super) scope: u8,
}

/// Whose address a message is about, and whether it is an IPv4 one.
pub(super) fn address_of(message: &Message<'_>) -> Result<(IfIndex, bool), DecodeError> {
    AddressHeader::parse(message.payload()).map(|header| (IfIndex(header.index), header.family == AddressFamily::Inet))
}

/// Reads an address message, if it is of this interface or any is asked for. `IFA_LOCAL` is the interface's own where it differs from
/// the peer's (if_addr.h).
pub(super) fn address(message: &Message<'_>, of: Option<IfIndex>) -> Result<Option<Address>, DecodeError> {
    let header = AddressHeader::parse(message.payload())?;
    let ip = matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6);
    if !ip || of.is_some_and(|index| index.0 != header.index) {
        return Ok(None);
    }
    let (RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message)) = decode(message)? else { return Ok(None) };
    let AddressMessage { attributes, .. } = message;
    let (mut own, mut peer, mut flags) = (None, None, AddressFlags::from_bits_retain(header.flags.bits().into()));
    for attribute in attributes {
        match attribute {
            AddressAttribute::Local(address) => own = Some(address),
            AddressAttribute::Address(address) => peer = Some(address),
            AddressAttribute::Flags(all) => flags = all,
            _ => {}
        }
    }
    let address = own.or(peer).ok_or("an address message has no address")?;
    let handle = if address.is_ipv4() { peer.unwrap_or(address) } else { address };
    Ok(Some(Address { index: IfIndex(header.index), address, handle, len: header.prefix_len, flags, scope: header.scope.into() }))
}

/// A neighbour or an FDB entry: what is there under its key now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Neighbour {
    /// Which MAC an address has, as a permanent entry.
    Ip(IpAddr, Option<MacAddr>),
    /// Where frames to a MAC are sent, as an entry that was not learned.
    Fdb(MacAddr, Option<FdbTo>),
}

/// Reads a neighbour or FDB message, if it is of this device. Neighbours of the other family, multicast and proxy entries, and
/// FDB entries that are another's (a bridge's) or lead nowhere are none of ours.
pub(super) fn neighbour(message: &Message<'_>, device: IfIndex, ipv6: bool) -> Result<Option<Neighbour>, DecodeError> {
    let header = NeighbourHeader::parse(message.payload())?;
    let ours = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let fdb = header.family == AddressFamily::Bridge;
    if header.ifindex != device.0 || (header.family != ours && !fdb) || header.flags.contains(NeighbourFlags::Proxy) {
        return Ok(None);
    }
    let (there, NeighbourMessage { attributes, .. }) = match decode(message)? {
        RouteNetlinkMessage::NewNeighbour(message) => (true, message),
        RouteNetlinkMessage::DelNeighbour(message) => (false, message),
        _ => return Ok(None),
    };
    let (mut address, mut mac, mut bare) = (None, None, true);
    for attribute in attributes {
        match attribute {
            NeighbourAttribute::Destination(to) => address = Some(neighbour_address(to)?),
            NeighbourAttribute::LinkLayerAddress(octets) => mac = octets.try_into().ok().map(MacAddr::new),
            NeighbourAttribute::CacheInfo(_) | NeighbourAttribute::LinkNetNsId(_) => {}
            _ => bare = false,
        }
    }
    let permanent = is(header.state, NeighbourState::Permanent);
    if fdb {
        let Some((mac, dst)) = mac.zip(address) else { return Ok(None) };
        let ours = header.flags.contains(NeighbourFlags::Own);
        let there = there && (permanent || is(header.state, NeighbourState::Noarp));
        let to = there.then_some(FdbTo { dst, plain: permanent && bare && header.flags == NeighbourFlags::Own });
        Ok(ours.then_some(Neighbour::Fdb(mac, to)))
    } else {
        let address = address.ok_or("a neighbour has no address")?;
        Ok((!address.is_multicast()).then_some(Neighbour::Ip(address, mac.filter(|_| there && permanent))))
    }
}

/// The kernel's state is a set of bits, of which the library has a name for each but not for several.
fn is(state: NeighbourState, bit: NeighbourState) -> bool {
    u16::from(state) & u16::from(bit) != 0
}

/// The library does not know that the bridge family's destinations are IP addresses.
fn neighbour_address(address: NeighbourAddress) -> Result<IpAddr, DecodeError> {
    match address {
        NeighbourAddress::Inet(address) => Ok(address.into()),
        NeighbourAddress::Inet6(address) => Ok(address.into()),
        NeighbourAddress::Other(bytes) => parse_ip(&bytes),
        _ => Err("a neighbour's address is no IP address".into()),
    }
}

/// A rule of ours, if it is one: it carries our protocol number, is for a part of the network, and says no more than we say.
pub(super) fn rule(message: &Message<'_>, network: Subnet) -> Result<Option<RuleKey>, DecodeError> {
    let (RouteNetlinkMessage::NewRule(message) | RouteNetlinkMessage::DelRule(message)) = decode(message)? else { return Ok(None) };
    let RuleMessage { header, attributes, .. } = message;
    let (mut to, mut priority, mut table, mut suppress, mut protocol) = (None, 0, u32::from(header.table), NO_SUPPRESSION, None);
    for attribute in attributes {
        match attribute {
            RuleAttribute::Destination(address) => to = Some(address),
            RuleAttribute::Priority(number) => priority = number,
            RuleAttribute::Table(number) => table = number,
            RuleAttribute::SuppressPrefixLen(len) => suppress = len,
            RuleAttribute::Protocol(number) => protocol = Some(u8::from(number)),
            _ => return Ok(None),
        }
    }
    let bare = (header.action, header.src_len, header.tos) == (RuleAction::ToTable, 0, 0) && header.flags.is_empty();
    let to = to.and_then(|to| Subnet::new(to, header.dst_len).ok()).filter(|to| network.covers(*to));
    let at_least = if suppress == NO_SUPPRESSION { None } else { u8::try_from(suppress.saturating_add(1)).ok() };
    Ok(to.filter(|_| bare && protocol == Some(ROUTE_PROTOCOL)).map(|to| RuleKey { priority, to, table, at_least }))
}

/// What of the routes is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight<'a> {
    pub(super) network: Subnet,
    pub(super) device: Option<IfIndex>,
    pub(super) tables: &'a BTreeSet<u32>,
}

/// A route of a table that is looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) key: RouteKey,
    pub(super) to: RouteTo,
    /// Whether it is out of the device, or carries our protocol number and is for a part of the network.
    pub(super) ours: bool,
    /// Whether it came in the place of the one that had its key, of which the kernel tells nothing more.
    pub(super) replaced: bool,
}

/// Whether a message is of a route that the kernel has made up for one packet (`RTM_F_CLONED`).
pub(super) fn is_cloned(message: &Message<'_>) -> Result<bool, DecodeError> {
    Ok(RouteHeader::parse(message.payload())?.flags.contains(RouteFlags::Cloned))
}

/// Reads a route message. The kernel's own routes, cached ones, those of other tables, those for a traffic class, and those that cannot
/// be decoded and are not ours are left out.
pub(super) fn route(message: &Message<'_>, sight: Sight<'_>) -> Result<Option<Route>, DecodeError> {
    let Sight { network, device, tables } = sight;
    let header = RouteHeader::parse(message.payload())?;
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Ok(None),
    };
    // A table whose number does not fit the header has another there (`fib_dump_info`, net/ipv4/fib_semantics.c, v6.18).
    let short = u32::from(header.table);
    let looked_at = tables.contains(&short) || (short == RT_TABLE_COMPAT && tables.iter().any(|table| *table > u32::from(u8::MAX)));
    if !looked_at || header.protocol == RouteProtocol::Kernel || header.tos != 0 || header.flags.contains(RouteFlags::Cloned) {
        return Ok(None);
    }
    let replaced = message.flags() & NLM_F_REPLACE != 0;
    let protocol = u8::from(header.protocol);
    let attributes = match decode(message) {
        Ok(
            RouteNetlinkMessage::NewRoute(RouteMessage { attributes, .. }) | RouteNetlinkMessage::DelRoute(RouteMessage { attributes, .. }),
        ) => attributes,
        Ok(_) => return Ok(None),
        // One that came in the place of another may have come in the place of ours.
        Err(error) => {
            let may_be_ours = replaced || protocol == ROUTE_PROTOCOL || leaves_by(message, &header, device);
            return if may_be_ours { Err(error) } else { Ok(None) };
        }
    };
    let (unicast, blackhole) = (header.kind == RouteType::Unicast, header.kind == RouteType::BlackHole);
    let (mut prefix, mut metric, mut table, mut out, mut gateway) = (any, 0, short, None, None);
    let mut plain = (unicast || blackhole) && header.source_prefix_length == 0;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Destination(address) => prefix = route_address(&address)?,
            RouteAttribute::Priority(priority) => metric = priority,
            RouteAttribute::Oif(index) => out = Some(IfIndex(index)),
            RouteAttribute::Gateway(address) => gateway = Some(route_address(&address)?),
            RouteAttribute::Table(number) => table = number,
            // Neutral unless it says that the route expires or is preferred (RFC 4191).
            RouteAttribute::CacheInfo(cache) => plain &= cache.expires == 0,
            RouteAttribute::Preference(preference) => plain &= preference == RoutePreference::Medium,
            _ => plain = false,
        }
    }
    if !tables.contains(&table) {
        return Ok(None);
    }
    let prefix = Subnet::new(prefix, header.destination_prefix_length).map_err(|_| "a route's destination is no prefix")?;
    let way = match out {
        _ if blackhole => Way::Blackhole,
        Some(index) if Some(index) == device => Way::Tunnel,
        Some(index) if unicast => Way::Link(index),
        _ => Way::Other,
    };
    let to = RouteTo { way, gateway, onlink: header.flags.contains(RouteFlags::Onlink), protocol, plain };
    let ours = way == Way::Tunnel || (protocol == ROUTE_PROTOCOL && network.covers(prefix));
    Ok(Some(Route { key: RouteKey { prefix, metric, table }, to, ours, replaced }))
}

/// What the kernel's answer to the question for a way says: by which interface, where no gateway is between.
pub(super) fn near(message: &Message<'_>) -> Result<Option<IfIndex>, DecodeError> {
    let RouteNetlinkMessage::NewRoute(RouteMessage { header, attributes, .. }) = decode(message)? else { return Ok(None) };
    let mut out = None;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => out = Some(IfIndex(index)),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) => return Ok(None),
            _ => {}
        }
    }
    // To ourselves, to many, or refused are other kinds.
    Ok(out.filter(|_| header.kind == RouteType::Unicast))
}

/// Whether a route that cannot be decoded as a whole is one out of this device, or may be.
fn leaves_by(message: &Message<'_>, header: &RouteHeader, device: Option<IfIndex>) -> bool {
    let param = (header.address_family, header.kind, RouteLwEnCapType::None);
    let attributes = message.payload().get(header.buffer_len()..).unwrap_or_default();
    NlasIterator::new(attributes).any(|attribute| match attribute.map(|attribute| RouteAttribute::parse_with_param(&attribute, param)) {
        Ok(Ok(RouteAttribute::Oif(index))) => Some(IfIndex(index)) == device,
        Ok(_) => false,
        Err(_) => device.is_some(),
    })
}

/// A route's destination, gateway or source as an IP address.
pub(super) fn route_address(address: &RouteAddress) -> Result<IpAddr, DecodeError> {
    match address {
        RouteAddress::Inet(address) => Ok((*address).into()),
        RouteAddress::Inet6(address) => Ok((*address).into()),
        _ => Err("a route's address is no IP address".into()),
    }
}
