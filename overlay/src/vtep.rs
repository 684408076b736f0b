//! What the VTEP should be, from the network's configuration and the underlay.

use std::net::IpAddr;

use lease::{MacAddr, Mtu, Pool, Subnet, Vni, VxlanConfig};

use crate::device::VtepSpec;

/// Bytes of the inner Ethernet header (IEEE 802.3).
const INNER_ETHERNET: u32 = 14;
/// Bytes of the VXLAN header (RFC 7348 §5).
const VXLAN: u32 = 8;
/// Bytes of the outer UDP header (RFC 768).
const UDP: u32 = 8;
/// Bytes of the outer IPv4 header without options (RFC 791 §3.1).
const IPV4: u32 = 20;
/// Bytes of the outer IPv6 header (RFC 8200 §3).
const IPV6: u32 = 40;

const _: () = assert!(overhead_of(false) == 50 && overhead_of(true) == 70);

/// The smallest MTU that a link for IPv4 may have (RFC 791 §3.2); the kernel takes no less for a VXLAN device.
const MIN_MTU_IPV4: u32 = 68;
/// The smallest MTU that a link for IPv6 may have (RFC 8200 §5).
const MIN_MTU_IPV6: u32 = 1280;

/// Bytes that an interface's name can have, without its closing zero (include/uapi/linux/if.h, `IFNAMSIZ`).
const NAME_MAX: usize = 15;

/// No VTEP can be made of this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The VNI has too many digits for the name that flannel gives its device.
    #[error("VNI {vni} is too large: {name} is longer than the {NAME_MAX} bytes of an interface's name")]
    NameTooLong {
        /// The VNI.
        vni: Vni,
        /// The name that the device would have.
        name: String,
    },
    /// The tunnel's overhead leaves too little.
    #[error("an outer MTU of {outer} is too small: the VTEP needs {overhead} bytes less and must have at least {least}")]
    MtuTooSmall {
        /// What there is.
        outer: Mtu,
        /// What the tunnel takes away.
        overhead: u32,
        /// What must remain.
        least: u32,
    },
}

/// Bytes that the tunnel adds to a packet: 50 over an IPv4 underlay, 70 over an IPv6 one.
#[must_use]
pub fn overhead(underlay: IpAddr) -> u32 {
    overhead_of(underlay.is_ipv6())
}

const fn overhead_of(ipv6: bool) -> u32 {
    INNER_ETHERNET + VXLAN + UDP + if ipv6 { IPV6 } else { IPV4 }
}

/// The name of the VTEP for one address family: flannel's.
#[must_use]
pub fn device_name(vni: Vni, ipv6: bool) -> String {
    if ipv6 { format!("flannel-v6.{vni}") } else { format!("flannel.{vni}") }
}

/// The VTEP for our subnet. `underlay_mtu` counts where the configuration names no outer MTU.
///
/// # Errors
/// [`SpecError`].
pub fn vtep_spec(
    config: &VxlanConfig,
    pool: &Pool,
    subnet: Subnet,
    local: IpAddr,
    underlay_mtu: Mtu,
    mac: MacAddr,
) -> Result<VtepSpec, SpecError> {
    let VxlanConfig { vni, port, gbp, learning, direct_routing: _, mtu } = *config;
    let ipv6 = !pool.network.is_ipv4();
    let name = device_name(vni, ipv6);
    if name.len() > NAME_MAX {
        return Err(SpecError::NameTooLong { vni, name });
    }
    let outer = mtu.unwrap_or(underlay_mtu);
    let overhead = overhead(local);
    let least = if ipv6 { MIN_MTU_IPV6 } else { MIN_MTU_IPV4 };
    let inner = outer.0.checked_sub(overhead).filter(|inner| *inner >= least);
    let mtu = Mtu(inner.ok_or(SpecError::MtuTooSmall { outer, overhead, least })?);
    Ok(VtepSpec { name, vni, port, local, gbp, learning, mac, mtu, address: subnet.address(), network: pool.network })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(vni: u64, local: &str, underlay_mtu: u32, mtu: Option<u32>) -> Result<VtepSpec, SpecError> {
        let subnet = |text: &str| text.parse::<Subnet>().unwrap();
        let (network, min, max) = (subnet("10.5.0.0/16"), subnet("10.5.1.0/24"), subnet("10.5.255.0/24"));
        let pool = Pool { network, subnet_len: 24, min, max };
        let vni = Vni::new(vni).unwrap();
        let config = VxlanConfig { vni, port: 8472, gbp: false, learning: false, direct_routing: false, mtu: mtu.map(Mtu) };
        vtep_spec(&config, &pool, subnet("10.5.52.0/24"), local.parse().unwrap(), Mtu(underlay_mtu), MacAddr::new([2, 0, 0, 0, 0, 1]))
    }

    #[test]
    fn the_mtu_is_the_outer_one_less_the_overhead_of_the_underlays_family() {
        assert_eq!(spec(1, "192.168.0.1", 1500, None).unwrap().mtu, Mtu(1450));
        assert_eq!(spec(1, "fd77::1", 1500, None).unwrap().mtu, Mtu(1430));
        assert_eq!(spec(1, "192.168.0.1", 1500, Some(1400)).unwrap().mtu, Mtu(1350), "Backend.MTU is the outer MTU");
        assert!(matches!(spec(1, "192.168.0.1", 117, None), Err(SpecError::MtuTooSmall { .. })));
        assert_eq!(spec(1, "192.168.0.1", 118, None).unwrap().mtu, Mtu(68));
    }

    #[test]
    fn a_vni_whose_device_cannot_be_named_is_refused() {
        assert_eq!(spec(9_999_999, "192.168.0.1", 1500, None).unwrap().name, "flannel.9999999");
        assert!(matches!(spec(10_000_000, "192.168.0.1", 1500, None), Err(SpecError::NameTooLong { .. })));
    }
}
