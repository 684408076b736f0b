//! Made-up hosts: the nth is always the same, no two share anything, and each record is one that flanneld could have written.

use std::net::Ipv4Addr;

/// The network: room for 65 536 subnets of 24 bits.
pub(crate) const CONFIG: &str = r#"{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}"#;
/// Where flannel's network configuration stands.
pub(crate) const CONFIG_KEY: &str = "/coreos.com/network/config";
/// Where flannel's lease records stand.
pub(crate) const SUBNETS: &str = "/coreos.com/network/subnets/";
/// The length of each host's subnet.
pub(crate) const SUBNET_LEN: u8 = 24;

/// The first made-up subnet is 10.1.0.0/24: those before it are left to the agent under test, which takes one of the
/// first hundred that are free.
const FIRST: u32 = 256;
/// Public addresses, outside the overlay: 172.16.0.0/12 (RFC 1918) has room for a million.
const UNDERLAY: u32 = 0xac10_0000;
const OVERLAY: u32 = 0x0a00_0000;

/// One made-up host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// The subnet's network address.
    pub(crate) subnet: Ipv4Addr,
    /// The VTEP's MAC.
    pub(crate) mac: [u8; 6],
    /// Where the host is reached.
    pub(crate) host: Ipv4Addr,
    /// A metric that no other's route has: what keeps the kernel's insertion linear.
    pub(crate) metric: u32,
}

/// The nth.
pub(crate) fn peer(n: u32) -> Peer {
    let [a, b, c, d] = n.to_be_bytes();
    let number = FIRST + n;
    Peer {
        subnet: Ipv4Addr::from_bits(OVERLAY + (number << 8)),
        mac: [0x0a, 0x58, a, b, c, d],
        host: Ipv4Addr::from_bits(UNDERLAY + n),
        metric: number + 1,
    }
}

/// The first so many.
pub(crate) fn peers(count: u32) -> impl Iterator<Item = Peer> {
    (0..count).map(peer)
}

impl Peer {
    /// The key of the lease.
    pub(crate) fn key(&self) -> String {
        format!("{SUBNETS}{}-{SUBNET_LEN}", self.subnet)
    }

    /// The record under it.
    pub(crate) fn record(&self) -> String {
        let [a, b, c, d, e, f] = self.mac;
        format!(
            r#"{{"PublicIP":"{}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"}}}}"#,
            self.host
        )
    }
}
