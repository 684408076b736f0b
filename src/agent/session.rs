//! One session: underlay, configuration, lease, data plane, and then keeping the subnet file and watching for what ends it.
//!
//! Dropping a session at any point is safe: it leaves the lease and the kernel as they are.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use lease::keeper::{Keeper, LeaseState};
use lease::store::etcd::EtcdStore;
use lease::{Entry, Event, LeaseKey, LeaseStore, MacAddr, NetworkConfig, Owner, Rng, VxlanConfig};
use overlay::underlay::Underlay;
use overlay::{Local, Scope, VtepSpec};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::board::{Board, Facts};
use super::dataplane::Dataplane;
use super::place::{self, Place};
use super::sources::{ConfigFeed, Unusable, next_usable, usable};
use crate::cli::Options;
use crate::metrics::Metrics;
use crate::status;
use crate::subnet_env::{Remembered, SubnetEnv, SubnetFile};

/// How often to look for an interface while there is none that will do.
const UNDERLAY_PAUSE: Duration = Duration::from_secs(1);

/// After a change of the underlay: until a burst of them (address away, address back) is over.
const UNDERLAY_SETTLE: Duration = Duration::from_millis(50);

/// Why a session ends.
const UNDERLAY_CHANGED: &str = "the underlay has changed";
const CONFIG_CHANGED: &str = "the network configuration has changed";

/// Portions of leases between the store and the dispatcher.
const PORTIONS_AHEAD: usize = 2;

/// What the sessions of one process have in common.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Who we are: decided once, so that an underlay with another network card does not make us another host.
    owner: Option<Owner>,
    /// The lease that we have held: from then on it is that one or none, since containers have their addresses from it.
    held: Option<Entry>,
}

/// Runs until the underlay or the configuration changes in a way that asks for another session: says which.
///
/// # Errors
/// What keeps the session from going on; the next may have more luck.
pub(super) async fn run(
    options: &Options,
    store: &EtcdStore,
    metrics: &Arc<Metrics>,
    board: &Board,
    feed: &mut ConfigFeed,
    memory: &mut Memory,
) -> anyhow::Result<&'static str> {
    let config_key = store.config_key();
    let mut place = underlay(options, board).await;
    place.owner = *memory.owner.get_or_insert(place.owner);
    board.change(|facts| {
        facts.underlay = Some(shown(&place));
        facts.owner = Some(place.owner);
        facts.warnings = place.warning.iter().cloned().collect();
        facts.blocked = Some("waiting for the network configuration".to_owned());
    });
    let refused = |unusable: &Unusable| {
        board.blocked(unusable.to_string());
        match unusable {
            Unusable::Missing { .. } => tracing::warn!(reason = %unusable, "waiting for the network configuration"),
            Unusable::Invalid { .. } | Unusable::NotYet { .. } => {
                tracing::error!(reason = %unusable, "waiting for another network configuration");
            }
        }
    };
    let (config, vxlan) = next_usable(feed, &config_key, refused).await.context("the configuration is no longer followed")?;
    let pool = config.v4.context("the configuration has no IPv4 network")?;
    // Before a lease is taken: where no VTEP can be made, none is needed.
    if let Err(error) = overlay::vtep_spec(&vxlan, &pool, pool.min, place.underlay.address, place.underlay.mtu, MacAddr::new([0; 6])) {
        tracing::error!(%error, "no VTEP can be made: waiting for another network configuration or underlay");
        board.blocked(error.to_string());
        return tokio::select! {
            why = other_config(feed, &config_key, &config) => why,
            why = other_underlay(options, &place) => Ok(why),
        };
    }

    let mut tasks = JoinSet::new();
    let remembered = Remembered::read(&options.subnet_file);
    for warning in &remembered.warnings {
        tracing::warn!(%warning, "subnet file cannot be read: it will be written anew");
    }
    let claim = place::claim_for(&place, &config, vxlan, remembered.key()).await?;
    let (mut keeper, mut lease, tell) = Keeper::new(store.clone(), claim, options.renew_margin, Rng::from_entropy());
    if let Some(entry) = &memory.held {
        keeper = keeper.resuming(entry);
    }
    tasks.spawn(async move { keeper.run(&CancellationToken::new()).await });
    board.change(|facts| {
        facts.blocked = None;
        facts.lease = Some(lease.clone());
    });
    let clear = Clear(board);
    let entry = match memory.held.take() {
        // Whether it is still ours is the keeper's business; the data plane does not wait for it.
        Some(entry) => entry,
        None => tokio::select! {
            entry = held(&mut lease) => entry.context("the lease is no longer kept")?,
            why = other_config(feed, &config_key, &config) => return why,
            why = other_underlay(options, &place) => return Ok(why),
        },
    };
    memory.held = Some(entry.clone());
    let (spec, local) = wanted(&place, &config, vxlan, &entry)?;
    let subnet = local.subnet;
    let content = SubnetEnv::of_ipv4(pool.network, subnet, spec.mtu, options.ip_masq).render();
    tracing::info!(%subnet, vtep = spec.name, mac = %spec.mac, mtu = %spec.mtu, underlay = place.underlay.name, "VTEP wanted");

    let scope = Scope { device: spec.name.clone(), network: pool.network, underlay: Some(place.underlay.index) };
    let dataplane = Arc::new(
        Dataplane::start(scope, spec, local, options.vxlan_peers_only, Arc::clone(metrics))
            .context("cannot start the data plane's thread")?,
    );
    board.change(|facts| {
        facts.key = Some(entry.key);
        facts.dataplane = Some(Arc::clone(&dataplane));
    });
    tasks.spawn(dispatch(store.clone(), Arc::clone(&dataplane), entry.key, tell));
    tasks.spawn(keep_subnet_file(options.subnet_file.clone(), content, board.clone(), Arc::clone(metrics)));
    let mut running = dataplane.standing.clone();
    let why = tokio::select! {
        why = underlay_change(options, &place, &dataplane) => Ok(why),
        why = config_change(feed, &config_key, &config, entry.key, board) => why,
        why = lease_change(&mut lease, &entry) => Ok(why),
        _ = async { while running.changed().await.is_ok() {} } => Err(anyhow::anyhow!("the data plane's thread has ended")),
    };
    // The next session must not meet this one in the kernel.
    tasks.shutdown().await;
    drop(clear);
    dataplane.stop().await;
    why
}

/// Takes the session's parts off the board when it ends.
struct Clear<'a>(&'a Board);

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        self.0.change(|facts| {
            let Facts { blocked: _, underlay: _, owner: _, lease, key: _, dataplane, stuck: _, config, subnet_file, warnings: _ } = facts;
            *lease = None;
            *dataplane = None;
            *config = None;
            *subnet_file = None;
        });
    }
}

/// The interface between the hosts. Waits for one that will do, and says once what was looked for and what there is.
async fn underlay(options: &Options, board: &Board) -> Place {
    let mut said = None;
    loop {
        match place::find(&options.interface).await {
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
    let local =
        Local { key: entry.key, subnet, network: pool.network, subnet_len: pool.subnet_len, vni: vxlan.vni, mac: vtep.mac, addresses };
    Ok((spec, local))
}

/// Hands what the store says to the data plane, and what it says of our own key to the lease's keeper.
async fn dispatch(store: EtcdStore, dataplane: Arc<Dataplane>, own: LeaseKey, tell: mpsc::Sender<Event>) {
    let (events, mut arriving) = mpsc::channel::<Vec<Event>>(PORTIONS_AHEAD);
    let forward = async {
        let mut own = Own { key: own, named: false };
        while let Some(page) = arriving.recv().await {
            for event in page.iter().filter_map(|event| own.concerns(event)) {
                if tell.send(event).await.is_err() {
                    return;
                }
            }
            if dataplane.leases.send(page).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = store.watch(events) => {}
        () = forward => {}
    }
}

/// Our own key, as the watch speaks of it.
struct Own {
    key: LeaseKey,
    /// Whether the snapshot that is coming in has named it.
    named: bool,
}

impl Own {
    /// What an event says of our key: one that a whole snapshot does not name is gone.
    fn concerns(&mut self, event: &Event) -> Option<Event> {
        match event {
            Event::Init => {
                self.named = false;
                None
            }
            Event::InitApply(entry) if entry.key == self.key => {
                self.named = true;
                Some(event.clone())
            }
            Event::InitDone(_) if !self.named => Some(Event::Delete(self.key)),
            Event::Apply(entry) if entry.key == self.key => Some(event.clone()),
            Event::Delete(key) if *key == self.key => Some(event.clone()),
            Event::InitApply(_) | Event::InitDone(_) | Event::Apply(_) | Event::Delete(_) | Event::Stray(_) => None,
        }
    }
}

/// Keeps the subnet file saying what it should.
async fn keep_subnet_file(path: std::path::PathBuf, content: String, board: Board, metrics: Arc<Metrics>) {
    let (mut file, unwatched) = SubnetFile::new(path.clone());
    if let Some(error) = unwatched {
        tracing::warn!(%error, "no inotify: the subnet file is looked at every half minute only");
    }
    let mut said = None;
    loop {
        match file.ensure(&content).await {
            Ok(written) => {
                if written {
                    tracing::info!(path = %path.display(), "subnet file written");
                }
                said = None;
                board.change(|facts| facts.subnet_file = None);
            }
            Err(error) => {
                let text = format!("{:#}", anyhow::Error::new(error));
                if said.as_ref() != Some(&text) {
                    tracing::error!(error = text, "subnet file cannot be written");
                    board.change(|facts| facts.subnet_file = Some(text.clone()));
                    said = Some(text);
                }
            }
        }
        let disturbance = file.changed().await;
        if said.is_none() {
            tracing::warn!(harm = ?disturbance.harm, in_a_row = disturbance.in_a_row, "subnet file was changed by somebody: putting it back");
            metrics.healed("subnet_file", 1);
        }
    }
}

/// Ends when the underlay is not what it was any more.
async fn underlay_change(options: &Options, place: &Place, dataplane: &Dataplane) -> &'static str {
    // What changes from now on is told; what changed before has to be looked at.
    let _ = dataplane.standing.clone().wait_for(Option::is_some).await;
    let mut missing = None;
    loop {
        match place::find(&options.interface).await {
            Ok(now) if now.underlay != place.underlay => return UNDERLAY_CHANGED,
            Ok(_) => missing = None,
            // Down, or without address for now: what is in the kernel serves as well as anything.
            Err(error) => {
                let error = error.to_string();
                if missing.as_ref() != Some(&error) {
                    tracing::warn!(error, "underlay not usable at the moment; the overlay stays as it is");
                }
                missing = Some(error);
            }
        }
        let told = dataplane.underlay.notified();
        if missing.is_some() {
            // An interface that comes back is another one to the kernel, of which nobody tells us: we have to look.
            let _ = tokio::time::timeout(UNDERLAY_PAUSE, told).await;
        } else {
            told.await;
        }
        tokio::time::sleep(UNDERLAY_SETTLE).await;
    }
}

/// Ends when the underlay is another than the one that a lease is being claimed for. No data plane is there yet to tell.
async fn other_underlay(options: &Options, place: &Place) -> &'static str {
    loop {
        tokio::time::sleep(UNDERLAY_PAUSE).await;
        if place::find(&options.interface).await.is_ok_and(|now| now.underlay != place.underlay) {
            return UNDERLAY_CHANGED;
        }
    }
}

/// Ends when the configuration is another than the one that a lease is being claimed for.
async fn other_config(feed: &mut ConfigFeed, key: &str, claimed_for: &NetworkConfig) -> anyhow::Result<&'static str> {
    loop {
        feed.changed().await.context("the configuration is no longer followed")?;
        let text = feed.borrow_and_update().clone().flatten();
        if !usable(text.as_deref(), key).is_ok_and(|(config, _)| config == *claimed_for) {
            // The next session looks at it as if for the first time.
            feed.mark_changed();
            return Ok(CONFIG_CHANGED);
        }
    }
}

/// Ends when there is another configuration that can be taken over while containers run. One that cannot is told of.
async fn config_change(
    feed: &mut ConfigFeed,
    key: &str,
    running: &NetworkConfig,
    own: LeaseKey,
    board: &Board,
) -> anyhow::Result<&'static str> {
    loop {
        feed.changed().await.context("the configuration is no longer followed")?;
        let text = feed.borrow_and_update().clone().flatten();
        let matter = match usable(text.as_deref(), key) {
            Ok((config, _)) if config == *running => None,
            Ok((config, _)) if may_follow(running, &config, own) => return Ok(CONFIG_CHANGED),
            Ok(_) => Some(format!(
                "{key} has changed in what containers depend on (network, subnets, VNI, port, backend): it takes effect when the agent is started again"
            )),
            Err(unusable) => Some(format!("{unusable}; the one before stays in force")),
        };
        if let Some(matter) = &matter {
            tracing::error!(matter, "network configuration not taken over");
        }
        board.change(|facts| facts.config = matter);
    }
}

/// Whether the new configuration leaves alone what containers and other hosts depend on: network, subnet, VNI, port.
fn may_follow(running: &NetworkConfig, new: &NetworkConfig, own: LeaseKey) -> bool {
    let (lease::Backend::Vxlan(before), lease::Backend::Vxlan(after)) = (&running.backend, &new.backend) else { return false };
    let same_network = running.v4.map(|pool| (pool.network, pool.subnet_len)) == new.v4.map(|pool| (pool.network, pool.subnet_len));
    same_network && new.admits(own) && (before.vni, before.port, before.gbp) == (after.vni, after.port, after.gbp)
}

/// Ends when the lease is held again with other subnets or another MAC than the data plane was started with.
async fn lease_change(lease: &mut watch::Receiver<LeaseState>, started_with: &Entry) -> &'static str {
    loop {
        if lease.changed().await.is_err() {
            return "the lease is no longer kept";
        }
        if let LeaseState::Held(held) = &*lease.borrow_and_update() {
            let vtep = |entry: &Entry| entry.record.as_ref().ok().and_then(|record| record.vtep);
            if held.entry.key != started_with.key || vtep(&held.entry) != vtep(started_with) {
                return "the lease has changed";
            }
        }
    }
}
