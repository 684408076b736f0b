//! Which interface, and which of its addresses, carries the tunnel.
//!
//! [`choose()`] is pure over a snapshot of the machine's [`Interfaces`]; [`Interfaces::read`] takes one, [`find`] does both. The rules are flanneld's: the
//! named interfaces in order, then the patterns, then the one that leads to a given address; with none of these
//! the owner of the public address, else the one that the default route leaves by. In dual-stack one interface carries both
//! families' tunnels.

mod choose;

use std::net::IpAddr;

use lease::{Family, MacAddr, Mtu};
use regex::Regex;

pub use choose::choose;

use crate::{IfIndex, KernelError};

/// What the user asks for. Empty: the default.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Names or addresses of interfaces, in order; the first that is there wins.
    pub iface: Vec<String>,
    /// Patterns, in order; each is tried on all addresses first, then on all names.
    pub iface_regex: Vec<Regex>,
    /// The interface by which the kernel reaches this address. [`Interfaces::read`] is to be given the same.
    pub can_reach: Option<IpAddr>,
    /// The IPv4 address that the other hosts are told, where it is not the interface's own.
    pub public_v4: Option<IpAddr>,
    /// The same for IPv6.
    pub public_v6: Option<IpAddr>,
}

impl Choice {
    /// The address of a family that the other hosts are told, where it is not the interface's own.
    #[must_use]
    pub fn public(&self, family: Family) -> Option<IpAddr> {
        family.pick(self.public_v4, self.public_v6)
    }
}

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// Its index.
    pub index: IfIndex,
    /// Its name.
    pub name: String,
    /// Its MTU.
    pub mtu: Mtu,
    /// Its hardware address; all zero where it has none of six bytes.
    pub mac: MacAddr,
    /// This host's end of the IPv4 tunnels, where IPv4 is on.
    pub v4: Option<End>,
    /// This host's end of the IPv6 tunnels, where IPv6 is on.
    pub v6: Option<End>,
}

/// This host's end of the tunnels of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The address that the tunnel's packets come from.
    pub address: IpAddr,
    /// The address that the other hosts are told.
    pub public: IpAddr,
}

impl Underlay {
    /// This host's end of the tunnels of a family, where that is on.
    #[must_use]
    pub fn end(&self, family: Family) -> Option<End> {
        family.pick(self.v4, self.v6)
    }
}

/// The machine's interfaces at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// All of them, in the kernel's order.
    pub list: Vec<Interface>,
    /// The one that the IPv4 default route of the lowest metric leaves by.
    pub default_v4: Option<IfIndex>,
    /// The same for IPv6.
    pub default_v6: Option<IfIndex>,
    /// How the address that was asked for would be reached; none where it would not.
    pub reach: Option<Reach>,
}

/// By which interface the kernel would reach an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The interface.
    pub index: IfIndex,
    /// The source address that the kernel would take.
    pub source: Option<IpAddr>,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: IfIndex,
    /// Its name.
    pub name: String,
    /// Its MTU.
    pub mtu: Mtu,
    /// Its hardware address; all zero where it has none of six bytes.
    pub mac: MacAddr,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its addresses, in the kernel's order.
    pub addresses: Vec<Address>,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// Its prefix length in bits.
    pub len: u8,
    /// How far it is known (`RT_SCOPE_*`): 0 everywhere, 253 on the link, 254 on this host.
    pub scope: u8,
    /// A temporary address of IPv6 (RFC 8981), or a secondary one of IPv4.
    pub temporary: bool,
    /// Not yet known to be nobody else's (IPv6 duplicate address detection).
    pub tentative: bool,
    /// Deprecated, or found to be another's.
    pub unusable: bool,
}

impl Interfaces {
    /// Takes a snapshot of the calling thread's network namespace, with the default routes of these families; `can_reach` as in [`Choice`].
    ///
    /// # Errors
    /// [`KernelError`] when it cannot be read.
    pub async fn read(families: &[Family], can_reach: Option<IpAddr>) -> Result<Self, KernelError> {
        crate::kernel::read_interfaces(families, can_reach).await
    }

    /// The one that the default route of a family leaves by.
    #[must_use]
    pub fn default_route(&self, family: Family) -> Option<IfIndex> {
        family.pick(self.default_v4, self.default_v6)
    }
}

/// There is no underlay.
#[derive(Debug, thiserror::Error)]
pub enum UnderlayError {
    /// No interface fits.
    #[error("no interface for the tunnel: {looked_for}; there are: {there}")]
    NoneFits {
        /// What was looked for, and what was amiss with it.
        looked_for: String,
        /// The interfaces that there are, with their addresses.
        there: String,
    },
    /// The interfaces cannot be read.
    #[error("no interface for the tunnel")]
    Unreadable(#[from] KernelError),
}

/// Chooses among the interfaces of the calling thread's network namespace, for these families: at least one, the first decides.
///
/// # Errors
/// [`UnderlayError`]
pub async fn find(choice: &Choice, families: &[Family]) -> Result<Underlay, UnderlayError> {
    choose(choice, families, &Interfaces::read(families, choice.can_reach).await?)
}
