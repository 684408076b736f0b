//! All of the file or nothing, for who is going to make containers by it.
//!
//! A file that lacks a line, or has half of one, is not yet there: whoever writes it is at it, or was stopped at it.

use std::io;
use std::path::{Path, PathBuf};

use lease::{Mtu, Subnet};

use super::{FamilyEnv, IPMASQ, IPV6_NETWORK, IPV6_SUBNET, MTU, NETWORK, SUBNET, SubnetEnv, subnet_around, values, watch};

/// The file does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A line is missing.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// A family has one of its two lines.
    #[error("it has {there} without {missing}")]
    Half {
        /// The line that is there.
        there: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// A line says what cannot be.
    #[error("its {key} is {value:?}, which is no {wanted}")]
    Value {
        /// The line's name.
        key: &'static str,
        /// What it says, or the beginning of that.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not there.
    #[error("there is no {}", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It does not say what it should.
    #[error("{} is not complete: {why}", path.display())]
    Unusable {
        /// Where it is.
        path: PathBuf,
        /// What is amiss.
        why: Unusable,
    },
}

/// The longest value that is quoted: longer ones are no addresses (characters).
const QUOTED: usize = 64;

impl SubnetEnv {
    /// What the file at `path` says.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        match watch::read(path) {
            Ok(Some(text)) => Self::parse(&text).map_err(|why| ReadError::Unusable { path: path.to_owned(), why }),
            Ok(None) => Err(ReadError::Missing(path.to_owned())),
            Err(source) => Err(ReadError::Io { path: path.to_owned(), source }),
        }
    }

    /// What the file's text says. Of a line that is there twice the last counts, as in a shell.
    ///
    /// # Errors
    /// [`Unusable`], the first of what is amiss.
    pub fn parse(text: &str) -> Result<Self, Unusable> {
        let value = |wanted: &str| values(text).filter(|(key, _)| *key == wanted).map(|(_, value)| value).last();
        let v4 = family(&value, NETWORK, SUBNET, "IPv4 subnet", Subnet::is_ipv4)?;
        let v6 = family(&value, IPV6_NETWORK, IPV6_SUBNET, "IPv6 subnet", |subnet| !subnet.is_ipv4())?;
        if v4.is_none() && v6.is_none() {
            return Err(Unusable::Missing(SUBNET));
        }
        let mtu = parsed(MTU, "MTU", value(MTU).ok_or(Unusable::Missing(MTU))?, |value| value.parse().ok())?;
        let ip_masq = parsed(IPMASQ, "true or false", value(IPMASQ).ok_or(Unusable::Missing(IPMASQ))?, |value| value.parse().ok())?;
        Ok(Self { v4, v6, mtu: Mtu(mtu), ip_masq })
    }
}

/// One family's two lines, both or neither.
fn family<'a>(
    value: &impl Fn(&str) -> Option<&'a str>,
    network_key: &'static str,
    subnet_key: &'static str,
    wanted: &'static str,
    of_family: fn(Subnet) -> bool,
) -> Result<Option<FamilyEnv>, Unusable> {
    let subnet = |key, value| parsed(key, wanted, value, |value| subnet_around(value).filter(|subnet| of_family(*subnet)));
    match (value(network_key), value(subnet_key)) {
        (Some(network), Some(own)) => Ok(Some(FamilyEnv { network: subnet(network_key, network)?, subnet: subnet(subnet_key, own)? })),
        (Some(_), None) => Err(Unusable::Half { there: network_key, missing: subnet_key }),
        (None, Some(_)) => Err(Unusable::Half { there: subnet_key, missing: network_key }),
        (None, None) => Ok(None),
    }
}

fn parsed<T>(key: &'static str, wanted: &'static str, value: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, Unusable> {
    parse(value).ok_or_else(|| Unusable::Value { key, value: value.chars().take(QUOTED).collect(), wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.52.1/24\nFLANNEL_IPV6_NETWORK=fd05::/48\nFLANNEL_IPV6_SUBNET=fd05:0:0:34::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

    #[test]
    fn what_is_whole_is_read_and_is_the_same_again_when_written() {
        let env = SubnetEnv::parse(WHOLE).unwrap();
        assert_eq!(env.render(), WHOLE);
        for family in ["FLANNEL_IPV6", "FLANNEL_NETWORK FLANNEL_SUBNET"] {
            let rest: String =
                WHOLE.lines().filter(|line| !family.split(' ').any(|key| line.starts_with(key))).map(|l| format!("{l}\n")).collect();
            assert_eq!(SubnetEnv::parse(&rest).unwrap().render(), rest);
        }
    }

    #[test]
    fn a_file_that_was_cut_off_anywhere_is_refused_until_its_last_word_is_whole() {
        let whole = WHOLE.trim_end().len();
        for end in 0..whole {
            let error = SubnetEnv::parse(&WHOLE[..end]).unwrap_err().to_string();
            assert!(error.contains("FLANNEL_"), "{end}: {error}");
        }
        assert!(SubnetEnv::parse(&WHOLE[..whole]).is_ok());
    }

    #[test]
    fn what_is_amiss_is_named() {
        for (from, to, named) in [
            ("1450", "-1", "FLANNEL_MTU"),
            ("=true", "=yes", "true or false"),
            ("10.5.52.1/24", "fd05::1/64", "IPv4 subnet"),
            ("fd05::/48", "fd05::/129", "FLANNEL_IPV6_NETWORK"),
            ("FLANNEL_NETWORK", "X", "without FLANNEL_NETWORK"),
        ] {
            let error = SubnetEnv::parse(&WHOLE.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
