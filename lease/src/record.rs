//! What a host says of itself in its lease.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Boot, Family, MacAddr, Owner, Vni};

/// One host's lease record, the value under its key, as far as loden reads it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeaseRecord {
    /// Where the host is reached over IPv4. None where flannel writes `0.0.0.0`, in an IPv6-only network.
    pub public_ip: Option<Ipv4Addr>,
    /// Where the host is reached over IPv6.
    pub public_ipv6: Option<Ipv6Addr>,
    /// How the host carries traffic.
    pub backend: BackendType,
    /// Its IPv4 VTEP.
    pub vtep: Option<VtepData>,
    /// Its IPv6 VTEP.
    pub vtep_v6: Option<VtepData>,
    /// Which host wrote the record; none where flanneld did.
    pub owner: Option<Owner>,
    /// The boot in which it wrote it; none where flanneld did.
    pub boot: Option<Boot>,
}

impl LeaseRecord {
    /// Where the host is reached in a family.
    #[must_use]
    pub fn public_address(&self, family: Family) -> Option<IpAddr> {
        family.pick(self.public_ip.map(IpAddr::from), self.public_ipv6.map(IpAddr::from))
    }

    /// The host's VTEP of a family.
    #[must_use]
    pub fn vtep_of(&self, family: Family) -> Option<VtepData> {
        family.pick(self.vtep, self.vtep_v6)
    }
}

/// The backend that a record names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BackendType {
    /// `vxlan`.
    Vxlan,
    /// `host-gw`.
    HostGw,
    /// None, as flannel's `alloc` writes it.
    Alloc,
    /// One that loden does not speak.
    Other(Box<str>),
}

/// The VXLAN tunnel endpoint that a record names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VtepData {
    /// Its network identifier.
    pub vni: Vni,
    /// The address that frames to it carry.
    pub mac: MacAddr,
}

/// Why a value is not a lease record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Hash)]
pub enum RecordError {
    /// Not JSON, or a field of another type than it should have.
    #[error("not a lease record: {0}")]
    Json(String),
    /// A field that has to be there is not.
    #[error("lacks {0}")]
    Missing(&'static str),
    /// A field's text cannot be read.
    #[error("{field} is {value:?}: {reason}")]
    Field {
        /// The field's name in the JSON.
        field: &'static str,
        /// What stands there.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What stands in a Node's annotations is no record.
    #[error("annotations of Node {node}: {error}")]
    Node {
        /// The Node's name.
        node: String,
        /// Which annotation, by the end of its name, and what is wrong with it.
        error: Box<RecordError>,
    },
}
