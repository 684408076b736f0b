//! The kernel's own notifications of routes, neighbours and FDB entries, each with the instant at which it was heard.
//!
//! Only as much of a message is read as tells the tables apart: who wants to know which entry it was deletes one at a time.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;

use crate::Namespace;

/// Multicast groups of `NETLINK_ROUTE` (linux/rtnetlink.h, RTMGRP_*).
const RTMGRP_NEIGH: u32 = 0x4;
const RTMGRP_IPV4_ROUTE: u32 = 0x40;
/// Message types (linux/rtnetlink.h, RTM_*).
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
/// Address families as they stand in messages (linux/socket.h, AF_*).
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
/// The length of a message's header (linux/netlink.h, `struct nlmsghdr`), to which messages are aligned by four.
const HEADER: usize = 16;

/// Which of the kernel's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// IPv4 routes.
    Route,
    /// IPv4 neighbours.
    Neighbour,
    /// Forwarding entries of bridges and VXLAN devices.
    Fdb,
}

/// One notification.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// The table that changed.
    pub table: Table,
    /// Whether an entry is there now, or is not any more.
    pub present: bool,
    /// When it was heard.
    pub at: Instant,
}

/// A subscription to a namespace's changes, from when it was made.
#[derive(Debug)]
pub struct Watch {
    socket: OwnedFd,
}

impl Watch {
    /// Subscribes.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn new(namespace: &Namespace) -> Result<Self> {
        let socket = namespace.within(|| {
            let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_NEIGH | RTMGRP_IPV4_ROUTE))?;
            Ok(socket)
        })?;
        Ok(Self { socket })
    }

    /// How long an entry of the table was gone: from the next notification of a deletion to that of the entry's return.
    ///
    /// # Errors
    /// When the two are not heard before the deadline.
    pub fn outage(&self, table: Table, deadline: Duration) -> Result<Duration> {
        let start = Instant::now();
        let mut gone = None;
        loop {
            let left = deadline.saturating_sub(start.elapsed());
            if left.is_zero() {
                let seen = if gone.is_some() { "it went and did not come back" } else { "no deletion was heard of" };
                bail!("waited {deadline:?} in vain for an entry to go and come back ({table:?}): {seen}");
            }
            for change in self.changes(left)?.into_iter().filter(|change| change.table == table) {
                match (change.present, gone) {
                    (false, None) => gone = Some(change.at),
                    (true, Some(gone)) => return Ok(change.at - gone),
                    _ => {}
                }
            }
        }
    }

    /// The changes that come with the next packet; none when none comes within `patience`.
    ///
    /// # Errors
    /// When the kernel has dropped some because they were not read in time.
    pub fn changes(&self, patience: Duration) -> Result<Vec<Change>> {
        let micros = i64::try_from(patience.as_micros())?.max(1);
        setsockopt(&self.socket, sockopt::ReceiveTimeout, &TimeVal::new(micros / 1_000_000, micros % 1_000_000))?;
        let mut buffer = vec![0; 65536];
        let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error).context("cannot hear what the kernel changes"),
        };
        let at = Instant::now();
        let mut rest = buffer.get(..length).unwrap_or_default();
        let mut changes = Vec::new();
        while let Some((kind, family, after)) = next_message(rest) {
            rest = after;
            let table = match (kind, family) {
                (RTM_NEWROUTE | RTM_DELROUTE, AF_INET) => Table::Route,
                (RTM_NEWNEIGH | RTM_DELNEIGH, AF_INET) => Table::Neighbour,
                (RTM_NEWNEIGH | RTM_DELNEIGH, AF_BRIDGE) => Table::Fdb,
                _ => continue,
            };
            changes.push(Change { table, present: matches!(kind, RTM_NEWROUTE | RTM_NEWNEIGH), at });
        }
        Ok(changes)
    }
}

/// The first message's type, the family in its body's first byte, and what follows it.
fn next_message(bytes: &[u8]) -> Option<(u16, u8, &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let family = *bytes.get(HEADER)?;
    Some((kind, family, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}
