//! The data-plane thread of one family: the one place that writes its device, entries, routes and rules while the agent runs.
//!
//! It has a runtime of its own, so that a slow store, a scrape or a status of fifty thousand peers never stands between a
//! kernel event and its repair. It ends when it is stopped or its [`Dataplane`] handle is dropped, and leaves the kernel as it is.

mod task;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lease::{Event, Family, Subnet};
use overlay::{Ground, Guard, Local, Peer, Scope, State};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::view::View;
use crate::metrics::Metrics;
use task::Task;

/// Portions of leases that may wait: a few, so that the store is read ahead while the kernel is written, and no more, so
/// that fifty thousand leases are never all in memory.
const PORTIONS_AHEAD: usize = 4;

/// How long the thread may take for an answer: its longest batch, a dump of 50 000 peers, and room.
const ANSWER: Duration = Duration::from_secs(4);

/// What the data plane of one family is to do.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// What of the kernel is its own.
    pub(crate) scope: Scope,
    /// What it is made for.
    pub(crate) ground: Ground,
    /// What the other hosts' records are held against.
    pub(crate) local: Local,
    /// Whether it believes a store that suddenly lacks peers.
    pub(crate) guard: Guard,
    /// Whether VXLAN packets of known peers alone are let in.
    pub(crate) peers_only: bool,
    /// Peers that an earlier run knew, in force until the store has spoken.
    pub(crate) known: Vec<Peer>,
}

/// How the data plane stands, for readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Against what it should be.
    pub(crate) state: State,
    /// How many other hosts it serves.
    pub(crate) peers: usize,
    /// Whether the store has named all of them.
    pub(crate) complete: bool,
    /// How many records it does not use, and how many things somebody keeps undoing.
    pub(crate) complaints: usize,
}

/// What can be asked of the thread.
#[derive(Debug)]
enum Ask {
    /// Everything there is to say.
    View(oneshot::Sender<Box<View>>),
    /// Some of its peers: those after this subnet.
    Peers(Option<Subnet>, oneshot::Sender<Vec<Peer>>),
    /// Whether it lives.
    Ping(oneshot::Sender<()>),
}

/// The thread's ends of what connects it with its handle.
#[derive(Debug)]
struct Line {
    stop: CancellationToken,
    asked: mpsc::Receiver<Ask>,
    events: mpsc::Receiver<Vec<Event>>,
    say: watch::Sender<Option<Standing>>,
    tell: watch::Sender<u64>,
    underlay: Arc<Notify>,
}

/// A handle on the running thread.
#[derive(Debug)]
pub(crate) struct Dataplane {
    /// Whose addresses are behind its tunnels.
    pub(crate) family: Family,
    stop: CancellationToken,
    asks: mpsc::Sender<Ask>,
    /// Where the store's events go.
    pub(crate) leases: mpsc::Sender<Vec<Event>>,
    /// How it stands; closed when the thread has ended.
    pub(crate) standing: watch::Receiver<Option<Standing>>,
    /// Changes when the store has said something new of the peers, all of whom it has named before.
    pub(crate) news: watch::Receiver<u64>,
}

impl Dataplane {
    /// Starts the thread for one address family. `underlay` is notified when the underlay's interface has changed.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(job: Job, metrics: Arc<Metrics>, underlay: Arc<Notify>) -> std::io::Result<Self> {
        let family = Family::of(job.scope.network.address());
        let (asks, asked) = mpsc::channel(4);
        let (leases, events) = mpsc::channel(PORTIONS_AHEAD);
        let (say, standing) = watch::channel(None);
        let (tell, news) = watch::channel(0);
        let stop = CancellationToken::new();
        let task = Task::new(Line { stop: stop.clone(), asked, events, say, tell, underlay }, metrics);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name(format!("data-plane-{}", family.pick("v4", "v6"))).spawn(move || runtime.block_on(task.run(job)))?;
        Ok(Self { family, stop, asks, leases, standing, news })
    }

    /// All that there is to say of it. None when it has ended or does not answer in time.
    pub(crate) async fn view(&self) -> Option<Box<View>> {
        self.ask(Ask::View).await
    }

    /// A portion of its peers, in the order of their subnets: those after this one. None when it does not answer.
    pub(crate) async fn peers(&self, after: Option<Subnet>) -> Option<Vec<Peer>> {
        self.ask(|answer| Ask::Peers(after, answer)).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.asks.send(ask(answer)).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout(ANSWER, asked).await.ok().flatten()
    }

    /// Returns when the thread has answered, or ended: that is told otherwise.
    pub(crate) async fn ping(&self) {
        let (answer, answered) = oneshot::channel();
        if self.asks.send(Ask::Ping(answer)).await.is_ok() {
            let _ = answered.await;
        }
    }

    /// Ends the thread, and returns when it writes nothing any more, or hangs: then it cannot write either.
    pub(crate) async fn stop(&self) {
        let mut standing = self.standing.clone();
        // Whoever else holds a handle is about to let it go.
        self.stop.cancel();
        let ended = async { while standing.changed().await.is_ok() {} };
        if tokio::time::timeout(ANSWER, ended).await.is_err() {
            tracing::error!(waited = ?ANSWER, "data plane does not end: it hangs in the kernel");
        }
    }
}

/// Says it, if it is news.
pub(crate) fn tell_news<T: PartialEq>(say: &watch::Sender<T>, now: T) {
    say.send_if_modified(|before| {
        let changed = *before != now;
        *before = now;
        changed
    });
}
