//! The subnet file: what CNI and Docker read to know this host's subnet.
//!
//! Written byte for byte as flanneld writes it ([`SubnetEnv::render`]), atomically, and kept in place against
//! whoever removes or edits it ([`SubnetFile`]). Read back at the start for the subnet that this host had
//! ([`Remembered`]); what cannot be read there is a warning, never a failure.

mod watch;

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use lease::{Family, LeaseKey, Mtu, NetworkConfig, Pool, Subnet};

pub use watch::{Disturbance, Harm, SubnetFile};

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetEnv {
    /// IPv4, when it is on.
    pub v4: Option<FamilyEnv>,
    /// IPv6, when it is on.
    pub v6: Option<FamilyEnv>,
    /// The MTU that containers are to have.
    pub mtu: Mtu,
    /// Whether this daemon masquerades, so that CNI and Docker need not.
    pub ip_masq: bool,
}

/// One address family's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyEnv {
    /// The whole overlay network.
    pub network: Subnet,
    /// This host's subnet. The file carries its first usable address in its place.
    pub subnet: Subnet,
}

const NETWORK: &str = "FLANNEL_NETWORK";
const SUBNET: &str = "FLANNEL_SUBNET";
const IPV6_NETWORK: &str = "FLANNEL_IPV6_NETWORK";
const IPV6_SUBNET: &str = "FLANNEL_IPV6_SUBNET";
const MTU: &str = "FLANNEL_MTU";
const IPMASQ: &str = "FLANNEL_IPMASQ";

impl SubnetEnv {
    /// What the file says of this network to a host with this lease.
    #[must_use]
    pub fn of(config: &NetworkConfig, key: LeaseKey, mtu: Mtu, ip_masq: bool) -> Self {
        let family =
            |family| config.pool(family).zip(key.subnet(family)).map(|(Pool { network, .. }, subnet)| FamilyEnv { network, subnet });
        Self { v4: family(Family::V4), v6: family(Family::V6), mtu, ip_masq }
    }

    /// The file's text.
    #[must_use]
    pub fn render(&self) -> String {
        let Self { v4, v6, mtu, ip_masq } = self;
        let mut text = String::new();
        let families = [(v4, NETWORK, SUBNET), (v6, IPV6_NETWORK, IPV6_SUBNET)];
        for (FamilyEnv { network, subnet }, network_key, subnet_key) in
            families.into_iter().filter_map(|(f, n, s)| Some((f.as_ref()?, n, s)))
        {
            let first = subnet.nth(1).unwrap_or(subnet.address());
            line(&mut text, network_key, network);
            line(&mut text, subnet_key, &format_args!("{first}/{}", subnet.len()));
        }
        line(&mut text, MTU, mtu);
        line(&mut text, IPMASQ, ip_masq);
        text
    }
}

fn line(text: &mut String, key: &str, value: &impl std::fmt::Display) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{key}={value}");
}

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
        for line in text.lines() {
            let line = line.trim();
            let Some((key, value)) = line.strip_prefix("export ").unwrap_or(line).split_once('=') else { continue };
            let key = key.trim();
            let (slot, ipv4) = match key {
                NETWORK => (&mut found.network, true),
                SUBNET => (&mut found.subnet, true),
                IPV6_NETWORK => (&mut found.ipv6_network, false),
                IPV6_SUBNET => (&mut found.ipv6_subnet, false),
                _ => continue,
            };
            let value = value.trim().trim_matches(['"', '\'']);
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

/// The subnet of `10.5.52.1/24`: the file carries an address within it.
fn subnet_around(text: &str) -> Option<Subnet> {
    let (address, len) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    Subnet::containing(address, len.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> Vec<(String, String)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let mut files = Vec::new();
        for case in std::fs::read_dir(root).unwrap() {
            for file in std::fs::read_dir(case.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                if path.to_string_lossy().ends_with(".subnet.env") {
                    files.push((path.display().to_string(), std::fs::read_to_string(path).unwrap()));
                }
            }
        }
        files
    }

    #[test]
    fn every_file_of_flanneld_is_read_and_written_back_byte_for_byte() {
        let files = golden();
        assert!(files.len() >= 18, "golden files are missing: {}", files.len());
        for (name, text) in files {
            let read = Remembered::parse(&text);
            assert_eq!(read.warnings, [""; 0], "{name}");
            let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap();
            let family = |network: Option<Subnet>, subnet: Option<Subnet>| Some(FamilyEnv { network: network?, subnet: subnet? });
            let env = SubnetEnv {
                v4: family(read.network, read.subnet),
                v6: family(read.ipv6_network, read.ipv6_subnet),
                mtu: Mtu(value(MTU).parse().unwrap()),
                ip_masq: value(IPMASQ).parse().unwrap(),
            };
            assert_eq!(env.render(), text, "{name}");
            assert!(read.key().is_some(), "{name}");
        }
    }

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
