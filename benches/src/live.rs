//! The agent at work: one further lease, one deleted entry.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use testkit::{Host, KernelEntry, Table, Watch};

use crate::fleet::{self, Peer};
use crate::start::{PATIENCE, VTEP};

/// Whoever can put a peer into a store, and take it out again.
pub(crate) trait Hands {
    /// How long one put takes, from asking to the answer.
    async fn put(&mut self, peer: &Peer) -> Result<Duration>;
    /// Deletes the peer.
    async fn delete(&mut self, peer: &Peer) -> Result<()>;
}

/// Further leases are made up from this number on: no size reaches it.
const FURTHER: u32 = 60_000;
/// Between two samples, so that each meets an agent at rest.
const REST: Duration = Duration::from_millis(3);
/// How long the listener waits before it looks whether it is still wanted.
const LISTEN: Duration = Duration::from_millis(100);

/// Durations, sorted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spread(Vec<Duration>);

impl Spread {
    pub(crate) fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort();
        Self(samples)
    }

    /// The smallest that so many per cent do not exceed (nearest rank).
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(rank).copied().unwrap_or_default()
    }

    pub(crate) fn max(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

/// One further lease, many times.
#[derive(Debug, Clone, Default)]
pub(crate) struct Puts {
    /// The put alone, from asking to etcd's answer.
    pub(crate) put: Spread,
    /// From asking until the kernel tells of the route.
    pub(crate) route: Spread,
    /// What the second is more than the first, of each pair.
    pub(crate) over: Spread,
}

/// Puts so many further leases, one after the other, and takes them away again.
pub(crate) async fn puts(store: &mut impl Hands, host: &Host, samples: u32) -> Result<Puts> {
    let (tell, told) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let watch = Watch::new(host)?;
    let listener = thread::spawn(move || -> Result<()> {
        while !matches!(stopped.try_recv(), Err(mpsc::TryRecvError::Disconnected)) {
            let changes = watch.changes(LISTEN)?;
            let heard = Instant::now();
            for change in changes.into_iter().filter(|change| change.entry.table == Table::Route) {
                // The receiver is gone when something went wrong there, which is told there.
                let _ = tell.send((change.entry.key, change.present, heard));
            }
        }
        Ok(())
    });
    let wait = |peer: &Peer, present: bool| loop {
        let (key, there, at) = told.recv_timeout(PATIENCE).context("the kernel tells of no route")?;
        if there == present && key == peer.subnet.octets() {
            return Ok::<Instant, anyhow::Error>(at);
        }
    };
    let (mut alone, mut routes, mut over) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..samples {
        let peer = fleet::peer(FURTHER + n);
        let start = Instant::now();
        let put = store.put(&peer).await?;
        let route = wait(&peer, true)?.duration_since(start);
        alone.push(put);
        routes.push(route);
        over.push(route.saturating_sub(put));
        thread::sleep(REST);
    }
    for n in 0..samples {
        let peer = fleet::peer(FURTHER + n);
        store.delete(&peer).await?;
        wait(&peer, false)?;
    }
    drop(stop);
    listener.join().map_err(|_| anyhow::anyhow!("the listener panicked"))??;
    Ok(Puts { put: Spread::of(alone), route: Spread::of(routes), over: Spread::of(over) })
}

/// Deletes so many entries of a table, evenly spread, one after the other, and waits for each to come back.
pub(crate) fn heals(host: &Host, table: Table, samples: usize) -> Result<Spread> {
    let entries = KernelEntry::list(host, table, VTEP)?;
    let stride = (entries.len() / samples).max(1);
    let watch = Watch::new(host)?;
    let mut outages = Vec::new();
    for entry in entries.iter().step_by(stride).take(samples) {
        outages.push(watch.outage(entry, PATIENCE).with_context(|| format!("{table:?}"))?);
        thread::sleep(REST);
    }
    Ok(Spread::of(outages))
}
