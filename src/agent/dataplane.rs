//! The data-plane thread: the one place that speaks to the kernel while the agent runs.
//!
//! It has a runtime of its own, so that a slow store, a scrape or a status of fifty thousand peers never stands between a
//! kernel event and its repair. It ends when it is stopped or its [`Dataplane`] handle is dropped, and leaves the kernel as it is.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lease::{Event, Rng, Subnet};
use overlay::{Counts, Guard, Kernel, KernelError, Local, Netlink, Peer, Reconciler, Scope, State, Step, Totals, VtepSpec};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::notices::Notices;
use super::peer_filter::PeerFilter;
use super::view::{self, View};
use crate::metrics::Metrics;

/// Portions of leases that may wait: a few, so that the store is read ahead while the kernel is written, and no more, so
/// that fifty thousand leases are never all in memory.
const PORTIONS_AHEAD: usize = 4;

/// With so many keys still to be looked at, further leases wait: enough for many batches, and little memory.
const PENDING: usize = 4_096;

/// Between two looks at the whole kernel, when nothing called for one. Events tell of every change; a look catches what
/// they did not.
const AUDIT: Duration = Duration::from_secs(60);

/// An audit is made less often when it costs more than this part of the time: a ten thousandth of a CPU.
const AUDIT_BUDGET: u32 = 10_000;

/// What an audit costs for each peer at the least, as measured with 20 000 (docs/performance.md): the first dump, of an
/// empty kernel, says nothing of it.
const AUDIT_A_PEER: Duration = Duration::from_micros(4);

/// How long the thread may take for an answer: its longest batch, a dump of 50 000 peers, and room.
const ANSWER: Duration = Duration::from_secs(4);

/// The kernel does not answer, or refuses everything: how long until it is tried again.
const KERNEL_PAUSE: Duration = Duration::from_secs(1);

/// Peers in one portion of [`Dataplane::peers`]: some 50 kB.
const PORTION: usize = 1_024;

/// What a data plane is to do.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// What of the kernel is its own.
    pub(crate) scope: Scope,
    /// The device that it keeps.
    pub(crate) spec: VtepSpec,
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

/// A handle on the running thread.
#[derive(Debug)]
pub(crate) struct Dataplane {
    stop: CancellationToken,
    asks: mpsc::Sender<Ask>,
    /// Where the store's events go.
    pub(crate) leases: mpsc::Sender<Vec<Event>>,
    /// How it stands; closed when the thread has ended.
    pub(crate) standing: watch::Receiver<Option<Standing>>,
    /// Changes when the store has said something new of the peers, all of whom it has named before.
    pub(crate) news: watch::Receiver<u64>,
    /// Notified when the underlay's interface changed.
    pub(crate) underlay: Arc<tokio::sync::Notify>,
}

impl Dataplane {
    /// Starts the thread for one VTEP.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(job: Job, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let (asks, asked) = mpsc::channel(4);
        let (leases, events) = mpsc::channel(PORTIONS_AHEAD);
        let (say, standing) = watch::channel(None);
        let (tell, news) = watch::channel(0);
        let underlay = Arc::new(tokio::sync::Notify::new());
        let stop = CancellationToken::new();
        let task = Task {
            stop: stop.clone(),
            asked,
            events,
            say,
            tell,
            heard: 0,
            underlay: Arc::clone(&underlay),
            metrics,
            ops: Tally::default(),
            notices: Notices::new(Instant::now()),
            counted: Totals::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("data-plane".to_owned()).spawn(move || runtime.block_on(task.run(job)))?;
        Ok(Self { stop, asks, leases, standing, news, underlay })
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
    pub(crate) async fn stop(self: Arc<Self>) {
        let mut standing = self.standing.clone();
        // Whoever else holds a handle is about to let it go.
        self.stop.cancel();
        let ended = async { while standing.changed().await.is_ok() {} };
        if tokio::time::timeout(ANSWER, ended).await.is_err() {
            tracing::error!(waited = ?ANSWER, "data plane does not end: it hangs in the kernel");
        }
    }
}

struct Task {
    stop: CancellationToken,
    asked: mpsc::Receiver<Ask>,
    events: mpsc::Receiver<Vec<Event>>,
    say: watch::Sender<Option<Standing>>,
    tell: watch::Sender<u64>,
    /// Portions of leases that have come in.
    heard: u64,
    underlay: Arc<tokio::sync::Notify>,
    metrics: Arc<Metrics>,
    ops: Tally,
    notices: Notices,
    /// What the metrics' counters have been told of.
    counted: Totals,
}

/// What has been done since the last summary line.
#[derive(Debug, Default)]
struct Tally {
    ops: usize,
    since: Option<Instant>,
}

impl Task {
    async fn run(mut self, job: Job) {
        let mut said = None;
        while !self.stop.is_cancelled() {
            let opened = async {
                let Job { scope, spec, local, guard, .. } = job.clone();
                Reconciler::new(Netlink::open(scope)?, spec, local, guard, Instant::now()).await
            };
            match opened.await {
                Ok(mut reconciler) => {
                    reconciler.inherit(job.known);
                    return self.work(reconciler, job.peers_only).await;
                }
                Err(error) => {
                    self.trouble(&error, &mut said);
                    tokio::time::sleep(KERNEL_PAUSE).await;
                    while let Ok(ask) = self.asked.try_recv() {
                        answer::<Netlink>(ask, None).await;
                    }
                }
            }
        }
    }

    async fn work<K: Kernel>(mut self, mut reconciler: Reconciler<K>, peers_only: bool) {
        let mut said = None;
        let (mut audited, seed) = (Instant::now(), Rng::from_entropy().bits());
        let mut filter = PeerFilter::new(peers_only, &reconciler).await;
        while !self.stop.is_cancelled() {
            // First, so that a peer's first answer finds the way open.
            filter.step(&mut reconciler, &self.metrics).await;
            match reconciler.step(Instant::now()).await {
                Ok(step) => {
                    // What part of the work succeeds says nothing of the rest.
                    if reconciler.state() == State::InStep {
                        said = None;
                    }
                    self.account(&step, &mut reconciler, &filter);
                    if step.more {
                        // Take in what is there already, so that nothing waits for the whole of the work.
                        while reconciler.pending() < PENDING
                            && let Ok(events) = self.events.try_recv()
                        {
                            self.take_in(&events, &mut reconciler);
                        }
                        continue;
                    }
                }
                Err(error) => {
                    self.trouble(&error, &mut said);
                    tokio::time::sleep(KERNEL_PAUSE).await;
                    reconciler.audit();
                    // Trouble is when people ask, and what is due already would go first half of the time.
                    while let Ok(ask) = self.asked.try_recv() {
                        answer(ask, Some((&reconciler, &mut filter))).await;
                    }
                }
            }
            let audit = audited + audit_pause(&reconciler, seed);
            let due = [reconciler.next_due(), filter.next_due()].into_iter().flatten().fold(audit, Instant::min);
            tokio::select! {
                events = self.events.recv() => match events {
                    Some(events) => self.take_in(&events, &mut reconciler),
                    None => return,
                },
                () = self.stop.cancelled() => return,
                heard = reconciler.listen() => if let Err(error) = heard {
                    self.trouble(&error, &mut said);
                    tokio::time::sleep(KERNEL_PAUSE).await;
                    reconciler.audit();
                },
                () = filter.listen() => {}
                Some(ask) = self.asked.recv() => answer(ask, Some((&reconciler, &mut filter))).await,
                () = tokio::time::sleep_until(due.into()) => {
                    if audit <= Instant::now() {
                        reconciler.audit();
                        filter.audit();
                        audited = Instant::now();
                    }
                }
            }
        }
    }

    fn take_in<K: Kernel>(&mut self, events: &[Event], reconciler: &mut Reconciler<K>) {
        reconciler.leases(events, Instant::now());
        self.heard += 1;
    }

    /// Tells the others what a step has come to.
    fn account<K: Kernel>(&mut self, step: &Step, reconciler: &mut Reconciler<K>, filter: &PeerFilter) {
        self.notices.log(reconciler.take_notices(), Instant::now());
        if reconciler.take_underlay_changed() {
            self.underlay.notify_one();
        }
        if step.ops > 0 {
            self.metrics.sent_batches(1);
            self.metrics.planned(step.planned);
            self.metrics.applied(step.applied);
        }
        if step.ops > step.refused {
            self.ops.ops += step.ops - step.refused;
            self.ops.since.get_or_insert_with(|| Instant::now() - step.planned - step.applied);
        }
        if step.more {
            return;
        }
        if let Some(since) = self.ops.since.take() {
            let took = since.elapsed();
            tracing::info!(operations = self.ops.ops, ?took, state = %reconciler.state(), "kernel written");
            self.ops.ops = 0;
        }
        self.count(reconciler);
        let complete = reconciler.peers().is_complete();
        put(&self.say, Some(Standing { state: filter.judge(reconciler.state()), peers: reconciler.desired().len(), complete }));
        if complete {
            put(&self.tell, self.heard);
        }
    }

    fn count<K: Kernel>(&mut self, reconciler: &Reconciler<K>) {
        let (desired, observed) = (view::desired(reconciler), view::observed(reconciler.observed()));
        for (kind, desired, observed) in [
            ("neighbour", desired.neighbours, observed.neighbours),
            ("fdb", desired.fdb, observed.fdb),
            ("route", desired.routes, observed.routes),
        ] {
            self.metrics.set_desired(kind, desired);
            self.metrics.set_observed(kind, observed);
        }
        self.metrics.set_peers(reconciler.desired().len());
        self.metrics.set_rejected(reconciler.peers().rejected().len());
        self.metrics.set_held(reconciler.peers().held().count());
        self.metrics.set_stray(reconciler.peers().strays());
        for (kind, now @ Counts { heals, applied, refused }) in reconciler.totals() {
            let before = self.counted.insert(kind, *now).unwrap_or_default();
            if *kind == overlay::kind_of(overlay::Key::Forwarding) && *applied > before.applied {
                tracing::info!("forwarding switched on: containers' packets pass through this host");
            }
            self.metrics.healed(kind, heals.saturating_sub(before.heals));
            self.metrics.failed(kind, refused.saturating_sub(before.refused));
        }
    }

    /// One line for each new trouble with the kernel, not for each attempt.
    fn trouble(&self, error: &KernelError, said: &mut Option<String>) {
        let text = error.to_string();
        if said.as_ref() != Some(&text) {
            tracing::error!(error = %text, retry_in = ?KERNEL_PAUSE, "kernel cannot be programmed");
            self.say.send_modify(|standing| {
                let (peers, complete) = standing.take().map_or((0, false), |standing| (standing.peers, standing.complete));
                *standing = Some(Standing { state: State::Troubled(1, text.clone()), peers, complete });
            });
            *said = Some(text);
        }
    }
}

/// Says it, if it is news.
fn put<T: PartialEq>(say: &watch::Sender<T>, now: T) {
    say.send_if_modified(|before| {
        let changed = *before != now;
        *before = now;
        changed
    });
}

/// Answers an asker, who may have gone away meanwhile. There is no view while the kernel cannot be read at all.
async fn answer<K: Kernel>(ask: Ask, from: Option<(&Reconciler<K>, &mut PeerFilter)>) {
    match (ask, from) {
        (Ask::Ping(asker), _) => drop(asker.send(())),
        (Ask::View(asker), Some((reconciler, filter))) => {
            let filter = filter.view().await;
            drop(asker.send(Box::new(View { filter, ..view::of(reconciler) })));
        }
        (Ask::Peers(after, asker), Some((reconciler, _))) => {
            drop(asker.send(reconciler.desired().peers_after(after).take(PORTION).collect()));
        }
        (Ask::View(_) | Ask::Peers(..), None) => {}
    }
}

/// Until the next audit: a minute or so, more where one is dear. The odd part keeps hosts from doing it all at once.
fn audit_pause<K: Kernel>(reconciler: &Reconciler<K>, seed: u64) -> Duration {
    let (dumps, _, cost) = reconciler.dumps();
    let peers = u32::try_from(reconciler.desired().len()).unwrap_or(u32::MAX);
    let odd = Duration::from_millis((seed ^ (dumps * 104_729)) % 10_000);
    AUDIT.max(cost.max(AUDIT_A_PEER.saturating_mul(peers)).saturating_mul(AUDIT_BUDGET)) + odd
}
