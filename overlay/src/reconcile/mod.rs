//! The reconciler: the one owner of what is desired and what is observed, and of the kernel between them.
//!
//! Whatever happens (a lease event, a kernel event, a retry due, an audit) only says "look at these keys again". A
//! [`step`](Reconciler::step) then plans a batch of them, applies it, and takes in what the kernel says happened. An
//! acknowledgement is no proof: a key is right when the kernel's own events say so.
//!
//! It never deletes an entry before the peers are complete, and never touches anything but the VTEP with what hangs on it, and routes and
//! rules for parts of the network that carry our protocol number, or that flanneld left for a direct peer.

mod batch;
mod news;
mod standing;
mod ways;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use lease::Subnet;

use crate::desired::Desired;
use crate::desired::Peer;
use crate::entry::{Aspect, Key, Matter};
use crate::ground::Ground;
use crate::kernel::{Kernel, KernelError};
use crate::observed::Observed;
use crate::peers::{Guard, Local, Notice, Peers};
use crate::plan::{self, Blocked};
use crate::retry::Retries;
pub use batch::BATCH;
pub use standing::{Counts, Heal, State, Totals, kind_of};
use ways::Ways;

/// No two dumps are closer together, so that somebody who makes the kernel lose events cannot keep us dumping.
const DUMP_PAUSE: Duration = Duration::from_millis(200);

/// Why a key is looked at. The least reason first: it is what a repair is *not* counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// What is desired has changed, or it is tried again.
    Wish,
    /// The kernel has changed.
    Kernel,
}

/// What one step did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Step {
    /// Operations sent.
    pub ops: usize,
    /// How many of them the kernel refused.
    pub refused: usize,
    /// Time spent planning.
    pub planned: Duration,
    /// Time spent in the kernel, events included.
    pub applied: Duration,
    /// Whether there is more to do at once.
    pub more: bool,
}

/// Owns the data plane of one address family: its VTEP and all that hangs on it, its routes and rules.
#[derive(Debug)]
pub struct Reconciler<K> {
    kernel: K,
    desired: Desired,
    peers: Peers,
    observed: Observed,
    dirty: BTreeMap<Key, Cause>,
    /// Entries that should not be there. Deleted when nothing is left to put and the peers are complete.
    doomed: BTreeMap<Key, Cause>,
    blocked: BTreeMap<Key, Blocked>,
    retries: Retries,
    dump_wanted: bool,
    last_dump: Instant,
    totals: Totals,
    heals: VecDeque<Heal>,
    dumps: u64,
    dump_cost: Duration,
    lost: u64,
    underlay_changed: bool,
    /// Peers that came, went or changed; none as long as nobody asks.
    changed_peers: Option<BTreeSet<Subnet>>,
    ways: Ways,
    /// The device carries entries again that it had lost: they have to be looked at, all at once.
    settled: bool,
}

impl<K: Kernel> Reconciler<K> {
    /// Looks at the kernel for the first time. What it carries already stays as it is until the leases are known.
    ///
    /// # Errors
    /// [`KernelError`] when it cannot be read.
    pub async fn new(mut kernel: K, ground: Ground, local: Local, guard: Guard, now: Instant) -> Result<Self, KernelError> {
        let started = Instant::now();
        let observed = kernel.dump().await?;
        let mut desired = Desired::new(ground);
        let mut peers = Peers::new(local, guard);
        // They are there already: whatever differs is found by the comparison.
        peers.inherit(observed.peers(), &mut desired, &mut |_| ());
        let mut reconciler = Self {
            kernel,
            desired,
            peers,
            observed,
            dirty: BTreeMap::new(),
            doomed: BTreeMap::new(),
            blocked: BTreeMap::new(),
            retries: Retries::default(),
            dump_wanted: false,
            last_dump: now,
            totals: Totals::new(),
            heals: VecDeque::new(),
            dumps: 1,
            dump_cost: started.elapsed(),
            lost: 0,
            underlay_changed: false,
            changed_peers: None,
            ways: Ways::default(),
            settled: false,
        };
        reconciler.claim_name();
        reconciler.ask_about_all();
        reconciler.ask_ways(now).await?;
        reconciler.compare(Cause::Wish);
        Ok(reconciler)
    }

    /// Takes in the peers that an earlier run knew, until the store has spoken.
    pub fn inherit(&mut self, known: impl IntoIterator<Item = Peer>) {
        let mut touched = Vec::new();
        self.peers.inherit(known, &mut self.desired, &mut |key| touched.push(key));
        self.wish(touched);
    }

    /// Takes in what the store's watch says.
    pub fn leases(&mut self, events: &[lease::Event], now: Instant) {
        let mut touched = Vec::new();
        for event in events {
            self.peers.fold(event, &mut self.desired, now, &mut |key| touched.push(key));
        }
        self.wish(touched);
    }

    /// What is desired of these keys has changed.
    fn wish(&mut self, keys: Vec<Key>) {
        for key in &keys {
            if let (Key::Route(route), Some(changed)) = (key, &mut self.changed_peers) {
                changed.insert(route.prefix);
            }
            look(&mut self.dirty, *key, Cause::Wish);
        }
        self.ask_about(keys);
    }

    /// Waits until the kernel has something to say, and takes it in. Cancel safe.
    ///
    /// # Errors
    /// [`KernelError`] when it cannot be heard any more.
    pub async fn listen(&mut self) -> Result<(), KernelError> {
        let mut events = Vec::new();
        self.kernel.wait_events(&mut events).await?;
        self.take_in(&events);
        Ok(())
    }

    /// Asks for a dump at the next step.
    pub fn audit(&mut self) {
        self.dump_wanted = true;
    }

    /// When [`step`](Self::step) has to be called again though nothing happens.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let dump = self.dump_wanted.then(|| self.last_dump + DUMP_PAUSE);
        [self.retries.next_due(), self.peers.next_due(), self.ways.next_due(), dump].into_iter().flatten().min()
    }

    /// Does one batch of what there is to do.
    ///
    /// # Errors
    /// [`KernelError`] when the kernel cannot be spoken to. What was to be done is still to be done then.
    pub async fn step(&mut self, now: Instant) -> Result<Step, KernelError> {
        self.what_is_due(now).await?;
        let started = Instant::now();
        let batch = self.next_batch(now);
        let planned = started.elapsed();
        let mut step = Step { ops: batch.ops.len(), refused: 0, planned, applied: Duration::ZERO, more: false };
        if !batch.ops.is_empty() {
            for op in &batch.ops {
                tracing::debug!(command = %op.on(self.device_name()), "apply");
            }
            // Until it is known what became of them, only a dump tells.
            let dump_wanted = std::mem::replace(&mut self.dump_wanted, true);
            let failures = self.kernel.apply(&batch.ops).await?;
            step.refused = failures.len();
            let mut events = Vec::new();
            self.kernel.take_events(&mut events)?;
            self.dump_wanted = dump_wanted;
            self.take_in(&events);
            self.settle(&batch, failures, now);
            step.applied = started.elapsed().saturating_sub(planned);
        }
        step.more = !self.dirty.is_empty()
            || self.settled
            || self.ways.have_changed()
            || (self.peers.is_complete() && !self.doomed.is_empty())
            || self.dump_is_due(now);
        Ok(step)
    }

    async fn what_is_due(&mut self, now: Instant) -> Result<(), KernelError> {
        let mut touched = Vec::new();
        self.peers.tick(&mut self.desired, now, &mut |key| touched.push(key));
        self.wish(touched);
        let Self { dirty, retries, .. } = self;
        let mut settled = std::mem::take(&mut self.settled);
        while let Some(Matter(key, aspect)) = retries.pop_due(now) {
            if aspect == Aspect::Entries {
                settled = true;
            } else {
                look(dirty, key, if retries.is_refused(key) { Cause::Wish } else { Cause::Kernel });
            }
        }
        if settled {
            self.put_back_entries(now);
        }
        if self.dump_is_due(now) {
            let started = Instant::now();
            // Two pictures of the kernel at once would double the memory. Until the new one is there, nothing is planned.
            self.observed = Observed::default();
            self.observed = self.kernel.dump().await?;
            self.dump_wanted = false;
            self.last_dump = now;
            self.claim_name();
            self.dumps += 1;
            self.retries.forget_the_quiet(now);
            self.compare(Cause::Kernel);
            self.dump_cost = started.elapsed();
            // What was not told may have been of the ways, too.
            self.ways_changed();
        }
        self.ask_ways(now).await
    }

    fn dump_is_due(&self, now: Instant) -> bool {
        self.dump_wanted && self.last_dump + DUMP_PAUSE <= now
    }

    /// Looks at every key at which the kernel differs.
    fn compare(&mut self, cause: Cause) {
        for key in plan::differences(&self.desired, &self.observed) {
            look(&mut self.dirty, key, cause);
        }
    }

    /// What a person may want to know, since this was last asked.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        self.peers.take_notices()
    }

    /// The subnets of the peers that came, went or changed since this was last asked; of none the first time.
    pub fn take_changed_peers(&mut self) -> BTreeSet<Subnet> {
        std::mem::take(self.changed_peers.get_or_insert_default())
    }

    /// Whether the underlay has changed since this was last asked.
    pub fn take_underlay_changed(&mut self) -> bool {
        std::mem::take(&mut self.underlay_changed)
    }
}

fn look(dirty: &mut BTreeMap<Key, Cause>, key: Key, cause: Cause) {
    dirty.entry(key).and_modify(|before| *before = cause.min(*before)).or_insert(cause);
}
