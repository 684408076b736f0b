//! What an agent tells the container runtime: the subnet file.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use ipnetwork::IpNetwork;

/// A subnet file, parsed by the rules of a shell that sources it: `NAME=value` lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetEnv(BTreeMap<String, String>);

impl SubnetEnv {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let pairs = text.lines().map(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
        let pairs: Option<BTreeMap<_, _>> = pairs.collect();
        let pairs = pairs.with_context(|| format!("not a subnet file: {text:?}"))?;
        ensure!(!pairs.is_empty(), "the subnet file is empty");
        Ok(Self(pairs))
    }

    /// The value of a line such as `FLANNEL_NETWORK`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// `FLANNEL_SUBNET`: the subnet, with the address that is the bridge's.
    ///
    /// # Errors
    /// When the line is missing or malformed.
    pub fn subnet(&self) -> Result<IpNetwork> {
        self.network("FLANNEL_SUBNET")?.context("no FLANNEL_SUBNET in the subnet file")
    }

    /// A line that names a network, such as `FLANNEL_IPV6_SUBNET`; none where there is none.
    ///
    /// # Errors
    /// When the line is malformed.
    pub fn network(&self, name: &str) -> Result<Option<IpNetwork>> {
        self.get(name).map(|text| text.parse().with_context(|| format!("{name} is {text:?}"))).transpose()
    }

    /// `FLANNEL_MTU`.
    ///
    /// # Errors
    /// When the line is missing or malformed.
    pub fn mtu(&self) -> Result<u16> {
        let text = self.get("FLANNEL_MTU").context("no FLANNEL_MTU in the subnet file")?;
        text.parse().with_context(|| format!("FLANNEL_MTU is {text:?}"))
    }
}
