//! The last state on disk: kept current while all is well, and gone on from when the store is away at the start.
//!
//! It is a copy of what the store said, never more: whatever the store says later goes before it. Nothing of it is used
//! that may be another host's by now: not a lease that has ended since, and not another machine's file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lease::keeper::{Held, LeaseState};
use lease::store::Health;
use lease::{Entry, Family, LeaseRecord, Owner, Subnet};
use overlay::Peer;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::ends::UNDERLAY_PAUSE;
use super::place;
use super::planes::Planes;
use super::sources::{ConfigKey, Usable, usable};
use super::store::Store;
use crate::cli::Options;
use crate::last_state::LastState;

/// How long a store may leave the first question without an answer before it counts as away.
const STORE_PATIENCE: Duration = Duration::from_secs(3);

/// So far back a clock may have been put since the state was written. One that is further off tells nothing of a lease's end.
const CLOCK_SLACK: Duration = Duration::from_secs(2 * 3600);

/// After a change: until a burst of them is over.
const SETTLE: Duration = Duration::from_secs(2);

/// Between two writes: a large cluster's leases change all the time, and a disk is not for that.
const WRITE_PAUSE: Duration = Duration::from_secs(60);

/// What an earlier run knew.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) usable: Usable,
    pub(super) entry: Entry,
    pub(super) peers: Vec<Peer>,
    /// When it was written down, in seconds of Unix time.
    pub(super) written: u64,
}

/// Returns what an earlier run knew as soon as the store is plainly away; never, where there is nothing to go on from.
pub(super) async fn when_the_store_is_away(options: &Options, store: &Store, owner: Option<Owner>) -> Known {
    let mut health = lease::LeaseStore::health(store);
    let mut away = async |limit| {
        let down = health.wait_for(|health| matches!(health, Health::Down(_)));
        timeout(limit, down).await.is_ok() || *health.borrow() == Health::Unknown
    };
    if !away(STORE_PATIENCE).await {
        // It has answered, and may still go.
        away(Duration::MAX).await;
    }
    match load(options, &store.config_key(), owner).await {
        Ok(known) => known,
        Err(reason) => {
            tracing::warn!(reason, "the store is away, and there is no last state to go on from: waiting for the store");
            std::future::pending().await
        }
    }
}

async fn load(options: &Options, config_key: &ConfigKey, owner: Option<Owner>) -> Result<Known, String> {
    let path = options.state_file.clone().ok_or("--state-file is none")?;
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || LastState::read(&path)).await.map_err(|error| error.to_string())?;
    let read = read.map_err(|error| format!("{shown}: {:#}", anyhow::Error::new(error)))?;
    let (state, peers) = read.ok_or_else(|| format!("{shown} is not there"))?;
    let refuse = |what: String| Err(format!("{shown} {what}"));
    if state.config_key != config_key.name {
        return refuse(format!("is of the network under {}, not {config_key}", state.config_key));
    }
    if state.written > unix(SystemTime::now() + CLOCK_SLACK) {
        return refuse(
            "was written later than now: this machine's clock is wrong, and whether the lease has ended cannot be told".to_owned(),
        );
    }
    if state.ends.is_some_and(|ends| ends <= unix(SystemTime::now())) {
        return refuse("speaks of a lease that has ended since: the subnet may be another host's".to_owned());
    }
    let usable = usable(Some(&state.config), config_key).map_err(|error| format!("{shown}: {error}"))?;
    let owner = match owner {
        Some(owner) => owner,
        None => whoever_we_are(options, &usable).await,
    };
    if state.record.owner != Some(owner) {
        return refuse("was written by another machine, or with another network card".to_owned());
    }
    Ok(Known { usable, entry: state.entry(), peers, written: state.written })
}

/// Our identity goes by the underlay's card, which may not be there yet.
async fn whoever_we_are(options: &Options, usable: &Usable) -> Owner {
    let families: Vec<Family> = usable.config.families().collect();
    loop {
        if let Ok(place) = place::find(options, &families).await {
            return place.owner;
        }
        tokio::time::sleep(UNDERLAY_PAUSE).await;
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What is written of the session that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) path: PathBuf,
    pub(super) config_key: String,
    pub(super) owner: Owner,
    pub(super) config: String,
    pub(super) planes: Arc<Planes>,
    pub(super) lease: watch::Receiver<LeaseState>,
}

impl Running {
    /// Writes the state down a little after each change of leases, all of which the store has named. A lease that another
    /// host holds now is forgotten at once.
    pub(super) async fn keep(mut self) {
        let mut news = self.planes.news.clone();
        let (mut due, mut earliest) = (Some(Instant::now() + SETTLE), Instant::now());
        let mut said = None;
        loop {
            let changed = tokio::select! {
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => None,
                news = news.changed() => Some(news),
                lease = self.lease.changed() => Some(lease),
            };
            let lease = self.lease.borrow_and_update().clone();
            let outcome = match (changed, lease) {
                (Some(Err(_)), _) => return,
                (_, LeaseState::Lost { .. }) => {
                    due = None;
                    forget(&self.path)
                }
                (Some(Ok(())), _) => {
                    due = due.or_else(|| Some(earliest.max(Instant::now() + SETTLE)));
                    continue;
                }
                (None, LeaseState::Held(held)) if *news.borrow_and_update() > 0 => {
                    (due, earliest) = (None, Instant::now() + WRITE_PAUSE);
                    self.write(&held).await
                }
                (None, LeaseState::Held(_) | LeaseState::Claiming { .. }) => {
                    due = None;
                    continue;
                }
            };
            let trouble = outcome.err();
            if trouble.is_some() {
                // A disk that is full may have room later.
                due = Some(Instant::now() + WRITE_PAUSE);
            }
            if let Some(error) = trouble.as_ref().filter(|_| trouble != said) {
                tracing::warn!(error, "last state cannot be kept: a start while the store is away would go without it");
            }
            said = trouble;
        }
    }

    async fn write(&self, held: &Held) -> Result<(), String> {
        let Held { entry, expires, .. } = held;
        let Ok(record) = entry.record.clone() else { return Ok(()) };
        let now = SystemTime::now();
        let ends = expires.map(|at| unix(now + at.saturating_duration_since(Instant::now())));
        let Self { path, config_key, config, owner, .. } = self;
        // In Kubernetes the record in the store does not say whose it is, and a file may be copied with its disk.
        let record = LeaseRecord { owner: Some(*owner), ..record };
        let state = LastState { config_key: config_key.clone(), config: config.clone(), key: entry.key, record, ends, written: unix(now) };
        let (portions, arriving) = mpsc::channel(1);
        let path = path.clone();
        let writer = tokio::task::spawn_blocking(move || state.put(&path, until_the_end(arriving)));
        self.send_peers(portions).await;
        match writer.await {
            Ok(written) => written.map_err(|error| format!("{:#}", anyhow::Error::new(error))),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Sends the peers portion by portion, so that there are never two copies of all, and an empty one at the end. One that
    /// fails spoils the file.
    async fn send_peers(&self, portions: mpsc::Sender<io::Result<Vec<Peer>>>) {
        let mut after: Option<Subnet> = None;
        loop {
            let portion = self.planes.peers(after).await.ok_or_else(|| io::Error::other("the data plane does not answer"));
            let last = match &portion {
                Ok(peers) => peers.last().map(|peer| peer.subnet),
                Err(_) => None,
            };
            if portions.send(portion).await.is_err() || last.is_none() {
                return;
            }
            after = last;
        }
    }
}

fn forget(path: &Path) -> Result<(), String> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("cannot remove {}: {error}", path.display())),
    }
}

/// The portions up to the empty one. Where they break off before, we have been stopped: what came is not all, and must not
/// pass for it.
fn until_the_end(mut portions: mpsc::Receiver<io::Result<Vec<Peer>>>) -> impl Iterator<Item = io::Result<Vec<Peer>>> {
    std::iter::from_fn(move || match portions.blocking_recv() {
        Some(Ok(peers)) if peers.is_empty() => None,
        Some(portion) => Some(portion),
        None => Some(Err(io::Error::other("broken off"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_that_break_off_before_their_end_are_an_error() {
        let peer = Peer {
            subnet: "10.5.3.0/24".parse().unwrap(),
            mac: Some("02:00:00:00:00:03".parse().unwrap()),
            dst: "192.168.77.3".parse().unwrap(),
        };
        for (last, whole) in [(Some(Vec::new()), true), (None, false)] {
            let (portions, arriving) = mpsc::channel(4);
            portions.try_send(Ok(vec![peer])).unwrap();
            if let Some(last) = last {
                portions.try_send(Ok(last)).unwrap();
            }
            drop(portions);
            let came: Vec<_> = until_the_end(arriving).take(3).collect();
            assert_eq!(came.iter().all(Result::is_ok), whole, "{came:?}");
        }
    }
}
