//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use crate::excerpt::excerpt;

/// A 48-bit Ethernet address (IEEE 802).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

/// The text is not six pairs of hex digits between colons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a MAC address: six pairs of hex digits between colons are wanted")]
pub struct MacError {
    text: String,
}

impl MacAddr {
    /// The address with these octets, first on the wire first.
    #[must_use]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// Its octets, first on the wire first.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// An address that a single station may bear: neither multicast (group bit, IEEE 802-2014 §8.2) nor all zero.
    #[must_use]
    pub const fn is_station(self) -> bool {
        let [first, b, c, d, e, f] = self.0;
        first & 0x01 == 0 && (first | b | c | d | e | f) != 0
    }

    /// The same octets made a locally administered station address (bit 1 set, bit 0 clear).
    #[must_use]
    pub const fn locally_administered(self) -> Self {
        let [first, b, c, d, e, f] = self.0;
        Self([(first | 0x02) & 0xfe, b, c, d, e, f])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for MacAddr {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let bad = || MacError { text: excerpt(text) };
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(bad)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(octets)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_only_six_hex_pairs_are_taken() {
        let mac: MacAddr = "c6:D2:32:6f:8f:44".parse().unwrap();
        assert_eq!(mac.to_string(), "c6:d2:32:6f:8f:44");
        for bad in ["", "c6:d2:32:6f:8f", "c6:d2:32:6f:8f:44:55", "c6-d2-32-6f-8f-44", "+6:d2:32:6f:8f:44", "c:d2:32:6f:8f:44"] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn multicast_broadcast_and_zero_are_no_station() {
        for (text, station) in [
            ("00:00:00:00:00:00", false),
            ("ff:ff:ff:ff:ff:ff", false),
            ("01:00:5e:00:00:01", false),
            ("02:00:00:00:00:00", true),
            ("00:00:00:00:00:01", true),
        ] {
            assert_eq!(text.parse::<MacAddr>().unwrap().is_station(), station, "{text}");
        }
        assert!(MacAddr::new([0xff; 6]).locally_administered().is_station());
    }
}
