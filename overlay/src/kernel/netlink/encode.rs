//! Makes an operation the netlink message that does it, by rtnetlink's builders where it has one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lease::MacAddr;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, InfoVxlan, LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, LinkVxlan, RouteMessageBuilder};

use crate::{IfIndex, Op, ROUTE_PROTOCOL, RouteKey, RouteTo, RuleKey, VtepSpec, Way};

/// No message is longer. A test keeps it so.
pub(super) const LONGEST: usize = 512;

/// Whatever is there under the key is replaced.
const PUT: u16 = NLM_F_CREATE | NLM_F_REPLACE;
/// What is there under the key is an error.
const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;
/// What is to be changed or deleted has to be there. A link is changed by `RTM_NEWLINK` with this: `RTM_SETLINK` says yes to a
/// change of a tunnel's properties and does nothing (measured on 6.18).
const THERE: u16 = 0;

/// The message of an operation on the device with this index, and its flags. None for the operations that are no netlink message.
pub(super) fn message(op: &Op, device: IfIndex) -> Option<(RouteNetlinkMessage, u16)> {
    use NeighbourAttribute::Destination;
    use RouteNetlinkMessage::{DelAddress, DelLink, DelNeighbour, DelRoute, DelRule, NewAddress, NewLink, NewNeighbour, NewRoute, NewRule};

    let link = || LinkUnspec::new_with_index(device.0);
    let vxlan = |property| LinkMessageBuilder::<LinkVxlan>::new_with_info_kind(InfoKind::Vxlan).index(device.0).append_info_data(property);
    Some(match op {
        Op::EnableForwarding { .. } | Op::DisableAcceptRa => return None,
        Op::CreateDevice(spec) => (NewLink(create(spec)), NEW),
        Op::DelDevice => (DelLink(link().build()), THERE),
        Op::SetLocal(address) => (NewLink(vxlan(local(*address)).build()), THERE),
        Op::SetLearning(on) => (NewLink(vxlan(InfoVxlan::Learning(*on)).build()), THERE),
        Op::SetMac(mac) => (NewLink(link().address(mac.octets().to_vec()).build()), THERE),
        Op::SetMtu(mtu) => (NewLink(link().mtu(mtu.0).build()), THERE),
        Op::DisableLinkLocal => {
            let none = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
            (NewLink(link().append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![none])).build()), THERE)
        }
        Op::SetUp => (NewLink(link().up().build()), THERE),
        Op::PutAddress(address) => (NewAddress(self::address(*address, if address.is_ipv4() { 32 } else { 128 }, device)), PUT),
        Op::DelAddress { address, len } => (DelAddress(address_by_handle(*address, *len, device)), THERE),
        Op::PutFdb { mac, dst } => (NewNeighbour(fdb(vec![lladdr(*mac), Destination((*dst).into())], device)), PUT),
        Op::DelFdb { mac } => (DelNeighbour(fdb(vec![lladdr(*mac)], device)), THERE),
        Op::PutNeighbour { address, mac } => {
            (NewNeighbour(neighbour(family(*address), vec![Destination((*address).into()), lladdr(*mac)], device)), PUT)
        }
        Op::DelNeighbour { address } => (DelNeighbour(neighbour(family(*address), vec![Destination((*address).into())], device)), THERE),
        Op::PutRule(key) => (NewRule(rule(*key)), NEW),
        Op::DelRule(key) => (DelRule(rule(*key)), THERE),
        Op::PutRoute { key, to, replace } => {
            let RouteTo { way, gateway, onlink, protocol: _, plain: _ } = to;
            let mut message = route(*key, to, *gateway, device);
            if *onlink {
                message = message.onlink();
            }
            message = match way {
                Way::Blackhole => message.kind(RouteType::BlackHole),
                _ if gateway.is_none() && key.prefix.is_ipv4() => message.scope(RouteScope::Link),
                Way::Tunnel | Way::Link(_) | Way::Other => message,
            };
            (NewRoute(message.build()), if *replace { PUT } else { NEW })
        }
        Op::DelRoute { key, to } => {
            // Type and scope left open; the interface, the next hop and the protocol bind it to the one that is meant. On the device
            // everything is ours, whatever its next hop.
            let gateway = to.gateway.filter(|_| to.way != Way::Tunnel);
            let any = route(*key, to, gateway, device).kind(RouteType::Unspec).scope(RouteScope::NoWhere);
            (DelRoute(any.build()), THERE)
        }
    })
}

fn create(spec: &VtepSpec) -> LinkMessage {
    let VtepSpec { name, vni, port, local: source, gbp, learning, mac, mtu, address: _, network: _ } = spec;
    let link = LinkVxlan::new(name, vni.get()).append_info_data(local(*source)).port(*port).learning(*learning);
    let link = if *gbp { link.gbp() } else { link };
    link.mtu(mtu.0).address(mac.octets().to_vec()).build()
}

fn local(address: IpAddr) -> InfoVxlan {
    match address {
        IpAddr::V4(address) => InfoVxlan::Local(address),
        IpAddr::V6(address) => InfoVxlan::Local6(address),
    }
}

/// An IPv6 address is there at once, without duplicate address detection: nobody else is on the link.
fn address(address: IpAddr, len: u8, device: IfIndex) -> AddressMessage {
    match address {
        IpAddr::V4(address) => AddressMessageBuilder::<Ipv4Addr>::new().index(device.0).address(address, len).build(),
        IpAddr::V6(address) => {
            let mut message = AddressMessageBuilder::<Ipv6Addr>::new().index(device.0).address(address, len).build();
            message.header.flags = AddressHeaderFlags::Nodad;
            message
        }
    }
}

/// What an address is deleted by: see [`entry::Address`](super::entry::Address).
fn address_by_handle(handle: IpAddr, len: u8, device: IfIndex) -> AddressMessage {
    let mut message = address(handle, len, device);
    if handle.is_ipv4() {
        message.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Local(_) | AddressAttribute::Broadcast(_)));
    }
    message
}

fn lladdr(mac: MacAddr) -> NeighbourAttribute {
    NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec())
}

fn fdb(attributes: Vec<NeighbourAttribute>, device: IfIndex) -> NeighbourMessage {
    let mut message = neighbour(AddressFamily::Bridge, attributes, device);
    message.header.flags = NeighbourFlags::Own;
    message
}

/// rtnetlink makes neighbour messages only where it sends them.
fn neighbour(family: AddressFamily, attributes: Vec<NeighbourAttribute>, device: IfIndex) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = device.0;
    message.header.state = NeighbourState::Permanent;
    message.attributes = attributes;
    message
}

/// A route's key and where it leads. Addresses are put in without the builder's checks: what does not fit together is refused by the
/// kernel, by itself and in words.
fn route(key: RouteKey, to: &RouteTo, gateway: Option<IpAddr>, device: IfIndex) -> RouteMessageBuilder {
    let RouteKey { prefix, metric, table } = key;
    let mut route = RouteMessageBuilder::<IpAddr>::new().table_id(table).priority(metric).protocol(to.protocol.into());
    route = match to.way {
        Way::Tunnel => route.output_interface(device.0),
        Way::Link(index) => route.output_interface(index.0),
        Way::Blackhole | Way::Other => route,
    };
    let message = route.get_mut();
    message.header.address_family = family(prefix.address());
    message.header.destination_prefix_length = prefix.len();
    message.attributes.push(RouteAttribute::Destination(prefix.address().into()));
    message.attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    route
}

fn rule(RuleKey { priority, to, table, at_least }: RuleKey) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(to.address());
    message.header.dst_len = to.len();
    message.header.action = RuleAction::ToTable;
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.attributes = vec![
        RuleAttribute::Destination(to.address()),
        RuleAttribute::Priority(priority),
        RuleAttribute::Table(table),
        RuleAttribute::Protocol(ROUTE_PROTOCOL.into()),
    ];
    message.attributes.extend(at_least.map(|len| RuleAttribute::SuppressPrefixLen(len.saturating_sub(1).into())));
    message
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
