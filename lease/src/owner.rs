//! Which host a lease belongs to, whatever its address is today, and in which of its boots it was written.

use std::fmt;
use std::str::FromStr;

/// A host's identity: the same after a restart, a reboot or a change of address; different on a clone with another network card.
///
/// Written into the lease record as 32 hex digits, in a field that flanneld ignores.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner([u8; 16]);

/// The text is not 32 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no owner identity: 32 hex digits are wanted")]
pub struct OwnerError(String);

impl Owner {
    /// The identity with these bytes, usually part of a digest.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for Owner {
    type Err = OwnerError;

    fn from_str(text: &str) -> Result<Self, OwnerError> {
        if text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            let number = u128::from_str_radix(text, 16).map_err(|_| OwnerError(text.to_owned()))?;
            Ok(Self(number.to_be_bytes()))
        } else {
            Err(OwnerError(text.to_owned()))
        }
    }
}

/// One boot of a host: the same after a restart of the agent, another after a reboot and on a clone that runs beside it.
///
/// Written into the lease record as 16 hex digits. A host whose own record comes back from another boot knows by that,
/// as long as it lives, that a clone of it lives too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Boot(u64);

/// The text is not 16 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no boot identity: 16 hex digits are wanted")]
pub struct BootError(String);

impl Boot {
    /// The boot with this number, usually part of a digest.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

impl FromStr for Boot {
    type Err = BootError;

    fn from_str(text: &str) -> Result<Self, BootError> {
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or_else(|| BootError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_16_hex_digits() {
        assert_eq!("00000000000000ff".parse::<Boot>().map(|boot| boot.to_string()), Ok("00000000000000ff".to_owned()));
        for bad in ["", "ff", "+0000000000000ff", "0000000000000000f"] {
            assert!(bad.parse::<Boot>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn text_round_trips_and_only_32_hex_digits_are_taken() {
        let text = "00112233445566778899aabbccddeeff";
        assert_eq!(text.parse::<Owner>().unwrap().to_string(), text);
        for bad in ["", "00", "+0112233445566778899aabbccddeeff", "00112233445566778899aabbccddeeff0", "g0112233445566778899aabbccddeeff"] {
            assert!(bad.parse::<Owner>().is_err(), "{bad:?} was taken");
        }
    }
}
