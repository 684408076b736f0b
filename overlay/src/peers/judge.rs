//! Whether one lease's record makes a peer. Rules that need no other lease; conflicts between leases are [`Peers`](super::Peers)' matter.

use std::net::IpAddr;

use lease::{BackendType, Entry, LeaseKey, MacAddr, RecordError, Subnet, Vni, VtepData};

use crate::desired::Peer;

/// This host's place in the overlay, for one address family: what the other hosts' records are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The key of our own lease.
    pub key: LeaseKey,
    /// Our own subnet, of the VTEP's family.
    pub subnet: Subnet,
    /// The whole overlay network.
    pub network: Subnet,
    /// The length in bits of one host's subnet: a larger one is nobody's lease.
    pub subnet_len: u8,
    /// Our VTEP; none on a host-gw host. Who does as we do is a peer.
    pub vtep: Option<VtepData>,
    /// Our addresses on the underlay: the interface's and the advertised one.
    pub addresses: Vec<IpAddr>,
}

/// Why a lease makes no peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The value cannot be read.
    #[error(transparent)]
    Unreadable(#[from] RecordError),
    /// A field is missing.
    #[error("lacks {0}")]
    Missing(&'static str),
    /// It is of another network.
    #[error("VNI {theirs} is not ours, {ours}")]
    Vni {
        /// What the record says.
        theirs: Vni,
        /// What we have.
        ours: Vni,
    },
    /// The MAC is no station's.
    #[error("VtepMAC {0} is no station's address (multicast or all zero)")]
    Mac(MacAddr),
    /// The MAC is that of our own VTEP.
    #[error("VtepMAC {0} is our own: a clone of this host? remove one's flannel device and lease")]
    OwnMac(MacAddr),
    /// The address cannot be a host's.
    #[error("public address {0} is no usable unicast address")]
    Address(IpAddr),
    /// The address is ours.
    #[error("public address {0} is our own: a lease that this host left behind, or another host with our address")]
    OwnAddress(IpAddr),
    /// The tunnel's packets would be routed into the tunnel.
    #[error("public address {dst} lies within {subnet}, which is reached through the tunnel itself")]
    Inside {
        /// The lease's address.
        dst: IpAddr,
        /// Its own subnet, or ours.
        subnet: Subnet,
    },
    /// The subnet is not of this network.
    #[error("subnet {subnet} does not lie in the network {network}")]
    Outside {
        /// The lease's.
        subnet: Subnet,
        /// The configured one.
        network: Subnet,
    },
    /// The subnet is larger than a host's may be.
    #[error("subnet {subnet} is larger than SubnetLen {subnet_len} allows")]
    TooLarge {
        /// The lease's.
        subnet: Subnet,
        /// The configured length.
        subnet_len: u8,
    },
    /// The subnet overlaps ours.
    #[error("subnet {0} overlaps our own, {1}")]
    OverlapsOwn(Subnet, Subnet),
    /// The subnet overlaps that of an older lease.
    #[error("subnet overlaps that of the older lease {0}")]
    Overlaps(LeaseKey),
    /// An older lease has the same MAC at another address.
    #[error("VtepMAC {mac} is that of the older lease {key} too: a clone? give one of the two another MAC")]
    SameMac {
        /// The MAC.
        mac: MacAddr,
        /// The older lease.
        key: LeaseKey,
    },
}

/// What a lease is to this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A peer.
    Peer(Peer),
    /// Nothing: our own lease, one without a subnet of this family, or one of a host that does otherwise than we do (VXLAN or host-gw; named).
    None(Option<BackendType>),
    /// A record that must not be acted on.
    Reject(Reject),
}

/// Holds one lease against this host's place in the overlay.
#[must_use]
pub fn judge(local: &Local, entry: &Entry) -> Verdict {
    let subnet = if local.network.is_ipv4() { entry.key.v4() } else { entry.key.v6() };
    let Some(subnet) = subnet.filter(|_| entry.key != local.key) else { return Verdict::None(None) };
    let record = match &entry.record {
        Ok(record) => record,
        Err(error) => return Verdict::Reject(Reject::Unreadable(error.clone())),
    };
    let ours = match record.backend {
        BackendType::Vxlan => local.vtep.is_some(),
        BackendType::HostGw => local.vtep.is_none(),
        BackendType::Alloc => return Verdict::Reject(Reject::Missing("BackendType")),
        BackendType::Other(_) => false,
    };
    if !ours {
        return Verdict::None(Some(record.backend.clone()));
    }
    let (vtep, missing, address) = if local.network.is_ipv4() {
        (record.vtep, "BackendData", record.public_ip.map(IpAddr::from).ok_or(Reject::Missing("PublicIP")))
    } else {
        (record.vtep_v6, "BackendV6Data", record.public_ipv6.map(IpAddr::from).ok_or(Reject::Missing("PublicIPv6")))
    };
    let mac = match (local.vtep, vtep) {
        (None, _) => Ok(None),
        (Some(_), None) => Err(Reject::Missing(missing)),
        (Some(ours), Some(theirs)) if theirs.vni != ours.vni => Err(Reject::Vni { theirs: theirs.vni, ours: ours.vni }),
        (Some(_), Some(theirs)) => Ok(Some(theirs.mac)),
    };
    let peer = mac.and_then(|mac| Ok(Peer { subnet, mac, dst: address? }));
    match peer.and_then(|peer| check(local, peer)) {
        Ok(peer) => Verdict::Peer(peer),
        Err(reject) => Verdict::Reject(reject),
    }
}

/// The rules that hold for every peer, wherever we have it from.
pub(super) fn check(local: &Local, peer: Peer) -> Result<Peer, Reject> {
    let Peer { subnet, mac, dst } = peer;
    if let Some(mac) = mac {
        if !mac.is_station() {
            return Err(Reject::Mac(mac));
        }
        if local.vtep.is_some_and(|ours| ours.mac == mac) {
            return Err(Reject::OwnMac(mac));
        }
    }
    if !usable(dst) {
        return Err(Reject::Address(dst));
    }
    if local.addresses.contains(&dst) {
        return Err(Reject::OwnAddress(dst));
    }
    // An underlay that is a part of the Network which is never leased is no mistake.
    if let Some(subnet) = [subnet, local.subnet].into_iter().find(|subnet| subnet.contains(dst)) {
        return Err(Reject::Inside { dst, subnet });
    }
    if !local.network.covers(subnet) {
        return Err(Reject::Outside { subnet, network: local.network });
    }
    if subnet.len() < local.subnet_len {
        return Err(Reject::TooLarge { subnet, subnet_len: local.subnet_len });
    }
    if subnet.overlaps(local.subnet) {
        return Err(Reject::OverlapsOwn(subnet, local.subnet));
    }
    Ok(peer)
}

/// Whether a host can be reached at the address: not unspecified, loopback, multicast or broadcast.
fn usable(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast)
}
