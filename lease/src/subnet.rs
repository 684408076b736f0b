//! Subnets: an address range with no host bits set.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use crate::excerpt::excerpt;

/// An IPv4 or IPv6 prefix whose host bits are zero, such as `10.5.52.0/24`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet(IpNetwork);

/// The text or the pair is not a subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Not of the form `ADDRESS/LENGTH`.
    #[error("{0:?} is not a subnet: ADDRESS/LENGTH is wanted, such as 10.5.0.0/16")]
    Malformed(String),
    /// Longer than the address.
    #[error("prefix length {len} is longer than the address {address}")]
    TooLong {
        /// The address that it was to belong to.
        address: IpAddr,
        /// The length in bits.
        len: u8,
    },
    /// Host bits are set.
    #[error("{address}/{len} has host bits set: {network} is meant")]
    HostBits {
        /// The address as given.
        address: IpAddr,
        /// The length in bits.
        len: u8,
        /// What it would be without host bits.
        network: Subnet,
    },
}

impl Subnet {
    /// The subnet of `len` bits at `address`.
    ///
    /// # Errors
    /// [`SubnetError::TooLong`] and [`SubnetError::HostBits`].
    pub fn new(address: IpAddr, len: u8) -> Result<Self, SubnetError> {
        let whole = Self::containing(address, len)?;
        if whole.address() == address { Ok(whole) } else { Err(SubnetError::HostBits { address, len, network: whole }) }
    }

    /// The subnet of `len` bits in which `address` lies.
    ///
    /// # Errors
    /// [`SubnetError::TooLong`].
    pub fn containing(address: IpAddr, len: u8) -> Result<Self, SubnetError> {
        let too_long = |_| SubnetError::TooLong { address, len };
        let network = IpNetwork::new(address, len).map_err(too_long)?;
        Ok(Self(IpNetwork::new(network.network(), len).map_err(too_long)?))
    }

    /// A network that is known to have no host bits set: it came of a subnet.
    pub(crate) fn without_host_bits(network: IpNetwork) -> Self {
        Self(network)
    }

    /// The single address as a subnet: /32 or /128.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self(IpNetwork::from(address))
    }

    /// Its first address, the network address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.0.ip()
    }

    /// Its length in bits.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a subnet is never empty")]
    pub fn len(self) -> u8 {
        self.0.prefix()
    }

    /// How many bits an address of its family has: 32 or 128.
    #[must_use]
    pub fn bits(self) -> u8 {
        if self.is_ipv4() { 32 } else { 128 }
    }

    /// Whether it is IPv4; else it is IPv6.
    #[must_use]
    pub fn is_ipv4(self) -> bool {
        self.0.is_ipv4()
    }

    /// Whether the address lies in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(address)
    }

    /// Whether all of `other` lies in it.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.len() <= other.len() && self.contains(other.address())
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The address `offset` after its first, or none where the family's space ends.
    #[must_use]
    pub fn nth(self, offset: u128) -> Option<IpAddr> {
        match self.address() {
            IpAddr::V4(first) => {
                let offset = u32::try_from(offset).ok()?;
                first.to_bits().checked_add(offset).map(|bits| Ipv4Addr::from_bits(bits).into())
            }
            IpAddr::V6(first) => first.to_bits().checked_add(offset).map(|bits| Ipv6Addr::from_bits(bits).into()),
        }
    }

    /// Its position, counted in subnets of its own length, within `network`. None where it does not lie there.
    #[must_use]
    pub fn index_in(self, network: Self) -> Option<u128> {
        if !network.covers(self) {
            return None;
        }
        let offset = bits_of(self.address()) - bits_of(network.address());
        Some(offset.checked_shr(u32::from(self.bits() - self.len())).unwrap_or(0))
    }

    /// The `ipnetwork` form, for callers that speak to other crates.
    #[must_use]
    pub fn to_ipnetwork(self) -> IpNetwork {
        self.0
    }
}

fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl From<Ipv4Addr> for Subnet {
    fn from(address: Ipv4Addr) -> Self {
        Self(Ipv4Network::from(address).into())
    }
}

impl From<Ipv6Addr> for Subnet {
    fn from(address: Ipv6Addr) -> Self {
        Self(Ipv6Network::from(address).into())
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address(), self.len())
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    /// Strict: `ADDRESS/LENGTH`, the length in plain decimal, no host bits.
    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let malformed = || SubnetError::Malformed(excerpt(text));
        let (address, len) = text.split_once('/').ok_or_else(malformed)?;
        Self::new(address.parse().map_err(|_| malformed())?, parse_len(len).ok_or_else(malformed)?)
    }
}

/// A prefix length: decimal digits alone, no sign and no leading zero.
pub(crate) fn parse_len(text: &str) -> Option<u8> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_strict_form_is_taken() {
        for text in ["10.5.52.0/24", "0.0.0.0/0", "fc00:db8::/48", "10.0.0.1/32"] {
            assert_eq!(subnet(text).to_string(), text);
        }
        for bad in [
            "10.5.52.0",
            "10.5.52.0/",
            "10.5.52.0/024",
            "10.5.52.0/+24",
            "10.5.52.0/33",
            "10.5.52.1/24",
            "010.5.52.0/24",
            "10.5.52.0/255.255.255.0",
            " 10.5.52.0/24",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad:?} was taken");
        }
        assert_eq!("10.5.52.1/24".parse::<Subnet>().unwrap_err().to_string(), "10.5.52.1/24 has host bits set: 10.5.52.0/24 is meant");
    }

    #[test]
    fn overlap_is_symmetric_and_covers_is_not() {
        let (wide, narrow, other) = (subnet("10.5.0.0/16"), subnet("10.5.52.0/24"), subnet("10.6.0.0/16"));
        assert!(wide.overlaps(narrow) && narrow.overlaps(wide) && !wide.overlaps(other));
        assert!(wide.covers(narrow) && !narrow.covers(wide) && wide.covers(wide));
        assert!(!wide.overlaps(subnet("fc00::/16")));
    }

    #[test]
    fn index_counts_in_its_own_length() {
        assert_eq!(subnet("10.5.52.0/24").index_in(subnet("10.5.0.0/16")), Some(52));
        assert_eq!(subnet("10.5.0.0/16").index_in(subnet("10.5.0.0/16")), Some(0));
        assert_eq!(subnet("10.6.0.0/24").index_in(subnet("10.5.0.0/16")), None);
        assert_eq!(subnet("fc00:db8:0:53::/64").index_in(subnet("fc00:db8::/48")), Some(0x53));
        assert_eq!(subnet("0.0.0.0/0").index_in(subnet("0.0.0.0/0")), Some(0));
    }
}
