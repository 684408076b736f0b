//! What the overlay stands on here: this host's subnet, and the ways in which the others' are reached.

use lease::Subnet;

use crate::device::VtepSpec;
use crate::entry::{RouteKey, RuleKey, TABLE_MAIN};

/// The largest metric: any other route for the same prefix goes before one that has it.
const LAST_METRIC: u32 = u32::MAX;

/// What a data plane of one address family is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// The whole overlay network.
    pub network: Subnet,
    /// Our own subnet.
    pub subnet: Subnet,
    /// The VTEP; none where there is no tunnel (host-gw).
    pub vtep: Option<VtepSpec>,
    /// Which peers are reached without a tunnel.
    pub direct: Direct,
    /// Whether packets to those of our own addresses that no container has are dropped.
    pub blackhole: bool,
    /// The table that all routes go to, with the rule that leads there; none is the main table.
    pub table: Option<RouteTable>,
}

/// Which peers are reached by a route via their public address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direct {
    /// None: all are reached through the tunnel.
    Never,
    /// Those whose public address is reached with no gateway between (`DirectRouting`).
    WhereReachable,
    /// All. One whose public address is not reached in that way is in trouble (host-gw).
    Always,
}

/// A routing table of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteTable {
    /// Its number.
    pub id: u32,
    /// The priority of the rule that leads there. The one below it is ours, too.
    pub priority: u32,
}

impl Ground {
    /// All through the tunnel by the main table: the vxlan backend as it comes.
    #[must_use]
    pub fn tunnel(vtep: VtepSpec, subnet: Subnet) -> Self {
        Self { network: vtep.network, subnet, vtep: Some(vtep), direct: Direct::Never, blackhole: false, table: None }
    }

    /// The number of the table that routes go to.
    #[must_use]
    pub fn table_id(&self) -> u32 {
        self.table.map_or(TABLE_MAIN, |table| table.id)
    }

    /// The key of the route that drops what no container has.
    #[must_use]
    pub fn blackhole_key(&self) -> Option<RouteKey> {
        self.blackhole.then(|| RouteKey { prefix: self.subnet, metric: LAST_METRIC, table: self.table_id() })
    }

    /// The rules that lead to a table of our own. The blackhole there would go before the containers' own routes, which are in the main
    /// table: those are asked first then, but for less than our subnet (the default route).
    pub fn rules(&self) -> impl Iterator<Item = RuleKey> + '_ {
        let table = self.table;
        let containers = table.filter(|_| self.blackhole).map(|RouteTable { id: _, priority }| RuleKey {
            priority: priority.saturating_sub(1),
            to: self.subnet,
            table: TABLE_MAIN,
            at_least: Some(self.subnet.len()),
        });
        let all = table.map(|RouteTable { id, priority }| RuleKey { priority, to: self.network, table: id, at_least: None });
        containers.into_iter().chain(all)
    }
}
