//! The subnet file: what CNI and Docker read to know this host's subnet.
//!
//! Written byte for byte as flanneld writes it ([`SubnetEnv::render`]), atomically, and kept in place against
//! whoever removes or edits it ([`SubnetFile`]). Read back in two ways: at the agent's start for the subnet that this host had
//! ([`Remembered`]), where what cannot be read is a warning, never a failure; and by the CNI plugin, which wants all of it or
//! nothing ([`SubnetEnv::read`]).

mod read;
mod remembered;
mod watch;

use std::fmt::Write;
use std::net::IpAddr;

use lease::{Family, LeaseKey, Mtu, NetworkConfig, Pool, Subnet};

pub use read::{ReadError, Unusable};
pub use remembered::Remembered;
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

/// The file's lines as names with their values. What is none is passed over.
fn values(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let line = line.trim();
        let (key, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
        Some((key.trim(), value.trim().trim_matches(['"', '\''])))
    })
}

/// The subnet of `10.5.52.1/24`: the file carries an address within it.
fn subnet_around(text: &str) -> Option<Subnet> {
    let (address, len) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    Subnet::containing(address, len.parse().ok()?).ok()
}

fn line(text: &mut String, key: &str, value: &impl std::fmt::Display) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{key}={value}");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
}
