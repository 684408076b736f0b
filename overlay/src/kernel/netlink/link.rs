//! Reads a link message: whose it is, and the device that it describes.

use lease::{MacAddr, Mtu, Vni};
use netlink_packet_core::{DecodeError, Emitable, NlasIterator, ParseableParametrized};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::napi;
use super::sysctl;
use super::wire::{Message, decode};
use crate::{Device, IfIndex, Kind, Vxlan};

/// Leaves a link's counters out of an answer.
pub(super) fn without_counters() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

/// Reads a link message whole: the name, and the device that bears it.
pub(super) fn read(message: &Message<'_>) -> Result<Option<(String, Device)>, DecodeError> {
    let Some(link) = Link::read(message)? else { return Ok(None) };
    Ok(Some((link.name()?, link.device()?)))
}

/// A link message of which only the fixed part has been read.
pub(crate) struct Link<'a> {
    message: &'a Message<'a>,
    header: LinkHeader,
}

impl<'a> Link<'a> {
    /// None for what the bridge says of its ports, in messages of the same type.
    pub(super) fn read(message: &'a Message<'_>) -> Result<Option<Self>, DecodeError> {
        let header = LinkHeader::parse(message.payload())?;
        Ok((header.interface_family == AddressFamily::Unspec).then_some(Self { message, header }))
    }

    pub(super) fn index(&self) -> IfIndex {
        IfIndex(self.header.index)
    }

    /// Whether the message announces a link that was not there before, rather than a change: all bits of `ifi_change` are
    /// set (`rtnl_configure_link` and `register_netdevice`, net/core, v6.18).
    pub(super) fn is_new(&self) -> bool {
        self.header.change_mask.bits() == u32::MAX
    }

    /// Whether it is administratively up.
    pub(super) fn is_up(&self) -> bool {
        self.header.flags.contains(LinkFlags::Up)
    }

    /// The name, by itself: it comes first, so that of a link of no concern nothing else is decoded.
    pub(super) fn name(&self) -> Result<String, DecodeError> {
        let attributes = self.message.payload().get(self.header.buffer_len()..).unwrap_or_default();
        for attribute in NlasIterator::new(attributes) {
            if let Ok(LinkAttribute::IfName(name)) = LinkAttribute::parse_with_param(&attribute?, self.header.interface_family) {
                return Ok(name);
            }
        }
        Err("a link has no name".into())
    }

    /// All that the message says of the device.
    pub(super) fn device(&self) -> Result<Device, DecodeError> {
        match decode(self.message)? {
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => device(link),
            _ => Err("no link came in answer to a question for one".into()),
        }
    }
}

fn device(LinkMessage { header, attributes, .. }: LinkMessage) -> Result<Device, DecodeError> {
    let (mut mtu, mut mac, mut kind) = (Mtu(0), MacAddr::new([0; 6]), Kind::Other(String::new()));
    // Where IPv6 is off altogether the kernel says nothing of it.
    let (mut no_link_local, mut accept_ra, mut name) = (true, None, None);
    for attribute in attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text),
            LinkAttribute::Mtu(bytes) => mtu = Mtu(bytes),
            // Links other than Ethernet have addresses of other lengths; such a one is never the VTEP.
            LinkAttribute::Address(octets) => mac = octets.try_into().map_or(mac, MacAddr::new),
            LinkAttribute::LinkInfo(info) => kind = read_kind(&info)?,
            LinkAttribute::AfSpecUnspec(families) => {
                for property in families.into_iter().filter_map(ipv6).flatten() {
                    match property {
                        AfSpecInet6::AddrGenMode(mode) => no_link_local = mode == In6AddrGenMode::None,
                        AfSpecInet6::DevConf(conf) => accept_ra = Some(conf.accept_ra > 0),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    // What cannot be switched off here, in a container with read-only settings, is no reason never to be in step.
    let accept_ra = accept_ra.filter(|on| !on || name.as_ref().is_none_or(|name| sysctl::can_set_accept_ra(name)));
    let index = IfIndex(header.index);
    let threaded = name.filter(|_| matches!(kind, Kind::Vxlan(_))).and_then(|name| napi::threaded(&name, index));
    Ok(Device { index, kind, up: header.flags.contains(LinkFlags::Up), mtu, mac, no_link_local, accept_ra, threaded })
}

fn ipv6(family: AfSpecUnspec) -> Option<Vec<AfSpecInet6>> {
    if let AfSpecUnspec::Inet6(properties) = family { Some(properties) } else { None }
}

fn read_kind(info: &[LinkInfo]) -> Result<Kind, DecodeError> {
    let mut kind = Kind::Other(String::new());
    for info in info {
        match info {
            LinkInfo::Kind(name) => kind = Kind::Other(name.to_string()),
            LinkInfo::Data(InfoData::Vxlan(properties)) => kind = Kind::Vxlan(vxlan(properties)?),
            _ => {}
        }
    }
    Ok(kind)
}

fn vxlan(properties: &[InfoVxlan]) -> Result<Vxlan, DecodeError> {
    let mut vni = None;
    let (mut port, mut local, mut parent, mut learning, mut gbp, mut external) = (0, None, None, false, false, false);
    for property in properties {
        match property {
            InfoVxlan::Id(id) => vni = Vni::new(u64::from(*id)).ok(),
            InfoVxlan::Port(number) => port = *number,
            InfoVxlan::Local(address) => local = (!address.is_unspecified()).then_some((*address).into()),
            InfoVxlan::Local6(address) => local = (!address.is_unspecified()).then_some((*address).into()),
            InfoVxlan::Link(index) => parent = (*index != 0).then_some(IfIndex(*index)),
            InfoVxlan::Learning(on) => learning = *on,
            InfoVxlan::Gbp => gbp = true,
            InfoVxlan::CollectMetadata(on) | InfoVxlan::Vnifilter(on) => external |= on,
            // Another header on the wire: of as little use to us as metadata mode.
            InfoVxlan::Gpe => external = true,
            _ => {}
        }
    }
    let vni = vni.ok_or("a VXLAN device has no VNI")?;
    Ok(Vxlan { vni, port, local, parent, learning, gbp, external })
}
