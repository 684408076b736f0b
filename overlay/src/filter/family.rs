//! An address family: what differs by it in a packet and in nf_tables, as data.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lease::Subnet;

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What differs. Offsets and lengths in bytes.
#[derive(Debug)]
pub(super) struct Facts {
    /// `NFPROTO_IPV4`, `NFPROTO_IPV6` (include/uapi/linux/netfilter.h, v6.18).
    pub(super) nfproto: u8,
    /// `ETH_P_IP`, `ETH_P_IPV6` (include/uapi/linux/if_ether.h, v6.18).
    pub(super) ethertype: [u8; 2],
    /// Where the header has its addresses (RFC 791 §3.1, RFC 8200 §3), and how long one is.
    pub(super) source_at: u32,
    pub(super) target_at: u32,
    pub(super) address: u32,
    /// The second half of a concatenation of two addresses, as the kernel names it in a dump: the first register of four bytes behind
    /// the first four, the second register of sixteen (`nft_dump_register`, net/netfilter/nf_tables_api.c, v6.18).
    pub(super) register_behind: u32,
    /// nft's number for `ipv4_addr`, `ipv6_addr` (nft, `datatype.h`).
    pub(super) nft_type: u32,
    /// All multicast (RFC 5771 §3, RFC 4291 §2.7): the first byte, and how many of its bits count.
    pub(super) multicast: (u8, u8),
    /// The address of all zeros.
    pub(super) unspecified: IpAddr,
    /// The kernel's list of the tables that iptables-legacy has, below /proc/self/net.
    pub(super) legacy_tables: &'static str,
    /// What iptables' programs are called by.
    pub(super) xtables: &'static str,
    /// flanneld's table in its nftables form.
    pub(super) flannel_table: &'static str,
}

const V4: Facts = Facts {
    nfproto: 2,
    ethertype: [0x08, 0x00],
    source_at: 12,
    target_at: 16,
    address: 4,
    register_behind: 9,
    nft_type: 7,
    multicast: (0xe0, 4),
    unspecified: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    legacy_tables: "ip_tables_names",
    xtables: "iptables",
    flannel_table: "flannel-ipv4",
};

const V6: Facts = Facts {
    nfproto: 10,
    ethertype: [0x86, 0xdd],
    source_at: 8,
    target_at: 24,
    address: 16,
    register_behind: 2,
    nft_type: 8,
    multicast: (0xff, 8),
    unspecified: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    legacy_tables: "ip6_tables_names",
    xtables: "ip6tables",
    flannel_table: "flannel-ipv6",
};

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// A subnet's.
    #[must_use]
    pub fn of(subnet: Subnet) -> Self {
        Self::of_address(subnet.address())
    }

    pub(super) fn of_address(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) fn facts(self) -> &'static Facts {
        match self {
            Self::V4 => &V4,
            Self::V6 => &V6,
        }
    }

    /// The bits of an address.
    pub(super) fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// As nft names it.
impl fmt::Display for Family {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        })
    }
}

/// An address as it stands in a packet.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The same back: none where it is not as long as an address.
pub(super) fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from).ok();
    v4.or_else(|| <[u8; 16]>::try_from(octets).map(IpAddr::from).ok())
}

/// So many bytes, of which the first `len` bits are set.
pub(super) fn mask(bytes: u32, len: u8) -> Vec<u8> {
    let byte = |nth: u32| {
        let set = u32::from(len).saturating_sub(nth * 8).min(8);
        u8::MAX.checked_shl(8 - set).unwrap_or(0)
    };
    (0..bytes).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_as_many_bits_as_it_should() {
        assert_eq!(mask(4, 24), [255, 255, 255, 0]);
        assert_eq!(mask(4, 0), [0; 4]);
        assert_eq!(mask(4, 13), [255, 248, 0, 0]);
        assert_eq!(mask(16, 128), [255; 16]);
    }
}
