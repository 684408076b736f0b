//! One session: underlay, configuration, lease, data plane, and then keeping files and watching for what ends it.
//!
//! Dropping a session at any point is safe: it leaves the lease and the kernel as they are.

use std::sync::Arc;

use anyhow::Context;
use lease::keeper::{Keeper, LeaseState};
use lease::store::kube::OwnAddresses;
use lease::{Entry, Event, Family, NetworkConfig, Rng};
use overlay::underlay::{End, Underlay};
use overlay::{Ground, Local, Peer, Scope};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::basis::{self, Memory};
use super::board::{Board, Facts};
use super::dataplane::{Job, Standing};
use super::dispatch::dispatch;
use super::ends::{self, UNDERLAY_PAUSE};
use super::packet_filter;
use super::place::{self, Place};
use super::planes::Planes;
use super::remember::Running;
use super::room::Room;
use super::sources::{ConfigFeed, ConfigKey, Usable};
use super::store::Store;
use super::subnet_file;
use super::wanted::{self, Wanted, wanted};
use crate::cli::{InterfaceOptions, Options};
use crate::metrics::Metrics;
use crate::status;
use crate::subnet_env::{Remembered, SubnetEnv};

/// What the sessions of one process have in common.
pub(super) struct Sessions {
    pub(super) options: Options,
    pub(super) store: Store,
    pub(super) metrics: Arc<Metrics>,
    pub(super) board: Board,
    pub(super) feed: ConfigFeed,
    /// What the flags say of the interface; what is in force stands in the options.
    pub(super) interface: InterfaceOptions,
    room: Room,
    pub(super) memory: Memory,
}

impl Sessions {
    pub(super) fn new(options: Options, store: Store, metrics: Arc<Metrics>, board: Board, feed: ConfigFeed, room: Room) -> Self {
        // etcd says nothing of that.
        let addresses = matches!(store, Store::Etcd(_)).then(OwnAddresses::default);
        let memory = Memory { addresses, ..Memory::default() };
        Self { interface: options.interface.clone(), options, store, metrics, board, feed, room, memory }
    }

    /// Runs until the underlay or the configuration changes in a way that asks for another session: says which.
    ///
    /// # Errors
    /// What keeps the session from going on; the next may have more luck.
    pub(super) async fn run_one(&mut self) -> anyhow::Result<&'static str> {
        let config_key = self.store.config_key();
        let (usable, known) = self.configuration(&config_key).await?;
        self.options.interface = basis::reached_at(&self.interface, self.memory.addresses.unwrap_or(self.memory.guess));
        let Usable { config, text } = &usable;
        let place = tokio::select! {
            place = place(&self.options, config, self.board.clone()) => place,
            why = ends::other_config(&mut self.feed, &config_key, config) => return why,
        };
        let place = self.settle(place);
        // Before a lease is taken: where no VTEP can be made, none is needed.
        if let Err(error) = wanted::possible(&place, config) {
            tracing::error!(%error, "no VTEP can be made: waiting for another network configuration or underlay");
            self.board.blocked(error.to_string());
            return self.other_ground(&config_key, config, &place).await;
        }

        if let Some(why) = self.find_room(&config_key, config, &place).await? {
            return Ok(why);
        }
        let mut tasks = JoinSet::new();
        let clear = Clear(self.board.clone());
        let (keeper, mut lease, tell) = self.keeper(&place, config).await?;
        tasks.spawn(keeper.run());
        self.board.change(|facts| {
            facts.blocked = None;
            facts.lease = Some(lease.clone());
        });
        let entry = match self.memory.held.take() {
            // Whether it is still ours is the keeper's business; the data plane does not wait for it.
            Some(entry) => entry,
            None => tokio::select! {
                entry = held(&mut lease) => entry.context("the lease is no longer kept")?,
                why = self.other_ground(&config_key, config, &place) => return why,
            },
        };
        self.memory.held = Some(entry.clone());
        let Wanted { planes, mtu } = wanted(&place, config, &entry, &self.options.routes)?;
        let content = SubnetEnv::of(config, entry.key, mtu, self.options.ip_masq).render();
        let job = |(ground, local)| self.job(&place, ground, local, known.clone());
        let (planes, sum) =
            Planes::start(planes.into_iter().map(job).collect(), &self.metrics).context("cannot start a data plane's thread")?;
        let planes = Arc::new(planes);
        tasks.spawn(sum.keep());
        let known_before = self.memory.complete;
        self.board.change(|facts| {
            facts.key = Some(entry.key);
            facts.known = known_before;
            facts.planes = Some(Arc::clone(&planes));
        });
        tasks.spawn(dispatch(self.store.clone(), Arc::clone(&planes), entry.key, tell));
        tasks.spawn(subnet_file::keep(self.options.subnet_file.clone(), content, self.board.clone(), Arc::clone(&self.metrics)));
        for spec in packet_filter::specs(&self.options, config, entry.key) {
            packet_filter::announce(&spec, &self.board);
            tasks.spawn(packet_filter::keep(spec, self.options.resync, self.board.clone(), Arc::clone(&self.metrics)));
        }
        if let Some(path) = self.options.state_file.clone() {
            let (config_key, config, owner) = (config_key.name.clone(), text.clone(), place.owner);
            tasks.spawn(Running { path, config_key, owner, config, planes: Arc::clone(&planes), lease: lease.clone() }.keep());
        }
        tasks.spawn(freshen(self.board.clone(), lease.clone(), planes.standing.clone()));
        let mut running = planes.standing.clone();
        let why = tokio::select! {
            why = ends::underlay_change(&self.options, config, &place, &planes) => Ok(why),
            why = ends::config_change(&mut self.feed, &config_key, &usable, entry.key, &place, &self.board) => why,
            addresses = basis::other_addresses(&self.store, self.memory.addresses) => {
                self.memory.addresses = Some(addresses);
                Ok("the store says what this host's addresses are")
            }
            changed = ends::lease_change(&mut lease, &entry) => match changed {
                // Whoever wrote it, the other hosts go by it.
                Some(changed) => {
                    self.memory.held = Some(changed);
                    Ok("the lease has changed")
                }
                None => Err(anyhow::anyhow!("the lease is no longer kept")),
            },
            _ = async { while running.changed().await.is_ok() {} } => Err(anyhow::anyhow!("a data plane's thread has ended")),
        };
        self.memory.peers = planes.all_peers().await;
        self.memory.complete |= planes.standing.borrow().as_ref().is_some_and(|standing| standing.complete);
        self.memory.last = match &*lease.borrow() {
            LeaseState::Held(held) => {
                self.memory.held = Some(held.entry.clone());
                Some(held.clone())
            }
            LeaseState::Claiming { .. } | LeaseState::Lost { .. } => None,
        };
        // The next session must not meet this one in the kernel.
        tasks.shutdown().await;
        drop(clear);
        planes.stop().await;
        if matches!(why, Ok(ends::UNDERLAY_CHANGED)) {
            self.store.reconnect();
        }
        why
    }

    /// Takes the place that was found as this session's. Who we are was decided once.
    fn settle(&mut self, mut place: Place) -> Place {
        place.owner = *self.memory.owner.get_or_insert(place.owner);
        self.board.change(|facts| {
            facts.underlay = shown(&place);
            facts.owner = Some(place.owner);
            facts.warnings = place.warning.iter().cloned().collect();
        });
        self.memory.place = Some(place.clone());
        place
    }

    fn job(&self, place: &Place, ground: Ground, local: Local, known: Vec<Peer>) -> Job {
        let scope = Scope::of(&ground, Some(place.underlay.index));
        if let Some(spec) = &ground.vtep {
            tracing::info!(subnet = %local.subnet, vtep = spec.name, mac = %spec.mac, mtu = %spec.mtu, underlay = place.underlay.name, "VTEP wanted");
        }
        Job { scope, ground, local, guard: self.options.guard, peers_only: self.options.vxlan_peers_only, known }
    }

    /// Waits until nothing on this host stands in the network's way, and says once what does. With a reason where another underlay or
    /// configuration comes first.
    async fn find_room(&mut self, key: &ConfigKey, config: &NetworkConfig, place: &Place) -> anyhow::Result<Option<&'static str>> {
        let Self { options, board, feed, room, .. } = self;
        let other_ground = ends::other_ground(options, feed, key, config, place);
        tokio::pin!(other_ground);
        let mut said = None;
        loop {
            let error = match room.claim(options, config).await {
                Ok(warnings) => {
                    board.change(|facts| facts.warnings.extend(warnings.iter().cloned()));
                    return Ok(None);
                }
                Err(error) => error.to_string(),
            };
            if said.as_ref() != Some(&error) {
                tracing::error!(error, "this host has no room for the network: waiting");
                board.blocked(error.clone());
                said = Some(error);
            }
            tokio::select! {
                why = &mut other_ground => return why.map(Some),
                () = tokio::time::sleep(UNDERLAY_PAUSE) => {}
            }
        }
    }

    /// A keeper of this host's lease, which is not running yet.
    async fn keeper(
        &self,
        place: &Place,
        config: &NetworkConfig,
    ) -> anyhow::Result<(Keeper<Store>, watch::Receiver<LeaseState>, mpsc::Sender<Event>)> {
        let remembered = Remembered::read(&self.options.subnet_file);
        for warning in &remembered.warnings {
            tracing::warn!(%warning, "subnet file cannot be read: it will be written anew");
        }
        let claim = place::claim_for(place, config, remembered.key()).await?;
        let (mut keeper, lease, tell) = Keeper::new(self.store.clone(), claim, self.options.renew_margin, Rng::from_entropy());
        keeper = match (&self.memory.last, &self.memory.held) {
            (Some(held), _) => keeper.holding(held),
            (None, Some(entry)) => keeper.resuming(entry),
            (None, None) => keeper,
        };
        Ok((keeper, lease, tell))
    }

    /// As [`ends::other_ground`].
    async fn other_ground(&mut self, key: &ConfigKey, config: &NetworkConfig, place: &Place) -> anyhow::Result<&'static str> {
        ends::other_ground(&self.options, &mut self.feed, key, config, place).await
    }
}

/// Takes the session's parts off the board when it ends.
struct Clear(Board);

impl Drop for Clear {
    fn drop(&mut self) {
        self.0.change(|facts| {
            let Facts {
                blocked: _,
                underlay: _,
                owner: _,
                lease,
                key: _,
                planes,
                known: _,
                stuck: _,
                config,
                config_changes: _,
                subnet_file,
                cni: _,
                packet_filters,
                stale: _,
                warnings: _,
            } = facts;
            *lease = None;
            *planes = None;
            *config = None;
            *subnet_file = None;
            packet_filters.clear();
        });
    }
}

/// Takes the mark of a stale start away, once the store has said how our lease stands, and named all peers.
async fn freshen(board: Board, mut lease: watch::Receiver<LeaseState>, mut standing: watch::Receiver<Option<Standing>>) {
    if board.look().borrow().stale.is_none() {
        return;
    }
    let known = lease.wait_for(|lease| matches!(lease, LeaseState::Held(_) | LeaseState::Lost { .. })).await.is_ok();
    let complete = standing.wait_for(|standing| standing.as_ref().is_some_and(|standing| standing.complete)).await.is_ok();
    if known && complete {
        tracing::info!("the store has spoken: the last state is behind us");
        board.change(|facts| facts.stale = None);
    }
}

/// This host's place for a network. Waits for an interface that will do, and says once what was looked for and what there is.
async fn place(options: &Options, config: &NetworkConfig, board: Board) -> Place {
    let families: Vec<Family> = config.families().collect();
    let mut said = None;
    loop {
        match place::find(options, &families).await {
            Ok(place) => return place,
            Err(error) => {
                let text = error.to_string();
                if said.as_ref() != Some(&text) {
                    tracing::error!(error = text, "no interface for the tunnel yet");
                    board.blocked(text.clone());
                    said = Some(text);
                }
            }
        }
        tokio::time::sleep(UNDERLAY_PAUSE).await;
    }
}

fn shown(place: &Place) -> Option<status::Underlay> {
    let Underlay { index: _, name, mtu, mac: _, v4, v6 } = &place.underlay;
    let first = v4.or(*v6)?;
    let told = |end: End| Some(end.public).filter(|public| *public != end.address);
    Some(status::Underlay {
        interface: name.clone(),
        address: first.address,
        public_ip: told(first),
        ipv6_address: v6.map(|end| end.address),
        public_ipv6: v6.and_then(told),
        mtu: mtu.0,
    })
}

/// The lease, once it is held.
async fn held(lease: &mut watch::Receiver<LeaseState>) -> Option<Entry> {
    loop {
        if let LeaseState::Held(held) = &*lease.borrow_and_update() {
            return Some(held.entry.clone());
        }
        lease.changed().await.ok()?;
    }
}
