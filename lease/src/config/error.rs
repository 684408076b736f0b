//! Which rule a network configuration breaks.

use std::net::IpAddr;

use crate::{Subnet, SubnetError};

/// Why a text is no network configuration: one variant for each rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or a field of another type than it should have.
    #[error("not a network configuration: {0}")]
    Json(String),
    /// Neither family is on.
    #[error("EnableIPv4 is false and EnableIPv6 is not true: at least one of them has to be on")]
    NoFamily,
    /// A family is on and has no network.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The network is not of the form ADDRESS/LENGTH.
    #[error("{field}: {reason}")]
    NotSubnet {
        /// The field's name in the JSON.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An IPv6 network where an IPv4 one should be, or the other way round.
    #[error("{field} is {network}, which is of the other address family")]
    WrongFamily {
        /// The field's name in the JSON.
        field: &'static str,
        /// What stands there.
        network: Subnet,
    },
    /// A network of addresses that no host can have.
    #[error("{field} is {network}: no host can have such an address; a private network such as 10.5.0.0/16 is meant")]
    NotForHosts {
        /// The field's name in the JSON.
        field: &'static str,
        /// What stands there.
        network: Subnet,
    },
    /// The network has no room for subnets.
    #[error("{field} is {network}: it has to be a /{longest} or larger to have room for subnets")]
    NetworkTooSmall {
        /// The field's name in the JSON.
        field: &'static str,
        /// What stands there.
        network: Subnet,
        /// The longest prefix that is possible.
        longest: u8,
    },
    /// The subnets are so large that the network has not room for more than two.
    #[error("{field} is {len}: in {network} it has to be {least} or more, so that more than two subnets fit")]
    SubnetTooLarge {
        /// The field's name in the JSON.
        field: &'static str,
        /// What stands there.
        len: u8,
        /// The network that the subnets are to lie in.
        network: Subnet,
        /// The shortest length that is possible.
        least: u8,
    },
    /// A number is too small or too large.
    #[error("{field} is {value}: {min} to {max} are possible")]
    OutOfRange {
        /// The field's name in the JSON.
        field: &'static str,
        /// What stands there.
        value: i64,
        /// The smallest that is possible.
        min: i64,
        /// The largest that is possible.
        max: i64,
    },
    /// SubnetMin or SubnetMax is not an address.
    #[error("{field} is {value:?}, which is not an IP address")]
    NotAddress {
        /// The field's name in the JSON.
        field: &'static str,
        /// What stands there.
        value: String,
    },
    /// SubnetMin or SubnetMax does not lie in the network.
    #[error("{field} is {address}, which does not lie in {network}")]
    OutsideNetwork {
        /// The field's name in the JSON.
        field: &'static str,
        /// What stands there.
        address: IpAddr,
        /// Where it should lie.
        network: Subnet,
    },
    /// SubnetMin or SubnetMax is not where a subnet begins.
    #[error("{field} is {address}, which is not the beginning of a subnet of length {len}")]
    NotOnBoundary {
        /// The field's name in the JSON.
        field: &'static str,
        /// What stands there.
        address: IpAddr,
        /// The subnets' length.
        len: u8,
    },
    /// The first subnet lies behind the last.
    #[error("{field} is {min}, which lies behind the last subnet, {max}")]
    MinAboveMax {
        /// The lower bound's name in the JSON.
        field: &'static str,
        /// The lower bound.
        min: Subnet,
        /// The upper bound.
        max: Subnet,
    },
    /// A backend that loden does not have.
    #[error("Backend.Type is {0:?}, which is not supported: vxlan, host-gw and alloc are")]
    UnknownBackend(String),
}

impl ConfigError {
    pub(super) fn not_subnet(field: &'static str, error: &SubnetError) -> Self {
        Self::NotSubnet { field, reason: error.to_string() }
    }
}
