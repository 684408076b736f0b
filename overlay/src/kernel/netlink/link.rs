//! Decodes a link message: whose it is, and the device that it describes.

use std::net::IpAddr;

use lease::{MacAddr, Mtu, Vni};

use super::abi::{
    AF_INET6, AF_UNSPEC, DEVCONF_ACCEPT_RA, IFF_UP, IFLA_ADDRESS, IFLA_AF_SPEC, IFLA_IFNAME, IFLA_INET6_ADDR_GEN_MODE, IFLA_INET6_CONF,
    IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MTU, IFLA_VXLAN_COLLECT_METADATA, IFLA_VXLAN_GBP, IFLA_VXLAN_GPE, IFLA_VXLAN_ID,
    IFLA_VXLAN_LEARNING, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LOCAL6, IFLA_VXLAN_PORT, IFLA_VXLAN_VNIFILTER,
    IN6_ADDR_GEN_MODE_NONE,
};
use super::answer::{c_string, is_string, u8_of};
use super::wire::{Attrs, Malformed, Message, address_of, array, split, u32_of};
use crate::{Device, IfIndex, Kind, Vxlan};

/// A link message, its attributes not yet read.
#[derive(Clone, Copy)]
pub(crate) struct Link<'a> {
    pub(super) index: IfIndex,
    pub(super) up: bool,
    /// Whether the message announces a link that was not there before, rather than a change: all bits of `ifi_change` are
    /// set (`rtnl_configure_link` and `register_netdevice`, net/core, v6.18).
    pub(super) new: bool,
    attrs: Attrs<'a>,
}

impl<'a> Link<'a> {
    /// None for what the bridge says of its ports, in messages of the same type.
    pub(super) fn read(message: &Message<'a>) -> Result<Option<Self>, Malformed> {
        let ([family, _, _, _, i0, i1, i2, i3, f0, f1, f2, f3, c0, c1, c2, c3], attrs) = split(message.body)?;
        Ok((family == AF_UNSPEC).then_some(Self {
            index: IfIndex(u32::from_ne_bytes([i0, i1, i2, i3])),
            up: u32::from_ne_bytes([f0, f1, f2, f3]) & IFF_UP != 0,
            new: u32::from_ne_bytes([c0, c1, c2, c3]) == u32::MAX,
            attrs,
        }))
    }

    pub(super) fn is_named(&self, name: &str) -> Result<bool, Malformed> {
        for attr in self.attrs {
            if let (IFLA_IFNAME, value) = attr? {
                return Ok(is_string(value, name));
            }
        }
        Ok(false)
    }

    pub(super) fn name(&self) -> Result<String, Malformed> {
        for attr in self.attrs {
            if let (IFLA_IFNAME, value) = attr? {
                return Ok(c_string(value));
            }
        }
        Err(Malformed("a link has no name"))
    }

    /// All that the message says of the device.
    pub(super) fn device(&self) -> Result<Device, Malformed> {
        let Self { index, up, new: _, attrs } = *self;
        let (mut mtu, mut mac, mut kind, mut ipv6) = (Mtu(0), MacAddr::new([0; 6]), Kind::Other(String::new()), Ipv6::default());
        for attr in attrs {
            match attr? {
                (IFLA_MTU, value) => mtu = Mtu(u32_of(value)?),
                // Links other than Ethernet have addresses of other lengths; such a one is never the VTEP.
                (IFLA_ADDRESS, value) => mac = array(value).map_or(mac, MacAddr::new),
                (IFLA_LINKINFO, value) => kind = read_kind(Attrs::new(value))?,
                (IFLA_AF_SPEC, value) => ipv6 = Ipv6::read(Attrs::new(value))?,
                _ => {}
            }
        }
        let Ipv6 { no_link_local, accept_ra } = ipv6;
        Ok(Device { index, kind, up, mtu, mac, no_link_local, accept_ra })
    }
}

/// What IPv6 does on a device. Where it is off altogether the kernel says nothing of it.
struct Ipv6 {
    no_link_local: bool,
    accept_ra: Option<bool>,
}

impl Default for Ipv6 {
    fn default() -> Self {
        Self { no_link_local: true, accept_ra: None }
    }
}

impl Ipv6 {
    fn read(families: Attrs<'_>) -> Result<Self, Malformed> {
        let mut read = Self::default();
        for family in families {
            let (family, value) = family?;
            if family != u16::from(AF_INET6) {
                continue;
            }
            for attr in Attrs::new(value) {
                match attr? {
                    (IFLA_INET6_ADDR_GEN_MODE, value) => read.no_link_local = u8_of(value)? == IN6_ADDR_GEN_MODE_NONE,
                    (IFLA_INET6_CONF, value) => {
                        read.accept_ra = value.as_chunks::<4>().0.get(DEVCONF_ACCEPT_RA).map(|word| i32::from_ne_bytes(*word) > 0);
                    }
                    _ => {}
                }
            }
        }
        Ok(read)
    }
}

fn read_kind(info: Attrs<'_>) -> Result<Kind, Malformed> {
    let (mut name, mut data) = (String::new(), None);
    for attr in info {
        match attr? {
            (IFLA_INFO_KIND, value) => name = c_string(value),
            (IFLA_INFO_DATA, value) => data = Some(Attrs::new(value)),
            _ => {}
        }
    }
    match data {
        Some(data) if name == "vxlan" => read_vxlan(data).map(Kind::Vxlan),
        _ => Ok(Kind::Other(name)),
    }
}

fn read_vxlan(data: Attrs<'_>) -> Result<Vxlan, Malformed> {
    let mut vni = None;
    let (mut port, mut local, mut parent, mut learning, mut gbp, mut external) = (0, None, None, false, false, false);
    for attr in data {
        match attr? {
            (IFLA_VXLAN_ID, value) => vni = Vni::new(u64::from(u32_of(value)?)).ok(),
            (IFLA_VXLAN_PORT, value) => port = u16::from_be_bytes(array(value)?),
            (IFLA_VXLAN_LOCAL | IFLA_VXLAN_LOCAL6, value) => {
                local = Some(address_of(value)?).filter(|local: &IpAddr| !local.is_unspecified())
            }
            (IFLA_VXLAN_LINK, value) => parent = Some(u32_of(value)?).filter(|index| *index != 0).map(IfIndex),
            (IFLA_VXLAN_LEARNING, value) => learning = u8_of(value)? != 0,
            (IFLA_VXLAN_GBP, _) => gbp = true,
            (IFLA_VXLAN_COLLECT_METADATA | IFLA_VXLAN_VNIFILTER, value) => external |= u8_of(value)? != 0,
            // Another header on the wire: of as little use to us as metadata mode.
            (IFLA_VXLAN_GPE, _) => external = true,
            _ => {}
        }
    }
    let vni = vni.ok_or(Malformed("a VXLAN device has no VNI"))?;
    Ok(Vxlan { vni, port, local, parent, learning, gbp, external })
}
