//! Encodes an operation as the netlink message that does it.

use std::net::IpAddr;

use lease::MacAddr;

use super::abi::{
    AF_BRIDGE, AF_INET, AF_INET6, AF_UNSPEC, IFA_ADDRESS, IFA_F_NODAD, IFA_LOCAL, IFF_UP, IFLA_ADDRESS, IFLA_AF_SPEC, IFLA_IFNAME,
    IFLA_INET6_ADDR_GEN_MODE, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MTU, IFLA_VXLAN_GBP, IFLA_VXLAN_ID, IFLA_VXLAN_LEARNING,
    IFLA_VXLAN_LOCAL, IFLA_VXLAN_LOCAL6, IFLA_VXLAN_PORT, IN6_ADDR_GEN_MODE_NONE, NDA_DST, NDA_LLADDR, NLM_F_CREATE, NLM_F_EXCL,
    NLM_F_REPLACE, NLM_F_REQUEST, NTF_SELF, NUD_PERMANENT, RT_SCOPE_LINK, RT_SCOPE_NOWHERE, RT_SCOPE_UNIVERSE, RTA_DST, RTA_GATEWAY,
    RTA_OIF, RTA_PRIORITY, RTM_DELADDR, RTM_DELLINK, RTM_DELNEIGH, RTM_DELROUTE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWROUTE,
    RTN_UNICAST, RTNH_F_ONLINK,
};
use super::wire::Writer;
use crate::{IfIndex, Op, RouteKey, RouteTo, TABLE_MAIN, VtepSpec};

/// No message is longer. A test keeps it so.
pub(super) const LONGEST: usize = 512;

/// Writes the message of an operation on the device with this index. False for the operations that are no netlink message.
pub(super) fn op(op: &Op, device: IfIndex, seq: u32, to: &mut Writer) -> bool {
    match op {
        Op::EnableForwarding { .. } | Op::DisableAcceptRa => return false,
        Op::CreateDevice(spec) => create(spec, seq, to),
        Op::DelDevice => link(RTM_DELLINK, 0, device, 0, seq, to),
        Op::SetLocal(address) => {
            link(RTM_NEWLINK, 0, device, 0, seq, to);
            vxlan(to, |to| local(*address, to));
        }
        Op::SetLearning(on) => {
            link(RTM_NEWLINK, 0, device, 0, seq, to);
            vxlan(to, |to| to.attr(IFLA_VXLAN_LEARNING, &[u8::from(*on)]));
        }
        Op::SetMac(mac) => {
            link(RTM_NEWLINK, 0, device, 0, seq, to);
            to.attr(IFLA_ADDRESS, &mac.octets());
        }
        Op::SetMtu(mtu) => {
            link(RTM_NEWLINK, 0, device, 0, seq, to);
            to.attr(IFLA_MTU, &mtu.0.to_ne_bytes());
        }
        Op::DisableLinkLocal => {
            link(RTM_NEWLINK, 0, device, 0, seq, to);
            to.nest(IFLA_AF_SPEC, |to| {
                to.nest(u16::from(AF_INET6), |to| to.attr(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]));
            });
        }
        Op::SetUp => link(RTM_NEWLINK, 0, device, IFF_UP, seq, to),
        Op::PutAddress(address) => {
            let len = if address.is_ipv4() { 32 } else { 128 };
            self::address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, *address, len, device, seq, to);
        }
        Op::DelAddress { address, len } => self::address(RTM_DELADDR, 0, *address, *len, device, seq, to),
        Op::PutFdb { mac, dst } => {
            neighbour(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, AF_BRIDGE, NTF_SELF, device, seq, to);
            to.attr(NDA_LLADDR, &mac.octets());
            to.address(NDA_DST, *dst);
        }
        Op::DelFdb { mac } => {
            neighbour(RTM_DELNEIGH, 0, AF_BRIDGE, NTF_SELF, device, seq, to);
            to.attr(NDA_LLADDR, &mac.octets());
        }
        Op::PutNeighbour { address, mac } => put_neighbour(*address, *mac, device, seq, to),
        Op::DelNeighbour { address } => {
            neighbour(RTM_DELNEIGH, 0, family(*address), 0, device, seq, to);
            to.address(NDA_DST, *address);
        }
        Op::PutRoute { key, to: via, replace } => put_route(*key, *via, *replace, device, seq, to),
        Op::DelRoute { key } => {
            // Protocol, type and scope left open; the interface binds it to ours.
            route(RTM_DELROUTE, 0, *key, [0, RT_SCOPE_NOWHERE, 0], 0, seq, to);
            to.attr(RTA_OIF, &device.0.to_ne_bytes());
        }
    }
    to.end();
    true
}

fn create(spec: &VtepSpec, seq: u32, to: &mut Writer) {
    let VtepSpec { name, vni, port, local: source, gbp, learning, mac, mtu, address: _, network: _ } = spec;
    link(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, IfIndex(0), 0, seq, to);
    to.attr(IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
    to.attr(IFLA_MTU, &mtu.0.to_ne_bytes());
    to.attr(IFLA_ADDRESS, &mac.octets());
    vxlan(to, |to| {
        to.attr(IFLA_VXLAN_ID, &vni.get().to_ne_bytes());
        local(*source, to);
        to.attr(IFLA_VXLAN_PORT, &port.to_be_bytes());
        to.attr(IFLA_VXLAN_LEARNING, &[u8::from(*learning)]);
        if *gbp {
            to.attr(IFLA_VXLAN_GBP, &[]);
        }
    });
}

/// `struct ifinfomsg`. Flags are set only, never cleared.
fn link(kind: u16, flags: u16, device: IfIndex, set: u32, seq: u32, to: &mut Writer) {
    let ([i0, i1, i2, i3], [f0, f1, f2, f3]) = (device.0.to_ne_bytes(), set.to_ne_bytes());
    to.begin(kind, NLM_F_REQUEST | flags, seq, &[AF_UNSPEC, 0, 0, 0, i0, i1, i2, i3, f0, f1, f2, f3, f0, f1, f2, f3]);
}

fn vxlan(to: &mut Writer, data: impl FnOnce(&mut Writer)) {
    to.nest(IFLA_LINKINFO, |to| {
        to.attr(IFLA_INFO_KIND, b"vxlan");
        to.nest(IFLA_INFO_DATA, data);
    });
}

fn local(address: IpAddr, to: &mut Writer) {
    to.address(if address.is_ipv4() { IFLA_VXLAN_LOCAL } else { IFLA_VXLAN_LOCAL6 }, address);
}

/// `struct ifaddrmsg`. An IPv6 address is there at once, without duplicate address detection: nobody else is on the link.
fn address(kind: u16, flags: u16, address: IpAddr, len: u8, device: IfIndex, seq: u32, to: &mut Writer) {
    let [i0, i1, i2, i3] = device.0.to_ne_bytes();
    let nodad = if address.is_ipv4() { 0 } else { IFA_F_NODAD };
    to.begin(kind, NLM_F_REQUEST | flags, seq, &[family(address), len, nodad, RT_SCOPE_UNIVERSE, i0, i1, i2, i3]);
    to.address(IFA_LOCAL, address);
    to.address(IFA_ADDRESS, address);
}

fn put_neighbour(address: IpAddr, mac: MacAddr, device: IfIndex, seq: u32, to: &mut Writer) {
    neighbour(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, family(address), 0, device, seq, to);
    to.address(NDA_DST, address);
    to.attr(NDA_LLADDR, &mac.octets());
}

/// `struct ndmsg`.
fn neighbour(kind: u16, flags: u16, family: u8, own: u8, device: IfIndex, seq: u32, to: &mut Writer) {
    let ([i0, i1, i2, i3], [s0, s1]) = (device.0.to_ne_bytes(), NUD_PERMANENT.to_ne_bytes());
    to.begin(kind, NLM_F_REQUEST | flags, seq, &[family, 0, 0, 0, i0, i1, i2, i3, s0, s1, own, 0]);
}

fn put_route(key: RouteKey, via: RouteTo, replace: bool, device: IfIndex, seq: u32, to: &mut Writer) {
    let RouteTo { gateway, onlink, protocol, plain: _ } = via;
    let scope = if gateway.is_none() && key.prefix.is_ipv4() { RT_SCOPE_LINK } else { RT_SCOPE_UNIVERSE };
    let how = NLM_F_CREATE | if replace { NLM_F_REPLACE } else { NLM_F_EXCL };
    route(RTM_NEWROUTE, how, key, [protocol, scope, RTN_UNICAST], if onlink { RTNH_F_ONLINK } else { 0 }, seq, to);
    to.attr(RTA_OIF, &device.0.to_ne_bytes());
    if let Some(gateway) = gateway {
        to.address(RTA_GATEWAY, gateway);
    }
}

/// `struct rtmsg`, with the attributes that make the key.
fn route(kind: u16, flags: u16, key: RouteKey, [protocol, scope, of]: [u8; 3], set: u32, seq: u32, to: &mut Writer) {
    let RouteKey { prefix, metric } = key;
    let [f0, f1, f2, f3] = set.to_ne_bytes();
    // The main table's number fits the header's byte.
    let [.., table] = TABLE_MAIN.to_be_bytes();
    let fixed = [family(prefix.address()), prefix.len(), 0, 0, table, protocol, scope, of, f0, f1, f2, f3];
    to.begin(kind, NLM_F_REQUEST | flags, seq, &fixed);
    to.address(RTA_DST, prefix.address());
    to.attr(RTA_PRIORITY, &metric.to_ne_bytes());
}

/// The number of an address's family.
pub(super) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}
