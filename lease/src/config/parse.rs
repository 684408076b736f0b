//! The network configuration's JSON, and the rules that make a [`NetworkConfig`] of it.
//!
//! Every rule is flannel's (`pkg/subnet/config.go` of v0.28), except that a missing Backend means vxlan, that
//! SubnetMin must not lie behind SubnetMax, and that numbers are checked for their range.

use std::net::IpAddr;
use std::str::FromStr;

use serde_json::value::RawValue;

use super::error::ConfigError;
use super::{Backend, NetworkConfig, Pool, VxlanConfig};
use crate::excerpt::excerpt;
use crate::json::{Text, object};
use crate::{Mtu, Subnet, SubnetError, Vni};

/// The kernel's default VXLAN port, which is not IANA's 4789 (Linux `drivers/net/vxlan/vxlan_core.c`, `vxlan_port`).
const KERNEL_PORT: u16 = 8472;
/// flannel's default VNI (`pkg/backend/vxlan/vxlan.go`, `defaultVNI`).
const DEFAULT_VNI: i64 = 1;
/// The smallest outer MTU that carries IPv4's smallest packet of 68 bytes (RFC 791 §3.2) in VXLAN over IPv4 (50 bytes).
const MTU_MIN: i64 = 68 + 50;
/// The largest packet that IPv4 can name (RFC 791 §3.1, 16 bits).
const MTU_MAX: i64 = 65_535;

object! {
    ConfigIn<'a> {
        "Network" => network: Text<'a>,
        "SubnetLen" => subnet_len: i64,
        "SubnetMin" => subnet_min: Text<'a>,
        "SubnetMax" => subnet_max: Text<'a>,
        "EnableIPv4" => enable_ipv4: bool,
        "EnableIPv6" => enable_ipv6: bool,
        "IPv6Network" => ipv6_network: Text<'a>,
        "IPv6SubnetLen" => ipv6_subnet_len: i64,
        "IPv6SubnetMin" => ipv6_subnet_min: Text<'a>,
        "IPv6SubnetMax" => ipv6_subnet_max: Text<'a>,
        "EnableNFTables" => enable_nftables: bool,
        "Backend" => backend: &'a RawValue,
    }
}

object! {
    BackendIn<'a> {
        "Type" => kind: Text<'a>,
    }
}

object! {
    VxlanIn {
        "VNI" => vni: i64,
        "Port" => port: i64,
        "GBP" => gbp: bool,
        "Learning" => learning: bool,
        "DirectRouting" => direct_routing: bool,
        "MTU" => mtu: i64,
    }
}

/// What the two families differ in.
struct Family {
    network: &'static str,
    subnet_len: &'static str,
    subnet_min: &'static str,
    subnet_max: &'static str,
    ipv4: bool,
    /// The subnet length where none is given and the network is large enough for it.
    default_len: u8,
    /// The smallest network and the smallest subnet.
    longest_network: u8,
    longest_subnet: u8,
}

/// Room for more than two subnets: flannel wants the subnet length at least this much above the network's.
const LEAST_DEPTH: u8 = 2;

const IPV4: Family = Family {
    network: "Network",
    subnet_len: "SubnetLen",
    subnet_min: "SubnetMin",
    subnet_max: "SubnetMax",
    ipv4: true,
    default_len: 24,
    longest_network: 28,
    longest_subnet: 30,
};

const IPV6: Family = Family {
    network: "IPv6Network",
    subnet_len: "IPv6SubnetLen",
    subnet_min: "IPv6SubnetMin",
    subnet_max: "IPv6SubnetMax",
    ipv4: false,
    default_len: 64,
    longest_network: 124,
    longest_subnet: 126,
};

impl FromStr for NetworkConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let read: ConfigIn<'_> = serde_json::from_str(text).map_err(|error| ConfigError::Json(excerpt(&error.to_string())))?;
        let (v4, v6) = (read.enable_ipv4.unwrap_or(true), read.enable_ipv6.unwrap_or(false));
        if !v4 && !v6 {
            return Err(ConfigError::NoFamily);
        }
        let pool =
            |on: bool, family, network, len, min, max| if on { self::pool(family, network, len, min, max).map(Some) } else { Ok(None) };
        Ok(Self {
            v4: pool(v4, &IPV4, read.network, read.subnet_len, read.subnet_min, read.subnet_max)?,
            v6: pool(v6, &IPV6, read.ipv6_network, read.ipv6_subnet_len, read.ipv6_subnet_min, read.ipv6_subnet_max)?,
            nftables: read.enable_nftables.unwrap_or(false),
            backend: backend(read.backend)?,
        })
    }
}

fn pool(
    family: &Family,
    network: Option<Text<'_>>,
    len: Option<i64>,
    min: Option<Text<'_>>,
    max: Option<Text<'_>>,
) -> Result<Pool, ConfigError> {
    let network = self::network(family, network)?;
    if network.len() > family.longest_network {
        return Err(ConfigError::NetworkTooSmall { field: family.network, network, longest: family.longest_network });
    }
    let subnet_len = subnet_len(family, network, len)?;
    // With this the whole network is one pool, from its very first subnet on; the bounds are narrowed next.
    let edge = Subnet::containing(network.address(), subnet_len).map_err(|error| ConfigError::not_subnet(family.network, &error))?;
    let mut pool = Pool { network, subnet_len, min: edge, max: edge };
    let count = 1_u128 << (subnet_len - network.len()).min(127);
    let bound = |field, text: Option<Text<'_>>, default: u128| match text {
        Some(Text(text)) if !text.is_empty() => bound(&pool, field, &text),
        _ => pool.at(default).ok_or(ConfigError::Missing(field)),
    };
    let (min, max) = (bound(family.subnet_min, min, 1)?, bound(family.subnet_max, max, count - 1)?);
    if pool.index_of(min) > pool.index_of(max) {
        return Err(ConfigError::MinAboveMax { field: family.subnet_min, min, max });
    }
    (pool.min, pool.max) = (min, max);
    Ok(pool)
}

/// Host bits are dropped, as flannel does: a cluster that runs with `10.5.0.1/16` goes on.
fn network(family: &Family, text: Option<Text<'_>>) -> Result<Subnet, ConfigError> {
    let Some(Text(text)) = text.filter(|text| !text.0.is_empty()) else { return Err(ConfigError::Missing(family.network)) };
    let network = match text.parse::<Subnet>() {
        Ok(network) | Err(SubnetError::HostBits { network, .. }) => network,
        Err(error) => return Err(ConfigError::not_subnet(family.network, &error)),
    };
    if network.is_ipv4() != family.ipv4 {
        return Err(ConfigError::WrongFamily { field: family.network, network });
    }
    let for_hosts = match network.address() {
        // RFC 6890 §2.2.2: 0.0.0.0/8, 127.0.0.0/8 and 240.0.0.0/4; RFC 5771: 224.0.0.0/4.
        IpAddr::V4(first) => !matches!(first.octets(), [0 | 127 | 224..=255, ..]),
        IpAddr::V6(first) => !first.is_multicast(),
    };
    if for_hosts { Ok(network) } else { Err(ConfigError::NotForHosts { field: family.network, network }) }
}

fn subnet_len(family: &Family, network: Subnet, given: Option<i64>) -> Result<u8, ConfigError> {
    let (field, least) = (family.subnet_len, network.len() + LEAST_DEPTH);
    let Some(given) = given.filter(|len| *len != 0) else { return Ok(family.default_len.max(least)) };
    match u8::try_from(given) {
        Ok(len) if len < least => Err(ConfigError::SubnetTooLarge { field, len, network, least }),
        Ok(len) if len <= family.longest_subnet => Ok(len),
        _ => Err(ConfigError::OutOfRange { field, value: given, min: least.into(), max: family.longest_subnet.into() }),
    }
}

fn bound(pool: &Pool, field: &'static str, text: &str) -> Result<Subnet, ConfigError> {
    let address: IpAddr = text.parse().map_err(|_| ConfigError::NotAddress { field, value: excerpt(text) })?;
    if !pool.network.contains(address) {
        return Err(ConfigError::OutsideNetwork { field, address, network: pool.network });
    }
    Subnet::new(address, pool.subnet_len).map_err(|_| ConfigError::NotOnBoundary { field, address, len: pool.subnet_len })
}

fn backend(given: Option<&RawValue>) -> Result<Backend, ConfigError> {
    let text = given.map_or("{}", RawValue::get);
    let json = |error: serde_json::Error| ConfigError::Json(excerpt(&format!("Backend: {error}")));
    let BackendIn { kind } = serde_json::from_str(text).map_err(json)?;
    match kind.map_or_else(String::new, |Text(kind)| kind.to_ascii_lowercase()).as_str() {
        "" | "vxlan" => vxlan(serde_json::from_str(text).map_err(json)?).map(Backend::Vxlan),
        "host-gw" => Ok(Backend::HostGw),
        "alloc" => Ok(Backend::Alloc),
        other => Err(ConfigError::UnknownBackend(excerpt(other))),
    }
}

fn vxlan(read: VxlanIn) -> Result<VxlanConfig, ConfigError> {
    let VxlanIn { vni, port, gbp, learning, direct_routing, mtu } = read;
    let vni = vni.unwrap_or(DEFAULT_VNI);
    let port = port.unwrap_or(0);
    let mtu = mtu.filter(|mtu| *mtu != 0);
    let in_vni = u64::try_from(vni).ok().and_then(|number| Vni::new(number).ok());
    let in_port = u16::try_from(port).ok();
    let in_mtu = |mtu| if (MTU_MIN..=MTU_MAX).contains(&mtu) { u32::try_from(mtu).ok().map(Mtu) } else { None };
    let wrong = |field, value, min, max| ConfigError::OutOfRange { field, value, min, max };
    Ok(VxlanConfig {
        vni: in_vni.ok_or_else(|| wrong("Backend.VNI", vni, 0, Vni::MAX.into()))?,
        port: in_port
            .map(|port| if port == 0 { KERNEL_PORT } else { port })
            .ok_or_else(|| wrong("Backend.Port", port, 0, u16::MAX.into()))?,
        gbp: gbp.unwrap_or(false),
        learning: learning.unwrap_or(false),
        direct_routing: direct_routing.unwrap_or(false),
        mtu: mtu.map(|mtu| in_mtu(mtu).ok_or_else(|| wrong("Backend.MTU", mtu, MTU_MIN, MTU_MAX))).transpose()?,
    })
}
