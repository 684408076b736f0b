//! An address family: what differs by it in a packet and in nf_tables, as data.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lease::{Family, Subnet};

/// What differs. Offsets and lengths in bytes.
#[derive(Debug)]
pub(super) struct Facts {
    /// `NFPROTO_IPV4`, `NFPROTO_IPV6` (include/uapi/linux/netfilter.h, v6.18).
    pub(super) nfproto: u8,
    /// As nft names it.
    pub(super) nft: &'static str,
    /// `ETH_P_IP`, `ETH_P_IPV6` (include/uapi/linux/if_ether.h, v6.18).
    pub(super) ethertype: [u8; 2],
    /// Where the header has its addresses (RFC 791 §3.1, RFC 8200 §3), and how long one is.
    pub(super) source_at: u32,
    pub(super) target_at: u32,
    pub(super) address: u32,
    pub(super) bits: u8,
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
    nft: "ip",
    ethertype: [0x08, 0x00],
    source_at: 12,
    target_at: 16,
    address: 4,
    bits: 32,
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
    nft: "ip6",
    ethertype: [0x86, 0xdd],
    source_at: 8,
    target_at: 24,
    address: 16,
    bits: 128,
    register_behind: 2,
    nft_type: 8,
    multicast: (0xff, 8),
    unspecified: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    legacy_tables: "ip6_tables_names",
    xtables: "ip6tables",
    flannel_table: "flannel-ipv6",
};

/// What differs by this family.
pub(super) fn facts(family: Family) -> &'static Facts {
    family.pick(&V4, &V6)
}

/// The family that nf_tables knows by this number; none where it is another, or both.
pub(super) fn by_number(nfproto: u8) -> Option<Family> {
    Family::ALL.into_iter().find(|family| facts(*family).nfproto == nfproto)
}

/// A subnet's family.
pub(super) fn of(subnet: Subnet) -> Family {
    Family::of(subnet.address())
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
