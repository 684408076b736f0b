//! What an earlier run wrote, for the agent's start: as much of it as can be read.

use std::path::Path;

use lease::{LeaseKey, Subnet};

use super::{IPV6_NETWORK, IPV6_SUBNET, NETWORK, SUBNET, subnet_around, values, watch};

/// What an earlier run wrote, as far as it can be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remembered {
    /// The IPv4 network it was for.
    pub network: Option<Subnet>,
    /// The IPv4 subnet that this host had.
    pub subnet: Option<Subnet>,
    /// The IPv6 network it was for.
    pub ipv6_network: Option<Subnet>,
    /// The IPv6 subnet that this host had.
    pub ipv6_subnet: Option<Subnet>,
    /// What could not be read, for the log.
    pub warnings: Vec<String>,
}

impl Remembered {
    /// What the file's text says. Lines that are not known are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for (key, value) in values(text) {
            let (slot, ipv4) = match key {
                NETWORK => (&mut found.network, true),
                SUBNET => (&mut found.subnet, true),
                IPV6_NETWORK => (&mut found.ipv6_network, false),
                IPV6_SUBNET => (&mut found.ipv6_subnet, false),
                _ => continue,
            };
            *slot = subnet_around(value).filter(|subnet| subnet.is_ipv4() == ipv4);
            if slot.is_none() {
                found.warnings.push(format!("{key} is {value:?}, which is no subnet of its family"));
            }
        }
        found
    }

    /// What the file at `path` says. A file that is not there says nothing, and that is no warning.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        match watch::read(path) {
            Ok(Some(text)) => Self::parse(&text),
            Ok(None) => Self::default(),
            Err(error) => Self { warnings: vec![format!("cannot read it: {error}")], ..Self::default() },
        }
    }

    /// The lease that this host had.
    #[must_use]
    pub fn key(&self) -> Option<LeaseKey> {
        LeaseKey::new(self.subnet, self.ipv6_subnet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_file_is_a_warning_and_the_rest_of_it_is_used() {
        let read = Remembered::parse(
            "junk\n# FLANNEL_SUBNET=1\nFLANNEL_NETWORK=10.5.0.0/99\nexport FLANNEL_SUBNET=\"10.5.3.1/24\"\r\nFLANNEL_IPV6_SUBNET\u{b}=10.5.4.1/24\n",
        );
        assert_eq!((read.network, read.ipv6_subnet), (None, None));
        assert_eq!(read.key().unwrap().to_string(), "10.5.3.0-24");
        assert_eq!(read.warnings.len(), 2, "{:?}", read.warnings);
        assert!(!read.warnings.concat().contains(char::is_control), "{:?}", read.warnings);
    }

    #[test]
    fn what_is_no_file_or_no_text_is_a_warning_and_a_missing_file_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Remembered::read(&directory.path().join("none")), Remembered::default());
        assert_eq!(Remembered::read(directory.path()).warnings.len(), 1);
        let path = directory.path().join("binary");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(Remembered::read(&path).warnings.len(), 1);
    }
}
