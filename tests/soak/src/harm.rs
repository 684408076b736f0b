//! What somebody else can do to a host's VTEP.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use testkit::world::{SUBNET_FILE, VTEP};
use testkit::{Agent, Hands, KernelEntry, Table};

use crate::scene::Far;

/// One harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    DeviceDeleted,
    DeviceReplaced,
    DeviceThreaded,
    DeviceDown,
    DeviceMtu,
    DeviceMac,
    DeviceAddress,
    RouteDeleted,
    RouteChanged,
    NeighbourDeleted,
    NeighbourChanged,
    FdbDeleted,
    FdbChanged,
    ForwardingOff,
    FileRemoved,
    FileEdited,
}

/// What harms the device, and with it what hangs on it.
pub(crate) const DEVICE: [Harm; 7] = [
    Harm::DeviceDeleted,
    Harm::DeviceReplaced,
    Harm::DeviceThreaded,
    Harm::DeviceDown,
    Harm::DeviceMtu,
    Harm::DeviceMac,
    Harm::DeviceAddress,
];

/// What harms one entry.
pub(crate) const ENTRY: [Harm; 6] =
    [Harm::RouteDeleted, Harm::RouteChanged, Harm::NeighbourDeleted, Harm::NeighbourChanged, Harm::FdbDeleted, Harm::FdbChanged];

/// What harms something else.
pub(crate) const OTHER: [Harm; 3] = [Harm::ForwardingOff, Harm::FileRemoved, Harm::FileEdited];

impl Harm {
    /// For the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DeviceDeleted => "device deleted",
            Self::DeviceReplaced => "device replaced by a bridge",
            Self::DeviceThreaded => "device set to threaded NAPI",
            Self::DeviceDown => "device set down",
            Self::DeviceMtu => "device's MTU changed",
            Self::DeviceMac => "device's MAC changed",
            Self::DeviceAddress => "device's address deleted",
            Self::RouteDeleted => "route deleted",
            Self::RouteChanged => "route changed",
            Self::NeighbourDeleted => "neighbour deleted",
            Self::NeighbourChanged => "neighbour changed",
            Self::FdbDeleted => "FDB entry deleted",
            Self::FdbChanged => "FDB entry changed",
            Self::ForwardingOff => "ip_forward switched off",
            Self::FileRemoved => "subnet.env removed",
            Self::FileEdited => "subnet.env edited",
        }
    }

    /// Whether a device is deleted, by the fault or to put it right.
    pub(crate) fn takes_deletion(self) -> bool {
        matches!(self, Self::DeviceDeleted | Self::DeviceReplaced | Self::DeviceThreaded)
    }

    /// The entry that it harms, if it is one.
    pub(crate) fn entry(self, entries: &[KernelEntry], far: Far) -> Option<&KernelEntry> {
        let table = match self {
            Self::RouteDeleted | Self::RouteChanged => Table::Route,
            Self::NeighbourDeleted | Self::NeighbourChanged => Table::Neighbour,
            Self::FdbDeleted | Self::FdbChanged => Table::Fdb,
            _ => return None,
        };
        let [_, _, high, low] = far.0.to_be_bytes();
        let key: &[u8] = if table == Table::Fdb { &[0x0a, 0x58, 0, 0, high, low] } else { &[10, 1 + high, low, 0] };
        entries.iter().find(|entry| entry.table == table && entry.key == key)
    }

    /// Does it, to this peer's entry where it is one, and returns from when on it can be repaired.
    pub(crate) fn on(self, hands: &mut Hands, agent: &mut Agent, own: &str, far: Far) -> Result<Instant> {
        let (prefix, mac, metric) = (far.prefix(), far.mac(), far.metric());
        let start = Instant::now();
        match self {
            Self::DeviceDeleted => {
                // It may be gone at the moment.
                let _ = hands.delete_link(VTEP);
                return Ok(Instant::now());
            }
            Self::DeviceReplaced => {
                // The agent would have made its own again before the other could be made.
                agent.signal(Signal::SIGSTOP)?;
                hands.ip(&format!("link del {VTEP}\nlink add {VTEP} type bridge"))?;
                let start = Instant::now();
                agent.signal(Signal::SIGCONT)?;
                return Ok(start);
            }
            // It may be gone at the moment.
            Self::DeviceThreaded => drop(hands.write(&format!("/sys/class/net/{VTEP}/threaded"), "1\n")),
            Self::DeviceDown => hands.ip(&format!("link set {VTEP} down"))?,
            Self::DeviceMtu => hands.ip(&format!("link set {VTEP} mtu 1280"))?,
            Self::DeviceMac => hands.ip(&format!("link set {VTEP} address 02:ee:00:00:00:01"))?,
            Self::DeviceAddress => hands.ip(&format!("address del {own}/32 dev {VTEP}"))?,
            Self::RouteDeleted => hands.ip(&format!("route del {prefix}.0/24 dev {VTEP} metric {metric}"))?,
            Self::RouteChanged => {
                hands.ip(&format!("route replace {prefix}.0/24 via {prefix}.7 dev {VTEP} onlink proto 76 metric {metric}"))?;
            }
            Self::NeighbourDeleted => hands.ip(&format!("neigh del {prefix}.0 dev {VTEP}"))?,
            Self::NeighbourChanged => {
                hands.ip(&format!("neigh replace {prefix}.0 lladdr 02:ee:00:00:00:02 dev {VTEP} nud permanent"))?;
            }
            Self::FdbDeleted => hands.bridge(&format!("fdb del {mac} dev {VTEP} self"))?,
            Self::FdbChanged => hands.bridge(&format!("fdb replace {mac} dev {VTEP} dst 192.168.77.99 self permanent"))?,
            Self::ForwardingOff => hands.forwarding("0\n")?,
            Self::FileRemoved => drop(hands.remove(SUBNET_FILE)),
            Self::FileEdited => hands.write(SUBNET_FILE, "FLANNEL_MTU=9000\n")?,
        }
        Ok(start)
    }
}

/// The entries on the VTEP as they are now.
pub(crate) fn entries(member: &testkit::world::Member) -> Result<Vec<KernelEntry>> {
    let tables = [Table::Route, Table::Neighbour, Table::Fdb];
    let lists: Result<Vec<_>> = tables.into_iter().map(|table| KernelEntry::list(&member.host, table, VTEP)).collect();
    Ok(lists.context("the VTEP's entries")?.concat())
}

/// Longer than any repair takes that does not wait for its turn.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
