//! One session: underlay, configuration, lease, data plane, and then keeping files and watching for what ends it.
//!
//! Dropping a session at any point is safe: it leaves the lease and the kernel as they are.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::Context;
use lease::keeper::{Held, Keeper, LeaseState};
use lease::store::etcd::EtcdStore;
use lease::{Entry, Event, MacAddr, NetworkConfig, Owner, Rng, VtepData, VxlanConfig};
use overlay::underlay::Underlay;
use overlay::{Direct, Ground, Local, Peer, VtepSpec};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::board::{Board, Facts};
use super::dataplane::{Dataplane, Job, Standing};
use super::dispatch::dispatch;
use super::ends::{self, UNDERLAY_PAUSE};
use super::place::{self, Place};
use super::remember::{self, Known, Running};
use super::sources::{ConfigFeed, Unusable, Usable, next_usable};
use super::subnet_file;
use crate::cli::Options;
use crate::metrics::Metrics;
use crate::status;
use crate::subnet_env::{Remembered, SubnetEnv};

/// What the sessions of one process have in common.
pub(super) struct Sessions {
    pub(super) options: Options,
    pub(super) store: EtcdStore,
    pub(super) metrics: Arc<Metrics>,
    pub(super) board: Board,
    pub(super) feed: ConfigFeed,
    memory: Memory,
}

/// What one session leaves to the next.
#[derive(Debug, Default)]
struct Memory {
    /// Who we are: decided once, so that an underlay with another network card does not make us another host.
    owner: Option<Owner>,
    /// The lease that we have held: from then on it is that one or none, since containers have their addresses from it.
    held: Option<Entry>,
    /// The same, as it stood when the last session ended, if it was ours then.
    last: Option<Held>,
    /// The configuration in force, for when the store has not said anything yet.
    config: Option<Usable>,
    /// The peers that were in force, and whether the store had named all.
    peers: Vec<Peer>,
    complete: bool,
}

impl Sessions {
    pub(super) fn new(options: Options, store: EtcdStore, metrics: Arc<Metrics>, board: Board, feed: ConfigFeed) -> Self {
        Self { options, store, metrics, board, feed, memory: Memory::default() }
    }

    /// Runs until the underlay or the configuration changes in a way that asks for another session: says which.
    ///
    /// # Errors
    /// What keeps the session from going on; the next may have more luck.
    pub(super) async fn run_one(&mut self) -> anyhow::Result<&'static str> {
        let config_key = self.store.config_key();
        let place = self.place().await;
        let (usable, known) = self.configuration(&config_key, &place).await?;
        let Usable { config, vxlan, text } = &usable;
        let pool = config.v4.context("the configuration has no IPv4 network")?;
        // Before a lease is taken: where no VTEP can be made, none is needed.
        if let Err(error) = overlay::vtep_spec(vxlan, &pool, pool.min, place.underlay.address, place.underlay.mtu, MacAddr::new([0; 6])) {
            tracing::error!(%error, "no VTEP can be made: waiting for another network configuration or underlay");
            self.board.blocked(error.to_string());
            return self.other_ground(&config_key, config, &place).await;
        }

        let mut tasks = JoinSet::new();
        let clear = Clear(self.board.clone());
        let (keeper, mut lease, tell) = self.keeper(&place, &usable).await?;
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
        let (spec, local) = wanted(&place, config, *vxlan, &entry)?;
        let content = SubnetEnv::of_ipv4(pool.network, local.subnet, spec.mtu, self.options.ip_masq).render();
        tracing::info!(subnet = %local.subnet, vtep = spec.name, mac = %spec.mac, mtu = %spec.mtu, underlay = place.underlay.name, "VTEP wanted");

        let direct = if vxlan.direct_routing { Direct::WhereReachable } else { Direct::Never };
        let ground = Ground { direct, ..Ground::tunnel(spec, local.subnet) };
        let scope = ground.scope(Some(place.underlay.index));
        let job = Job { scope, ground, local, guard: self.options.guard, peers_only: self.options.vxlan_peers_only, known };
        let dataplane = Dataplane::start(job, Arc::clone(&self.metrics)).context("cannot start the data plane's thread")?;
        let dataplane = Arc::new(dataplane);
        let known_before = self.memory.complete;
        self.board.change(|facts| {
            facts.key = Some(entry.key);
            facts.known = known_before;
            facts.dataplane = Some(Arc::clone(&dataplane));
        });
        tasks.spawn(dispatch(self.store.clone(), Arc::clone(&dataplane), entry.key, tell));
        tasks.spawn(subnet_file::keep(self.options.subnet_file.clone(), content, self.board.clone(), Arc::clone(&self.metrics)));
        if let Some(path) = self.options.state_file.clone() {
            let (config_key, config) = (config_key.clone(), text.clone());
            tasks.spawn(Running { path, config_key, config, dataplane: Arc::clone(&dataplane), lease: lease.clone() }.keep());
        }
        tasks.spawn(freshen(self.board.clone(), lease.clone(), dataplane.standing.clone()));
        let mut running = dataplane.standing.clone();
        let why = tokio::select! {
            why = ends::underlay_change(&self.options, &place, &dataplane) => Ok(why),
            why = ends::config_change(&mut self.feed, &config_key, config, entry.key, &self.board) => why,
            changed = ends::lease_change(&mut lease, &entry) => match changed {
                // Whoever wrote it, the other hosts go by it.
                Some(changed) => {
                    self.memory.held = Some(changed);
                    Ok("the lease has changed")
                }
                None => Err(anyhow::anyhow!("the lease is no longer kept")),
            },
            _ = async { while running.changed().await.is_ok() {} } => Err(anyhow::anyhow!("the data plane's thread has ended")),
        };
        self.memory.peers = dataplane.all_peers().await;
        self.memory.complete |= dataplane.standing.borrow().as_ref().is_some_and(|standing| standing.complete);
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
        dataplane.stop().await;
        if matches!(why, Ok(ends::UNDERLAY_CHANGED)) {
            self.store.reconnect();
        }
        why
    }

    /// This host's place. Waits for an interface that will do, and says once what was looked for and what there is.
    async fn place(&mut self) -> Place {
        let mut said = None;
        let mut place = loop {
            match place::find(&self.options.interface).await {
                Ok(place) => break place,
                Err(error) => {
                    let text = error.to_string();
                    if said.as_ref() != Some(&text) {
                        tracing::error!(error = text, "no interface for the tunnel yet");
                        self.board.blocked(text.clone());
                        said = Some(text);
                    }
                }
            }
            tokio::time::sleep(UNDERLAY_PAUSE).await;
        };
        place.owner = *self.memory.owner.get_or_insert(place.owner);
        self.board.change(|facts| {
            facts.underlay = Some(shown(&place));
            facts.owner = Some(place.owner);
            facts.warnings = place.warning.iter().cloned().collect();
            facts.blocked = Some("waiting for the network configuration".to_owned());
        });
        place
    }

    /// The configuration, and the peers that an earlier run knew where the store is away.
    async fn configuration(&mut self, key: &str, place: &Place) -> anyhow::Result<(Usable, Vec<Peer>)> {
        let board = self.board.clone();
        let refused = |unusable: &Unusable| {
            board.blocked(unusable.to_string());
            match unusable {
                Unusable::Missing { .. } => tracing::warn!(reason = %unusable, "waiting for the network configuration"),
                Unusable::Invalid { .. } | Unusable::NotYet { .. } => {
                    tracing::error!(reason = %unusable, "waiting for another network configuration");
                }
            }
        };
        let silent = self.feed.borrow().is_none();
        if let Some(usable) = self.memory.config.clone().filter(|_| silent) {
            return Ok((usable, std::mem::take(&mut self.memory.peers)));
        }
        let (usable, peers) = tokio::select! {
            usable = next_usable(&mut self.feed, key, refused) => (usable.context("the configuration is no longer followed")?, std::mem::take(&mut self.memory.peers)),
            known = remember::when_the_store_is_away(self.options.state_file.as_deref(), &self.store, place), if silent => {
                let Known { usable, entry, peers, written } = known;
                let age = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs().saturating_sub(written);
                tracing::warn!(lease = %entry.key, peers = peers.len(), age_seconds = age, "the store is away: going on from the last state");
                self.board.change(|facts| facts.stale = Some(written));
                self.memory.held = Some(entry);
                (usable, peers)
            }
        };
        self.memory.config = Some(usable.clone());
        Ok((usable, peers))
    }

    /// A keeper of this host's lease, which is not running yet.
    async fn keeper(
        &self,
        place: &Place,
        usable: &Usable,
    ) -> anyhow::Result<(Keeper<EtcdStore>, watch::Receiver<LeaseState>, mpsc::Sender<Event>)> {
        let remembered = Remembered::read(&self.options.subnet_file);
        for warning in &remembered.warnings {
            tracing::warn!(%warning, "subnet file cannot be read: it will be written anew");
        }
        let claim = place::claim_for(place, &usable.config, usable.vxlan, remembered.key()).await?;
        let (mut keeper, lease, tell) = Keeper::new(self.store.clone(), claim, self.options.renew_margin, Rng::from_entropy());
        keeper = match (&self.memory.last, &self.memory.held) {
            (Some(held), _) => keeper.holding(held),
            (None, Some(entry)) => keeper.resuming(entry),
            (None, None) => keeper,
        };
        Ok((keeper, lease, tell))
    }

    /// Ends when the configuration or the underlay is another than the one that a lease is being claimed for.
    async fn other_ground(&mut self, key: &str, config: &NetworkConfig, place: &Place) -> anyhow::Result<&'static str> {
        tokio::select! {
            why = ends::other_config(&mut self.feed, key, config) => why,
            why = ends::other_underlay(&self.options, place) => Ok(why),
        }
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
                dataplane,
                known: _,
                stuck: _,
                config,
                subnet_file,
                stale: _,
                warnings: _,
            } = facts;
            *lease = None;
            *dataplane = None;
            *config = None;
            *subnet_file = None;
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

fn shown(place: &Place) -> status::Underlay {
    let Underlay { index: _, name, mtu, mac: _, address, public_ip } = &place.underlay;
    status::Underlay {
        interface: name.clone(),
        address: *address,
        public_ip: Some(*public_ip).filter(|public_ip| public_ip != address),
        mtu: mtu.0,
    }
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

/// What the kernel should have, and what the other hosts' leases are held against.
pub(crate) fn wanted(place: &Place, config: &NetworkConfig, vxlan: VxlanConfig, entry: &Entry) -> anyhow::Result<(VtepSpec, Local)> {
    let (pool, subnet) = config.v4.zip(entry.key.v4()).context("the lease has no IPv4 subnet")?;
    let vtep = entry.record.as_ref().ok().and_then(|record| record.vtep).context("our own lease names no VTEP")?;
    let underlay = &place.underlay;
    let spec = overlay::vtep_spec(&vxlan, &pool, subnet, underlay.address, underlay.mtu, vtep.mac)?;
    let mut addresses = vec![underlay.address];
    addresses.extend(Some(underlay.public_ip).filter(|public_ip| *public_ip != underlay.address));
    let vtep = Some(VtepData { vni: vxlan.vni, mac: vtep.mac });
    let local = Local { key: entry.key, subnet, network: pool.network, subnet_len: pool.subnet_len, vtep, addresses };
    Ok((spec, local))
}
