//! The packet filter beside a session: masquerade and forwarding, a task for each family. When a session ends, its rules stay.
//!
//! What it cannot do makes the host not ready, since packets then go where they should not, or nowhere. Where nobody asked for
//! masquerade, a kernel without nf_tables is only a warning: the overlay works without.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lease::{Backend, Family, LeaseKey, NetworkConfig, Subnet};
use overlay::{Changer, KernelError, Masquerade, NetSpec, PacketFilter};

use super::board::Board;
use crate::cli::Options;
use crate::metrics::Metrics;
use crate::status;

/// After an error: until it is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Between two looks at everything, when nothing called for one.
const AUDIT: Duration = Duration::from_secs(60);

/// Repairs are told no more often than this.
const TELL: Duration = Duration::from_secs(1);

/// How one family's filter stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) filter: status::PacketFilter,
    pub(crate) notes: Vec<String>,
    /// Whether it has been as it should be in this session.
    stood: bool,
}

impl Standing {
    /// Why the host is not ready, as far as this filter goes.
    pub(crate) fn not_ready(&self) -> Option<String> {
        let Self { filter, notes: _, stood } = self;
        match &filter.trouble {
            Some(trouble) => Some(labelled(trouble)),
            None => (!stood).then(|| format!("packet filter: table {} is being put up", filter.table)),
        }
    }
}

/// What is wanted, a family each.
pub(super) fn specs(options: &Options, config: &NetworkConfig, key: LeaseKey) -> Vec<NetSpec> {
    let spec = |family| {
        let (network, subnet) = (config.pool(family)?.network, key.subnet(family)?);
        let (name, port) = match config.backend {
            Backend::Vxlan(vxlan) => (overlay::device_name(vxlan.vni, family.is_ipv6()), Some(vxlan.port)),
            Backend::HostGw | Backend::Alloc => (name_of(network), None),
        };
        let masquerade = match (options.ip_masq, options.fully_random) {
            (false, _) => Masquerade::Off,
            (true, false) => Masquerade::Plain,
            (true, true) => Masquerade::FullyRandom,
        };
        Some(NetSpec { name, network, subnet, masquerade, forward: options.forward_rules, notrack: port.filter(|_| options.notrack) })
    };
    config.families().filter_map(spec).collect()
}

/// What a filter is named after where there is no tunnel: its network, with what nft takes for a name.
pub(crate) fn name_of(network: Subnet) -> String {
    network.to_string().replace(':', ".").replace('/', "-")
}

/// What a task has to say, and has said.
struct Keeper {
    family: Family,
    /// Whether anybody asked for what only nf_tables can do.
    needed: bool,
    table: String,
    stood: bool,
    board: Board,
    metrics: Arc<Metrics>,
    said: Option<String>,
    untold: u64,
    tell_after: Instant,
}

/// Keeps the rules of one family.
pub(super) async fn keep(spec: NetSpec, resync: Duration, board: Board, metrics: Arc<Metrics>) {
    let needed = spec.masquerade != Masquerade::Off;
    let (family, table) = (spec.family(), spec.table_name());
    let mut keeper = Keeper { family, needed, table, stood: false, board, metrics, said: None, untold: 0, tell_after: Instant::now() };
    loop {
        let ended = match PacketFilter::open(spec.clone(), resync) {
            Ok(mut filter) => keeper.run(&mut filter).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            keeper.say(Some(error.to_string()), None);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Says that a filter is on its way, before its task has begun.
pub(super) fn announce(spec: &NetSpec, board: &Board) {
    let filter = status::PacketFilter { table: spec.table_name(), in_step: false, trouble: None, accepts_in: Vec::new() };
    let standing = Standing { filter, notes: Vec::new(), stood: false };
    board.change(|facts| drop(facts.packet_filters.insert(spec.family(), standing)));
}

impl Keeper {
    async fn run(&mut self, filter: &mut PacketFilter) -> Result<(), KernelError> {
        let mut audit = Instant::now() + AUDIT;
        loop {
            filter.step(Instant::now()).await?;
            self.stood |= filter.stands();
            self.count(filter);
            self.say(filter.trouble(), Some(filter));
            let told = Some(self.tell_after).filter(|_| self.untold > 0);
            let due = filter.next_due().into_iter().chain(told).fold(audit, Instant::min);
            tokio::select! {
                heard = filter.listen() => heard?,
                () = tokio::time::sleep_until(due.into()) => if audit <= Instant::now() {
                    filter.audit();
                    audit = Instant::now() + AUDIT;
                },
            }
        }
    }

    fn count(&mut self, filter: &mut PacketFilter) {
        let (heals, who) = filter.take_heals();
        self.metrics.healed("packet_filter", heals);
        self.untold += heals;
        if self.untold > 0 && self.tell_after <= Instant::now() {
            let who = who.map_or_else(|| "somebody".to_owned(), |Changer { pid, name }| format!("{name}, process {pid} of the machine"));
            tracing::warn!(table = self.table, heals = self.untold, who, "packet filter was changed: put right");
            (self.untold, self.tell_after) = (0, Instant::now() + TELL);
        }
    }

    /// Puts on the board how it stands, and says a new trouble once.
    fn say(&mut self, trouble: Option<String>, filter: Option<&PacketFilter>) {
        if let Some(trouble) = trouble.as_ref().filter(|trouble| self.said.as_ref() != Some(trouble)) {
            tracing::error!(table = self.table, error = trouble, "packets are not treated as they should be");
        }
        self.said.clone_from(&trouble);
        let mut notes: Vec<String> = filter.into_iter().flat_map(PacketFilter::notes).map(labelled).collect();
        // Without nf_tables at all there is nothing that could drop, or be asked for.
        let bearable = filter.is_none() && !self.needed;
        notes.extend(trouble.as_ref().filter(|_| bearable).map(labelled));
        let filter = status::PacketFilter {
            table: self.table.clone(),
            in_step: filter.is_some_and(PacketFilter::in_step),
            trouble: trouble.filter(|_| !bearable),
            accepts_in: filter.map(PacketFilter::places).unwrap_or_default(),
        };
        let standing = Standing { filter, notes, stood: self.stood || bearable };
        self.board.change_if(|facts| {
            let before = facts.packet_filters.insert(self.family, standing.clone());
            before.as_ref() != Some(&standing)
        });
    }
}

fn labelled(note: impl Display) -> String {
    format!("packet filter: {note}")
}
