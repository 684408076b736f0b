//! Decodes what hangs on a device: addresses, neighbours, FDB entries and routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lease::{MacAddr, Subnet};

use super::abi::{
    AF_BRIDGE, AF_INET, AF_INET6, IFA_ADDRESS, IFA_FLAGS, IFA_LOCAL, NDA_CACHEINFO, NDA_DST, NDA_LINK_NETNSID, NDA_LLADDR, NLM_F_REPLACE,
    NTF_PROXY, NTF_SELF, NUD_NOARP, NUD_PERMANENT, RTA_CACHEINFO, RTA_DST, RTA_GATEWAY, RTA_OIF, RTA_PREF, RTA_PRIORITY, RTA_TABLE,
    RTM_DELNEIGH, RTM_F_CLONED, RTN_UNICAST, RTNH_F_ONLINK, RTPROT_KERNEL,
};
use super::wire::{Malformed, Message, address_of, array, split, u32_of};
use crate::{FdbTo, IfIndex, RouteKey, RouteTo, TABLE_MAIN};

/// An address of an interface.
pub(super) struct Address {
    pub(super) index: IfIndex,
    pub(super) address: IpAddr,
    pub(super) len: u8,
    /// `IFA_F_*` (if_addr.h).
    pub(super) flags: u32,
    /// `RT_SCOPE_*` (rtnetlink.h): how far the address is known; the narrower, the larger.
    pub(super) scope: u8,
}

/// Reads an address message. `IFA_LOCAL` is the interface's own where it differs from the peer's (if_addr.h).
pub(super) fn address(message: &Message<'_>) -> Result<Option<Address>, Malformed> {
    let ([family, len, flags, scope, i0, i1, i2, i3], attrs) = split(message.body)?;
    if family != AF_INET && family != AF_INET6 {
        return Ok(None);
    }
    let (mut own, mut peer, mut flags) = (None, None, u32::from(flags));
    for attr in attrs {
        match attr? {
            (IFA_LOCAL, value) => own = Some(address_of(value)?),
            (IFA_ADDRESS, value) => peer = Some(address_of(value)?),
            (IFA_FLAGS, value) => flags = u32_of(value)?,
            _ => {}
        }
    }
    let address = own.or(peer).ok_or(Malformed("an address message has no address"))?;
    Ok(Some(Address { index: IfIndex(u32::from_ne_bytes([i0, i1, i2, i3])), address, len, flags, scope }))
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
pub(super) fn neighbour(message: &Message<'_>, device: IfIndex, ipv6: bool) -> Result<Option<Neighbour>, Malformed> {
    let ([family, _, _, _, i0, i1, i2, i3, s0, s1, flags, _], attrs) = split(message.body)?;
    let ours = if ipv6 { AF_INET6 } else { AF_INET };
    if u32::from_ne_bytes([i0, i1, i2, i3]) != device.0 || (family != ours && family != AF_BRIDGE) || flags & NTF_PROXY != 0 {
        return Ok(None);
    }
    let (mut address, mut mac, mut bare) = (None, None, true);
    for attr in attrs {
        match attr? {
            (NDA_DST, value) => address = Some(address_of(value)?),
            (NDA_LLADDR, value) => mac = array(value).ok().map(MacAddr::new),
            (NDA_CACHEINFO | NDA_LINK_NETNSID, _) => {}
            _ => bare = false,
        }
    }
    let state = u16::from_ne_bytes([s0, s1]);
    let (there, permanent) = (message.kind != RTM_DELNEIGH, state & NUD_PERMANENT != 0);
    if family == AF_BRIDGE {
        let Some((mac, dst)) = mac.zip(address) else { return Ok(None) };
        let ours = flags & NTF_SELF != 0 && mac.is_station();
        let there = there && (permanent || state & NUD_NOARP != 0);
        let to = there.then_some(FdbTo { dst, plain: permanent && bare && flags == NTF_SELF });
        Ok(ours.then_some(Neighbour::Fdb(mac, to)))
    } else {
        let address = address.ok_or(Malformed("a neighbour has no address"))?;
        Ok((!address.is_multicast()).then_some(Neighbour::Ip(address, mac.filter(|_| there && permanent))))
    }
}

/// A route of the main table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) key: RouteKey,
    pub(super) out: Option<IfIndex>,
    pub(super) to: RouteTo,
    /// Whether it leads anywhere, and does not drop or refuse.
    pub(super) unicast: bool,
    /// Whether it came in the place of the one that had its key, of which the kernel tells nothing more.
    pub(super) replaced: bool,
}

/// Reads a route message. The kernel's own routes, cached ones, those of other tables and those for a traffic class are left out.
pub(super) fn route(message: &Message<'_>) -> Result<Option<Route>, Malformed> {
    let ([family, len, source_len, class, table, protocol, _, kind, f0, f1, f2, f3], attrs) = split(message.body)?;
    let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
    if protocol == RTPROT_KERNEL || class != 0 || flags & RTM_F_CLONED != 0 || (family != AF_INET && family != AF_INET6) {
        return Ok(None);
    }
    let mut table = u32::from(table);
    let mut prefix = if family == AF_INET { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let (mut metric, mut out, mut gateway, mut plain) = (0, None, None, kind == RTN_UNICAST && source_len == 0);
    for attr in attrs {
        match attr? {
            (RTA_TABLE, value) => table = u32_of(value)?,
            (RTA_DST, value) => prefix = address_of(value)?,
            (RTA_PRIORITY, value) => metric = u32_of(value)?,
            (RTA_OIF, value) => out = Some(IfIndex(u32_of(value)?)),
            (RTA_GATEWAY, value) => gateway = Some(address_of(value)?),
            // Neutral unless it says that the route expires (struct rta_cacheinfo: the third word) or is preferred (RFC 4191).
            (RTA_CACHEINFO, value) => plain &= value.as_chunks::<4>().0.get(2).is_none_or(|expires| *expires == [0; 4]),
            (RTA_PREF, value) => plain &= value == [0],
            _ => plain = false,
        }
    }
    if table != TABLE_MAIN {
        return Ok(None);
    }
    let prefix = Subnet::new(prefix, len).map_err(|_| Malformed("a route's destination is no prefix"))?;
    let to = RouteTo { gateway, onlink: flags & RTNH_F_ONLINK != 0, protocol, plain };
    Ok(Some(Route {
        key: RouteKey { prefix, metric },
        out,
        to,
        unicast: kind == RTN_UNICAST,
        replaced: message.flags & NLM_F_REPLACE != 0,
    }))
}
