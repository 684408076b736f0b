//! The key under which a lease stands: `10.5.52.0-24`, and in dual-stack `10.5.52.0-24&fc00:db8:1::-64`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use crate::Family;
use crate::excerpt::excerpt;
use crate::subnet::{Subnet, parse_len};

/// The subnets of one lease. At least one of the two is there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    // Not as `Subnet`s, each of which has room for either family: there is one key for each of very many leases.
    v4: Option<Ipv4Network>,
    v6: Option<Ipv6Network>,
}

/// The key names no subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no subnet key: ADDRESS-LENGTH is wanted, such as 10.5.52.0-24, in dual-stack with &ADDRESS-LENGTH after it")]
pub struct KeyError {
    text: String,
}

/// What flannel writes for IPv4 in an IPv6-only network.
const NO_IPV4: &str = "0.0.0.0-0";

impl LeaseKey {
    /// The key of these subnets: `v4` must be IPv4, `v6` IPv6, and one of them there; else none.
    #[must_use]
    pub fn new(v4: Option<Subnet>, v6: Option<Subnet>) -> Option<Self> {
        let v4 = match v4.map(Subnet::to_ipnetwork) {
            Some(IpNetwork::V6(_)) => return None,
            Some(IpNetwork::V4(v4)) => Some(v4),
            None => None,
        };
        let v6 = match v6.map(Subnet::to_ipnetwork) {
            Some(IpNetwork::V4(_)) => return None,
            Some(IpNetwork::V6(v6)) => Some(v6),
            None => None,
        };
        (v4.is_some() || v6.is_some()).then_some(Self { v4, v6 })
    }

    /// The IPv4 subnet; none in an IPv6-only network.
    #[must_use]
    pub fn v4(self) -> Option<Subnet> {
        self.v4.map(|v4| Subnet::without_host_bits(v4.into()))
    }

    /// The IPv6 subnet, where there is one.
    #[must_use]
    pub fn v6(self) -> Option<Subnet> {
        self.v6.map(|v6| Subnet::without_host_bits(v6.into()))
    }

    /// The subnet of a family, where there is one.
    #[must_use]
    pub fn subnet(self, family: Family) -> Option<Subnet> {
        family.pick(self.v4(), self.v6())
    }

    /// Whether the two have an address in common, in either family.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let both = |a: Option<Subnet>, b: Option<Subnet>| a.zip(b).is_some_and(|(a, b)| a.overlaps(b));
        both(self.v4(), other.v4()) || both(self.v6(), other.v6())
    }
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { v4, v6 } = self;
        match v4 {
            Some(v4) => write!(out, "{}-{}", v4.ip(), v4.prefix())?,
            None => out.write_str(NO_IPV4)?,
        }
        v6.map_or(Ok(()), |v6| write!(out, "&{}-{}", v6.ip(), v6.prefix()))
    }
}

impl fmt::Debug for LeaseKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for LeaseKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bad = || KeyError { text: excerpt(text) };
        let (first, second) = match text.split_once('&') {
            Some((first, second)) => (first, Some(second)),
            None => (text, None),
        };
        let v4 = if first == NO_IPV4 { None } else { Some(part(first).ok_or_else(bad)?) };
        let v6 = second.map(|second| part(second).ok_or_else(bad)).transpose()?;
        // `0.0.0.0-0` stands for "no IPv4"; any other spelling of that subnet is no lease.
        if v4.is_some_and(|v4| v4.address() == Ipv4Addr::UNSPECIFIED) {
            return Err(bad());
        }
        Self::new(v4, v6).ok_or_else(bad)
    }
}

fn part(text: &str) -> Option<Subnet> {
    let (address, len) = text.rsplit_once('-')?;
    Subnet::new(address.parse().ok()?, parse_len(len)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_flanneld_writes_round_trips() {
        for text in ["10.5.52.0-24", "10.5.30.128-26", "10.5.36.0-24&fc00:db8:0:51::-64", "0.0.0.0-0&fc00:db8:0:5d::-64"] {
            assert_eq!(text.parse::<LeaseKey>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_subnet_is_refused() {
        for bad in [
            "",
            "test",
            "0.0.0.0-0",
            "0.0.0.0-8",
            "10.5.52.1-24",
            "10.5.52.0-33",
            "10.5.52.0-024",
            "10.5.52.0/24",
            "fc00::-64",
            "10.5.52.0-24&",
            "10.5.52.0-24&10.6.0.0-24",
            "10.5.52.0-24&fc00::1-64",
        ] {
            assert!(bad.parse::<LeaseKey>().is_err(), "{bad:?} was taken");
        }
    }
}
