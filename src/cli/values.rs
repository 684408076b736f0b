//! The values that flags take, as types. Each error names the value and what would do instead.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// A flag's value is not what it takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

fn wrong<T>(message: impl Into<String>) -> Result<T, ValueError> {
    Err(ValueError(message.into()))
}

/// A boolean in any spelling that Go's `strconv.ParseBool` takes.
///
/// # Errors
/// Anything else.
pub(super) fn go_bool(text: &str) -> Result<bool, ValueError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => wrong(format!("{other:?} is neither true nor false")),
    }
}

/// A UDP or TCP port; 0 means off where a flag says so.
///
/// # Errors
/// Anything that is not a number from 0 to 65535.
pub(super) fn port(text: &str) -> Result<u16, ValueError> {
    text.parse().or_else(|_| wrong(format!("{text:?} is no port: a number from 0 to 65535 is wanted")))
}

/// An address of either family.
///
/// # Errors
/// Anything else.
pub(super) fn ip(text: &str) -> Result<IpAddr, ValueError> {
    text.parse().or_else(|_| wrong(format!("{text:?} is no IP address")))
}

/// An IPv4 address that a host can be reached at.
///
/// # Errors
/// Anything else.
pub(super) fn public_ipv4(text: &str) -> Result<Ipv4Addr, ValueError> {
    let Ok(address) = text.parse::<Ipv4Addr>() else { return wrong(format!("{text:?} is no IPv4 address")) };
    let usable = !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast());
    if usable { Ok(address) } else { wrong(format!("{address} cannot be reached by other hosts: give a unicast address")) }
}

/// An IPv6 address that a host can be reached at.
///
/// # Errors
/// Anything else.
pub(super) fn public_ipv6(text: &str) -> Result<Ipv6Addr, ValueError> {
    let Ok(address) = text.parse::<Ipv6Addr>() else { return wrong(format!("{text:?} is no IPv6 address")) };
    let usable = !(address.is_unspecified() || address.is_loopback() || address.is_multicast());
    if usable { Ok(address) } else { wrong(format!("{address} cannot be reached by other hosts: give a unicast address")) }
}

/// How long before its end a lease is renewed at the latest. Less than the day that a lease lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RenewMargin(Duration);

impl RenewMargin {
    /// It as a time.
    #[must_use]
    pub(super) fn as_duration(self) -> Duration {
        self.0
    }
}

impl FromStr for RenewMargin {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        // A lease lives 24 h = 1440 minutes, so the margin is at least one minute and less than all of it.
        match text.parse::<u64>() {
            Ok(minutes @ 1..=1439) => Ok(Self(Duration::from_secs(minutes * 60))),
            _ => wrong(format!("{text:?} is no renewal margin: 1 to 1439 minutes are possible")),
        }
    }
}

/// An interface, as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfaceSelector {
    /// By its name.
    Name(String),
    /// By an address that it bears.
    Address(IpAddr),
}

/// The longest name that an interface can have, in bytes: IFNAMSIZ less its NUL (Linux v6.18 include/uapi/linux/if.h).
const IFACE_NAME_MAX: usize = 16 - 1;

impl FromStr for IfaceSelector {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let named = !text.is_empty() && text.len() <= IFACE_NAME_MAX && !text.contains(|c: char| c == '/' || c.is_whitespace());
        if named {
            Ok(Self::Name(text.to_owned()))
        } else {
            wrong(format!("{text:?} is neither an IP address nor an interface name (at most {IFACE_NAME_MAX} bytes, no slash or space)"))
        }
    }
}

impl fmt::Display for IfaceSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => out.write_str(name),
            Self::Address(address) => address.fmt(out),
        }
    }
}

/// A pattern for interfaces.
///
/// # Errors
/// What does not compile, with the first reason only: it has to fit a line.
pub(super) fn pattern(text: &str) -> Result<regex::Regex, ValueError> {
    regex::Regex::new(text).or_else(|error| {
        let all = error.to_string();
        let reason = all.lines().last().unwrap_or_default().trim_start_matches("error: ");
        wrong(format!("{text:?} is no regular expression: {reason}"))
    })
}

/// A file that is to be written: a path that ends in a file name.
///
/// # Errors
/// A path that names a directory, or the name that is kept for the status socket.
pub(super) fn subnet_file(text: &str) -> Result<PathBuf, ValueError> {
    let path = Path::new(text);
    if text.ends_with('/') || path.file_name().is_none() {
        return wrong(format!("{text:?} names no file: give one, such as /run/flannel/subnet.env"));
    }
    if path.extension().is_some_and(|extension| extension == "sock") {
        return wrong(format!("{text:?} is where the status socket would stand: give the file another extension"));
    }
    Ok(path.to_owned())
}

/// A file for the agent's own state; none where it is to keep none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StateFile(pub(super) Option<PathBuf>);

impl FromStr for StateFile {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let path = Path::new(text);
        match text {
            "none" => Ok(Self(None)),
            _ if text.ends_with('/') || path.file_name().is_none() => {
                wrong(format!("{text:?} names no file: give one, such as /var/lib/loden/state, or none"))
            }
            _ => Ok(Self(Some(path.to_owned()))),
        }
    }
}

/// The routing tables that the kernel keeps for itself: none, default, main and local (Linux v6.18 include/uapi/linux/rtnetlink.h).
const KERNEL_TABLES: [u32; 4] = [0, 253, 254, 255];

/// A routing table that can be ours.
///
/// # Errors
/// One of the kernel's own, or no number of 32 bits.
pub(super) fn route_table(text: &str) -> Result<u32, ValueError> {
    let table = text.parse().ok().filter(|table| !KERNEL_TABLES.contains(table));
    table.map_or_else(|| wrong(format!("{text:?} is no table to use: 1 to 4294967295 are possible, but 253, 254 and 255")), Ok)
}

/// Where the rule that leads to such a table stands: behind the table local (0), before main (32766, net/ipv4/fib_rules.c), with room
/// for one more before it, which a blackhole route needs.
///
/// # Errors
/// Any other priority.
pub(super) fn rule_priority(text: &str) -> Result<u32, ValueError> {
    let priority = text.parse().ok().filter(|priority| (2..=32_765).contains(priority));
    priority.map_or_else(|| wrong(format!("{text:?} is no priority for the rule: 2 to 32765 are possible")), Ok)
}

/// Text that is not to be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for whom it is meant.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_what_go_takes_and_nothing_else() {
        assert!(["1", "t", "T", "true", "TRUE", "True"].into_iter().all(|text| go_bool(text) == Ok(true)));
        assert!(["0", "f", "F", "false", "FALSE", "False"].into_iter().all(|text| go_bool(text) == Ok(false)));
        assert!(["", "yes", "tRUE", "on", "2"].into_iter().all(|text| go_bool(text).is_err()));
    }

    #[test]
    fn the_renewal_margin_stays_within_a_lease() {
        assert_eq!("1".parse::<RenewMargin>().unwrap().as_duration(), Duration::from_secs(60));
        assert!("1439".parse::<RenewMargin>().is_ok());
        assert!(["0", "1440", "-1", "", "1.5", "60m"].into_iter().all(|text| text.parse::<RenewMargin>().is_err()));
    }

    #[test]
    fn addresses_that_nobody_can_reach_are_no_public_address() {
        assert!(
            ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::1", "1.2.3"].into_iter().all(|text| public_ipv4(text).is_err())
        );
        assert!(["::", "::1", "ff02::1", "1.2.3.4"].into_iter().all(|text| public_ipv6(text).is_err()));
        assert!(public_ipv4("192.0.2.1").is_ok() && public_ipv6("2001:db8::1").is_ok());
    }

    #[test]
    fn an_interface_is_named_or_given_by_address() {
        assert_eq!("eth0".parse(), Ok(IfaceSelector::Name("eth0".to_owned())));
        assert_eq!("10.0.0.1".parse(), Ok(IfaceSelector::Address(Ipv4Addr::new(10, 0, 0, 1).into())));
        assert!(["", "a b", "a/b", "sixteen-bytes-xx"].into_iter().all(|text| text.parse::<IfaceSelector>().is_err()));
    }

    #[test]
    fn a_pattern_that_does_not_compile_is_one_line() {
        let error = pattern("eth(0").unwrap_err().to_string();
        assert!(error.contains("unclosed group") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn the_state_file_is_a_file_or_none() {
        assert_eq!("none".parse(), Ok(StateFile(None)));
        assert_eq!("./none".parse(), Ok(StateFile(Some(PathBuf::from("./none")))));
        assert!(["", "/", "/var/lib/loden/", ".."].into_iter().all(|text| text.parse::<StateFile>().is_err()));
    }

    #[test]
    fn a_route_table_is_none_of_the_kernels_and_its_rule_comes_before_the_main_table() {
        assert_eq!((route_table("1"), route_table("4294967295")), (Ok(1), Ok(u32::MAX)));
        assert!(["0", "253", "254", "255", "main", "-1", "4294967296", ""].into_iter().all(|text| route_table(text).is_err()));
        assert_eq!((rule_priority("2"), rule_priority("32765")), (Ok(2), Ok(32_765)));
        assert!(["0", "1", "32766", "-1", "low", ""].into_iter().all(|text| rule_priority(text).is_err()));
    }

    #[test]
    fn the_subnet_file_is_a_file_and_not_the_socket() {
        assert!(["", "/", "/run/flannel/", "..", "/run/subnet.sock"].into_iter().all(|text| subnet_file(text).is_err()));
        assert!(subnet_file("/run/flannel/subnet.env").is_ok());
    }

    #[test]
    fn a_secret_does_not_show() {
        assert_eq!(format!("{:?}", Secret::from("hunter2".to_owned())), "(secret)");
    }
}
