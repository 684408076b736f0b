//! Entries of the kernel's tables: which there are, what changes, and how long one is gone when somebody deletes it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::net::if_::if_nametoindex;

use crate::Namespace;
use crate::netlink::{Message, Socket};

// linux/rtnetlink.h, linux/neighbour.h, linux/socket.h.
const RTMGRP_NEIGH: u32 = 0x4;
const RTMGRP_IPV4_ROUTE: u32 = 0x40;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// Where `ndm_ifindex` stands in `struct ndmsg`.
const NDM_IFINDEX: usize = 4;
/// Where `ndm_state` stands, and the bit of an entry that stays.
const NDM_STATE: usize = 8;
const NUD_PERMANENT: u16 = 0x80;
/// Where `rtm_table` stands in `struct rtmsg`, and the main table's number.
const RTM_TABLE: usize = 4;
const RT_TABLE_MAIN: u8 = 254;
/// Where `rtm_flags` stands, and the bit of what is no route but a memory of one.
const RTM_FLAGS: usize = 8;
const RTM_F_CLONED: u32 = 0x200;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;

/// Which of the kernel's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// IPv4 routes of the main table.
    Route,
    /// IPv4 neighbours.
    Neighbour,
    /// Forwarding entries of bridges and VXLAN devices.
    Fdb,
}

/// An entry of a table, as the kernel told it.
#[derive(Debug, Clone)]
pub struct KernelEntry {
    /// Its table.
    pub table: Table,
    /// The index of its device.
    pub device: u32,
    /// What tells it from the others on the device: the destination's bytes, or the MAC's.
    pub key: Vec<u8>,
    message: Message,
}

/// An entry that came, changed or went.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which.
    pub entry: KernelEntry,
    /// Whether it is there now.
    pub present: bool,
}

impl KernelEntry {
    /// The entries of a table on a device.
    ///
    /// # Errors
    /// When there is no such device, or the kernel refuses.
    pub fn list(namespace: &Namespace, table: Table, device: &str) -> Result<Vec<Self>> {
        let device = namespace.within(|| if_nametoindex(device).with_context(|| format!("no device {device}")))?;
        Self::list_of(&Socket::open(namespace, 0)?, table, device)
    }

    pub(crate) fn list_of(socket: &Socket, table: Table, device: u32) -> Result<Vec<Self>> {
        let (kind, family) = match table {
            Table::Route => (RTM_GETROUTE, AF_INET),
            Table::Neighbour => (RTM_GETNEIGH, AF_INET),
            Table::Fdb => (RTM_GETNEIGH, AF_BRIDGE),
        };
        let all = socket.dump(kind, family)?;
        Ok(all
            .into_iter()
            .filter_map(parse)
            .map(|change| change.entry)
            .filter(|entry| entry.table == table && entry.device == device)
            .collect())
    }

    fn is(&self, other: &Self) -> bool {
        (self.table, self.device, &self.key) == (other.table, other.device, &other.key)
    }

    /// Where it leads: a route's gateway, a neighbour's MAC, an FDB entry's address. None where that cannot be said, and for what the
    /// kernel put or learned by itself.
    #[must_use]
    pub fn value(&self) -> Option<Vec<u8>> {
        let attribute = match self.table {
            Table::Route => RTA_GATEWAY,
            Table::Neighbour => NDA_LLADDR,
            Table::Fdb => NDA_DST,
        };
        let state = self.message.body.get(NDM_STATE..).and_then(|rest| rest.first_chunk()).map(|state| u16::from_ne_bytes(*state));
        let lasts = self.table == Table::Route || state.is_some_and(|state| state & NUD_PERMANENT != 0);
        self.message.attribute(attribute).filter(|_| lasts).map(<[u8]>::to_vec)
    }

    /// What the kernel told, sent back under this type, deletes the entry.
    fn deletion(&self) -> u16 {
        if self.table == Table::Route { RTM_DELROUTE } else { RTM_DELNEIGH }
    }
}

/// A subscription to a namespace's changes, from when it was made.
#[derive(Debug)]
pub struct Watch {
    ears: Socket,
    hands: Socket,
}

impl Watch {
    /// Subscribes.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn new(namespace: &Namespace) -> Result<Self> {
        Ok(Self { ears: Socket::open(namespace, RTMGRP_NEIGH | RTMGRP_IPV4_ROUTE)?, hands: Socket::open(namespace, 0)? })
    }

    /// Deletes the entry, and waits for it to come back: from just before the kernel is asked to delete it until just
    /// after its return is heard of. The true time is shorter by the time that it takes to wake this thread.
    ///
    /// # Errors
    /// When the kernel refuses, or the entry has not come back by the deadline.
    pub fn outage(&self, entry: &KernelEntry, deadline: Duration) -> Result<Duration> {
        let took = self.undone(entry, deadline, || self.hands.request_change(entry.deletion(), entry.message.body.clone()));
        self.hands.acknowledged().and(took)
    }

    /// Does what harms the entry, and waits until it is as it was: from just before the harm until just after the repair is heard of.
    ///
    /// # Errors
    /// When it cannot be harmed, or is not as it was by the deadline.
    pub fn undone(&self, entry: &KernelEntry, deadline: Duration, harm: impl FnOnce() -> Result<()>) -> Result<Duration> {
        while !self.changes(Duration::ZERO)?.is_empty() {}
        let start = Instant::now();
        harm()?;
        let mut harmed = false;
        while let Some(left) = deadline.checked_sub(start.elapsed()) {
            let changes = self.changes(left)?;
            let heard = start.elapsed();
            for change in changes.iter().filter(|change| change.entry.is(entry)) {
                // A neighbour is told of once more before it goes.
                let right = change.present && change.entry.value() == entry.value();
                if harmed && right {
                    return Ok(heard);
                }
                harmed |= !right;
            }
        }
        bail!("waited {deadline:?} in vain for an entry to be as it was: {:?} {:?}", entry.table, entry.key)
    }

    /// The changes that come with the next packet; none when none comes within `patience`.
    ///
    /// # Errors
    /// When the kernel has dropped some because they were not read in time.
    pub fn changes(&self, patience: Duration) -> Result<Vec<Change>> {
        Ok(self.ears.receive(patience)?.into_iter().filter_map(parse).collect())
    }
}

fn parse(message: Message) -> Option<Change> {
    let family = *message.body.first()?;
    let table = match (message.kind, family) {
        (RTM_NEWROUTE | RTM_DELROUTE, AF_INET) if message.body.get(RTM_TABLE) == Some(&RT_TABLE_MAIN) => Table::Route,
        (RTM_NEWNEIGH | RTM_DELNEIGH, AF_INET) => Table::Neighbour,
        (RTM_NEWNEIGH | RTM_DELNEIGH, AF_BRIDGE) => Table::Fdb,
        _ => return None,
    };
    // A path's MTU that was learned is listed like a route.
    if table == Table::Route && message.number_at(RTM_FLAGS)? & RTM_F_CLONED != 0 {
        return None;
    }
    let device = match table {
        Table::Route => u32::from_ne_bytes(*message.attribute(RTA_OIF)?.first_chunk()?),
        Table::Neighbour | Table::Fdb => message.number_at(NDM_IFINDEX)?,
    };
    let key = match table {
        Table::Route => message.attribute(RTA_DST)?.to_vec(),
        Table::Neighbour => message.attribute(NDA_DST)?.to_vec(),
        Table::Fdb => message.attribute(NDA_LLADDR)?.to_vec(),
    };
    let present = matches!(message.kind, RTM_NEWROUTE | RTM_NEWNEIGH);
    Some(Change { entry: KernelEntry { table, device, key, message }, present })
}
