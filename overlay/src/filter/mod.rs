//! The packet filter: tables of our own in nf_tables, spoken to over netlink, and a rule of ours where somebody else drops.
//!
//! - [`Filter`], the peer filter: VXLAN packets come in only from known peers. Table `loden-` and the device's name.
//! - [`PacketFilter`], a network's rules: masquerade, forwarding, notrack. Table `loden-net-` and the device's name; and in others'
//!   forward chains, where those drop what passes, two rules that bear this name as their comment.
//!
//! One [`table::Table`] owns one table, and touches no other. Like the reconciler, each acts on what the kernel says and hears of
//! every change from the kernel's notifications, whoever made it; nothing is polled but what iptables-legacy has, which tells nobody.

mod attribute;
mod budget;
mod door;
mod expr;
mod family;
mod forward;
mod frame;
mod message;
mod net;
mod op;
mod packet_filter;
mod pass;
mod peers;
mod table;

use std::fmt;

use lease::Family;
use nix::errno::Errno;

use self::door::Door;
use self::family::facts;
use crate::kernel::KernelError;

pub use self::forward::flanneld_filters;
pub use self::message::Changer;
pub use self::net::{Masquerade, NetSpec, net_table_name};
pub use self::packet_filter::{PacketFilter, is_relied_on, remove_guests};
pub use self::pass::Pass;
pub use self::peers::{Filter, FilterSpec};

/// A table of nf_tables: its family's number and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TableId {
    nfproto: u8,
    name: String,
}

impl TableId {
    fn of(family: Family, name: String) -> Self {
        Self { nfproto: facts(family).nfproto, name }
    }
}

/// `NFPROTO_INET`: IPv4 and IPv6 in one.
const INET: u8 = 1;

/// As nft names it.
impl fmt::Display for TableId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nfproto, name } = self;
        match family::by_number(*nfproto) {
            Some(family) => write!(out, "{} {name}", facts(family).nft),
            None if *nfproto == INET => write!(out, "inet {name}"),
            None => write!(out, "family {nfproto} {name}"),
        }
    }
}

/// What the names of our tables begin with.
const PREFIX: &str = "loden-";

/// The peer filter's table that is a device's.
#[must_use]
pub fn table_name(device: &str) -> String {
    format!("{PREFIX}{device}")
}

/// A table of ours that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OurTable {
    /// Its family.
    pub family: Family,
    /// The device that it is named after, whether that is there or not.
    pub device: String,
    /// Its name.
    pub name: String,
}

/// As nft names it.
impl fmt::Display for OurTable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", facts(self.family).nft, self.name)
    }
}

/// The tables of ours, of every agent that this host has had. None on a kernel without nf_tables.
///
/// # Errors
/// [`KernelError`] when nf_tables cannot be spoken to.
pub async fn our_tables() -> Result<Vec<OurTable>, KernelError> {
    let tables = match door::tables().await {
        Err(error) if lacks_nf_tables(&error) => return Ok(Vec::new()),
        tables => tables?,
    };
    let ours = |TableId { nfproto, name }: TableId| {
        let family = family::by_number(nfproto)?;
        let device = name.strip_prefix(net::NET_PREFIX).or_else(|| name.strip_prefix(PREFIX))?.to_owned();
        Some(OurTable { family, device, name })
    };
    Ok(tables.into_iter().filter_map(ours).collect())
}

/// Removes a table of ours. False if there is none.
///
/// # Errors
/// [`KernelError`] when nf_tables cannot be spoken to or refuses.
pub async fn remove_table(table: &OurTable) -> Result<bool, KernelError> {
    remove(TableId::of(table.family, table.name.clone())).await
}

/// Removes a device's peer filter, of either family. False if there is none.
///
/// # Errors
/// [`KernelError`] when nf_tables cannot be spoken to or refuses. A kernel without nf_tables has no table.
pub async fn remove_filter(device: &str) -> Result<bool, KernelError> {
    let mut removed = false;
    for family in Family::ALL {
        removed |= remove(TableId::of(family, table_name(device))).await?;
    }
    Ok(removed)
}

async fn remove(id: TableId) -> Result<bool, KernelError> {
    let there = async {
        let door = Door::open()?;
        let there = door.look(&id, false).await?.there;
        Ok((door, there))
    };
    let mut door = match there.await {
        Ok((door, true)) => door,
        Ok((_, false)) => return Ok(false),
        Err(error) if lacks_nf_tables(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    door.remove(&id).await?.map_err(|refusal| refusal.into_error("delete the filter table"))
}

/// Whether this is what a kernel without nf_tables says: no such protocol, or, where nfnetlink alone is there, no such
/// subsystem (`nfnetlink_rcv_msg`, net/netfilter/nfnetlink.c, v6.18).
fn lacks_nf_tables(error: &KernelError) -> bool {
    match error {
        KernelError::Io { source, .. } => source.raw_os_error() == Some(nix::libc::EPROTONOSUPPORT),
        KernelError::Refused { errno, .. } => matches!(errno, Errno::EINVAL | Errno::EOPNOTSUPP),
        KernelError::Permission { .. } | KernelError::Timeout { .. } | KernelError::Interrupted { .. } | KernelError::Protocol { .. } => {
            false
        }
    }
}

/// What a datagram of nf_tables' notifications says, whatever its bytes; for the fuzzer. Returns how much.
#[doc(hidden)]
#[cfg(feature = "contract")]
pub fn fuzz_filter_datagram(datagram: &[u8]) -> usize {
    let table = TableId::of(Family::V4, "loden-flannel.1".to_owned());
    let (mut heard, mut seen) = (Vec::new(), message::Seen::default());
    door::datagram_says(datagram, &table, &mut heard);
    for message in crate::kernel::Messages::new(datagram).flatten() {
        let _ = seen.take(&message, &table);
    }
    heard.len() + seen.passes.len() + seen.frame.rules.len() + forward::fuzz(datagram)
}
