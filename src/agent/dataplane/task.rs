//! What runs on the data plane's thread: the loop between leases, kernel events, questions and the audit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lease::{Event, Family, Rng};
use overlay::{Counts, Kernel, KernelError, Netlink, Reconciler, State, Step, Totals};

use super::{Ask, Job, Line, Standing, tell_news};
use crate::agent::notices::Notices;
use crate::agent::peer_filter::PeerFilter;
use crate::agent::view::{self, View};
use crate::metrics::{Metrics, PlaneGauges};

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

/// The kernel does not answer, or refuses everything: how long until it is tried again.
const KERNEL_PAUSE: Duration = Duration::from_secs(1);

/// Peers in one portion of [`super::Dataplane::peers`]: some 50 kB.
const PORTION: usize = 1_024;

/// What runs on the thread.
pub(super) struct Task {
    line: Line,
    /// Portions of leases that have come in.
    heard: u64,
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
    pub(super) fn new(line: Line, metrics: Arc<Metrics>) -> Self {
        let (ops, notices, counted) = (Tally::default(), Notices::new(Instant::now()), Totals::new());
        Self { line, heard: 0, metrics, ops, notices, counted }
    }

    /// Runs until it is told to stop, or its handle is dropped.
    pub(super) async fn run(mut self, job: Job) {
        let mut said = None;
        while !self.line.stop.is_cancelled() {
            let opened = async {
                let Job { scope, ground, local, guard, .. } = job.clone();
                Reconciler::new(Netlink::open(scope)?, ground, local, guard, Instant::now()).await
            };
            match opened.await {
                Ok(mut reconciler) => {
                    reconciler.inherit(job.known);
                    return self.work(reconciler, job.peers_only).await;
                }
                Err(error) => {
                    self.trouble(&error, &mut said);
                    tokio::time::sleep(KERNEL_PAUSE).await;
                    while let Ok(ask) = self.line.asked.try_recv() {
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
        while !self.line.stop.is_cancelled() {
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
                            && let Ok(events) = self.line.events.try_recv()
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
                    while let Ok(ask) = self.line.asked.try_recv() {
                        answer(ask, Some((&reconciler, &mut filter))).await;
                    }
                }
            }
            let audit = audited + audit_pause(&reconciler, filter.look_cost(), seed);
            let due = [reconciler.next_due(), filter.next_due()].into_iter().flatten().fold(audit, Instant::min);
            tokio::select! {
                events = self.line.events.recv() => match events {
                    Some(events) => self.take_in(&events, &mut reconciler),
                    None => return,
                },
                () = self.line.stop.cancelled() => return,
                heard = reconciler.listen() => if let Err(error) = heard {
                    self.trouble(&error, &mut said);
                    tokio::time::sleep(KERNEL_PAUSE).await;
                    reconciler.audit();
                },
                () = filter.listen() => {}
                Some(ask) = self.line.asked.recv() => answer(ask, Some((&reconciler, &mut filter))).await,
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
            self.line.underlay.notify_one();
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
        let complaints = reconciler.peers().rejected().len() + reconciler.retries().outdone();
        tell_news(
            &self.line.say,
            Some(Standing { state: filter.judge(reconciler.state()), peers: reconciler.desired().len(), complete, complaints }),
        );
        if complete {
            tell_news(&self.line.tell, self.heard);
        }
    }

    fn count<K: Kernel>(&mut self, reconciler: &Reconciler<K>) {
        let (peers, desired) = (reconciler.peers(), reconciler.desired());
        let now = PlaneGauges {
            peers: desired.len(),
            rejected: peers.rejected().len(),
            stray: peers.strays(),
            held: peers.held().count(),
            desired: view::desired(reconciler),
            observed: view::observed(reconciler.observed()),
        };
        self.metrics.set_plane(Family::of(peers.local().network.address()), now);
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
            self.line.say.send_modify(|standing| {
                let before = standing.take().unwrap_or(Standing { state: State::Waiting, peers: 0, complete: false, complaints: 0 });
                *standing = Some(Standing { state: State::Troubled(1, text.clone()), ..before });
            });
            *said = Some(text);
        }
    }
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
fn audit_pause<K: Kernel>(reconciler: &Reconciler<K>, filter: Duration, seed: u64) -> Duration {
    let (dumps, _, cost) = reconciler.dumps();
    let peers = u32::try_from(reconciler.desired().len()).unwrap_or(u32::MAX);
    let odd = Duration::from_millis((seed ^ (dumps * 104_729)) % 10_000);
    AUDIT.max((cost.max(AUDIT_A_PEER.saturating_mul(peers)) + filter).saturating_mul(AUDIT_BUDGET)) + odd
}
