//! The reconciler: the one owner of what is desired and what is observed, and of the kernel between them.
//!
//! Whatever happens (a lease event, a kernel event, a retry due, an audit) only says "look at these keys again". A
//! [`step`](Reconciler::step) then plans a batch of them, applies it, and takes in what the kernel says happened. An
//! acknowledgement is no proof: a key is right when the kernel's own events say so.
//!
//! It never deletes an entry before the peers are complete, and never touches anything but the VTEP and what hangs on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use crate::desired::{Desired, Peer};
use crate::device::VtepSpec;
use crate::entry::Key;
use crate::kernel::{Event, Failure, Kernel, KernelError};
use crate::observed::Observed;
use crate::op::Op;
use crate::peers::{Local, Notice, Peers};
use crate::plan::{self, Blocked, Plan};
use crate::retry::Retries;

/// Operations a batch. Their notifications have to fit the receive buffer that everybody gets (256 of them in 212 992
/// bytes), with room for a second one each: a replaced route is told twice.
pub const BATCH: usize = 100;

/// So many of the last repairs are remembered for a person to see.
const HEALS_KEPT: usize = 64;

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

/// One repair of what somebody else undid.
#[derive(Debug, Clone)]
pub struct Heal {
    /// When.
    pub at: SystemTime,
    /// By which operation.
    pub op: Op,
}

/// What a kind of key has been repaired, put and deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Repairs of what somebody else undid.
    pub heals: u64,
    /// Operations that succeeded.
    pub applied: u64,
    /// Operations that the kernel refused.
    pub refused: u64,
}

/// Counters, since the start, by [`kind_of`] a key.
pub type Totals = BTreeMap<&'static str, Counts>;

/// What one step did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Step {
    /// Operations sent.
    pub ops: usize,
    /// Time spent planning.
    pub planned: Duration,
    /// Time spent in the kernel, events included.
    pub applied: Duration,
    /// Whether there is more to do at once.
    pub more: bool,
}

/// How things stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The kernel holds what it should.
    InStep,
    /// It does not yet: so many keys are being worked on.
    Converging(usize),
    /// No snapshot of the leases is complete yet; what is known is in the kernel.
    Waiting,
    /// So many keys cannot be made right, for this reason (the first one's).
    Troubled(usize, String),
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InStep => out.write_str("in step"),
            Self::Converging(keys) => write!(out, "{keys} entries still to be put right"),
            Self::Waiting => out.write_str("the leases are not all known yet"),
            Self::Troubled(keys, reason) => write!(out, "{keys} entries cannot be put right: {reason}"),
        }
    }
}

/// Owns one VTEP and all that hangs on it.
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
}

impl<K: Kernel> Reconciler<K> {
    /// Looks at the kernel for the first time. What it carries already stays as it is until the leases are known.
    ///
    /// # Errors
    /// [`KernelError`] when it cannot be read.
    pub async fn new(mut kernel: K, spec: VtepSpec, local: Local, now: Instant) -> Result<Self, KernelError> {
        let started = Instant::now();
        let observed = kernel.dump().await?;
        let mut desired = Desired::default();
        desired.set_vtep(spec);
        let mut peers = Peers::new(local);
        peers.inherit(triples(&observed), &mut desired);
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
        };
        reconciler.compare(Cause::Wish);
        Ok(reconciler)
    }

    /// Takes in what the store's watch says.
    pub fn leases(&mut self, events: &[lease::Event], now: Instant) {
        let Self { peers, desired, dirty, .. } = self;
        for event in events {
            peers.fold(event, desired, now, &mut |key| look(dirty, key, Cause::Wish));
        }
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
        [self.retries.next_due(), self.peers.held_until(), dump].into_iter().flatten().min()
    }

    /// Does one batch of what there is to do.
    ///
    /// # Errors
    /// [`KernelError`] when the kernel cannot be spoken to. What was to be done is still to be done then.
    pub async fn step(&mut self, now: Instant) -> Result<Step, KernelError> {
        self.what_is_due(now).await?;
        let started = Instant::now();
        let ops = self.next_batch(now);
        let planned = started.elapsed();
        let mut step = Step { ops: ops.len(), planned, applied: Duration::ZERO, more: false };
        if !ops.is_empty() {
            for op in &ops {
                tracing::debug!(command = %op.on(self.device_name()), "apply");
            }
            // Until it is known what became of them, only a dump tells.
            let dump_wanted = std::mem::replace(&mut self.dump_wanted, true);
            let failures = self.kernel.apply(&ops).await?;
            let mut events = Vec::new();
            self.kernel.take_events(&mut events)?;
            self.dump_wanted = dump_wanted;
            self.take_in(&events);
            self.settle(&ops, failures, now);
            step.applied = started.elapsed().saturating_sub(planned);
        }
        step.more = !self.dirty.is_empty() || (self.peers.is_complete() && !self.doomed.is_empty()) || self.dump_is_due(now);
        Ok(step)
    }

    async fn what_is_due(&mut self, now: Instant) -> Result<(), KernelError> {
        let Self { peers, desired, dirty, retries, .. } = self;
        peers.tick(desired, now, &mut |key| look(dirty, key, Cause::Wish));
        while let Some(key) = retries.pop_due(now) {
            look(dirty, key, if retries.is_refused(key) { Cause::Wish } else { Cause::Kernel });
        }
        if self.dump_is_due(now) {
            let started = Instant::now();
            self.last_dump = now;
            self.observed = self.kernel.dump().await?;
            self.dump_wanted = false;
            self.dump_cost = started.elapsed();
            self.dumps += 1;
            self.retries.forget_the_quiet(now);
            self.compare(Cause::Kernel);
        }
        Ok(())
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

    fn take_in(&mut self, events: &[Event]) {
        for event in events {
            let index_before = self.observed.device.as_ref().map(|device| device.index);
            if let Some(key) = self.observed.fold(event) {
                look(&mut self.dirty, key, Cause::Kernel);
            }
            match event {
                Event::Lost => {
                    self.lost += 1;
                    self.dump_wanted = true;
                }
                Event::Underlay => self.underlay_changed = true,
                // What hung on it went with it, and the kernel may have told of that first. The repair is the device's alone.
                Event::DeviceGone => {
                    self.retries.forgive();
                    self.compare(Cause::Wish);
                    self.dirty.insert(Key::Device, Cause::Kernel);
                }
                Event::Device(device) if Some(device.index) != index_before => {
                    self.retries.forgive();
                    self.compare(Cause::Wish);
                }
                _ => {}
            }
        }
    }

    /// The next batch's operations.
    fn next_batch(&mut self, now: Instant) -> Vec<Op> {
        let mut ops: Vec<Op> = Vec::new();
        while ops.len() < BATCH {
            // The device comes first and alone: what can hang on it is known when it stands.
            if ops.iter().any(|op| op.key() <= Key::Device) {
                return ops;
            }
            let Some((key, cause)) = self.dirty.pop_first() else { break };
            let Plan { puts, dels, blocked } = self.plan_one(key);
            self.blocked.remove(&key);
            self.doomed.remove(&key);
            if let Some((key, blocked)) = blocked.into_iter().next() {
                self.blocked.insert(key, blocked);
            } else if !dels.is_empty() {
                self.doomed.insert(key, cause);
            } else if puts.is_empty() {
                self.retries.right(key);
            } else if self.may_go(key, cause, &puts, now) {
                ops.extend(puts);
            }
        }
        if ops.is_empty() && self.peers.is_complete() {
            while ops.len() < BATCH {
                let Some((key, cause)) = self.doomed.pop_last() else { break };
                let Plan { dels, .. } = self.plan_one(key);
                if !dels.is_empty() && self.may_go(key, cause, &dels, now) {
                    ops.extend(dels);
                }
            }
        }
        ops
    }

    fn plan_one(&self, key: Key) -> Plan {
        plan::plan(&self.desired, &self.observed, &BTreeSet::from([key]))
    }

    /// Whether a key may be acted on now. Counts a repair of what somebody else did.
    fn may_go(&mut self, key: Key, cause: Cause, ops: &[Op], now: Instant) -> bool {
        if self.retries.must_wait(key, now) {
            return false;
        }
        if cause == Cause::Wish {
            return true;
        }
        if !self.retries.may_repair(key, now) {
            return false;
        }
        for op in ops {
            if self.heals.len() == HEALS_KEPT {
                self.heals.pop_front();
            }
            self.heals.push_back(Heal { at: SystemTime::now(), op: op.clone() });
        }
        self.totals.entry(kind_of(key)).or_default().heals += 1;
        true
    }

    /// After a batch: what failed is tried again later; what was acknowledged has to show in the kernel's own events.
    fn settle(&mut self, ops: &[Op], failures: Vec<Failure>, now: Instant) {
        let mut failed: BTreeMap<Key, String> = BTreeMap::new();
        for Failure { index, errno: _, reason } in failures {
            if let Some(op) = ops.get(index) {
                failed.entry(op.key()).or_insert_with(|| format!("{}: {reason}", op.on(self.device_name())));
            }
        }
        for op in ops {
            let key = op.key();
            let counts = self.totals.entry(kind_of(key)).or_default();
            if let Some(reason) = failed.get(&key) {
                counts.refused += 1;
                self.retries.refused_by_kernel(key, reason.clone(), now);
                // Perhaps the kernel is not as we see it.
                self.dump_wanted = true;
                continue;
            }
            counts.applied += 1;
            if self.plan_one(key).is_empty() {
                self.dirty.remove(&key);
                self.retries.right(key);
            } else {
                self.dump_wanted = true;
            }
        }
    }

    /// How many keys are still to be looked at.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.dirty.len()
    }

    /// The VTEP's name.
    #[must_use]
    pub fn device_name(&self) -> &str {
        self.desired.vtep().map_or("", |spec| spec.name.as_str())
    }

    /// How things stand.
    #[must_use]
    pub fn state(&self) -> State {
        let trouble = self.retries.refused() + self.retries.outdone() + self.blocked.len();
        let work = self.dirty.len() + self.doomed.len();
        if trouble > 0 {
            let blocked = self.blocked.values().next().map(ToString::to_string);
            let trouble_reason = || self.retries.troubles().next().map(|(key, trouble)| format!("{key}: {trouble}"));
            State::Troubled(trouble, blocked.or_else(trouble_reason).unwrap_or_default())
        } else if !self.peers.is_complete() {
            State::Waiting
        } else if work > 0 || self.dump_wanted {
            State::Converging(work)
        } else {
            State::InStep
        }
    }

    /// What is desired.
    #[must_use]
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What the kernel holds.
    #[must_use]
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// The lease set.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The keys in trouble.
    #[must_use]
    pub fn retries(&self) -> &Retries {
        &self.retries
    }

    /// What stands in the way, by key.
    #[must_use]
    pub fn blocked(&self) -> &BTreeMap<Key, Blocked> {
        &self.blocked
    }

    /// Counters since the start.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The last repairs, oldest first.
    pub fn heals(&self) -> impl Iterator<Item = &Heal> {
        self.heals.iter()
    }

    /// How many dumps were made, how often the kernel lost events, and what the last dump cost.
    #[must_use]
    pub fn dumps(&self) -> (u64, u64, Duration) {
        (self.dumps, self.lost, self.dump_cost)
    }

    /// What a person may want to know, since this was last asked.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        self.peers.take_notices()
    }

    /// Whether the underlay has changed since this was last asked.
    pub fn take_underlay_changed(&mut self) -> bool {
        std::mem::take(&mut self.underlay_changed)
    }
}

fn look(dirty: &mut BTreeMap<Key, Cause>, key: Key, cause: Cause) {
    dirty.entry(key).and_modify(|before| *before = cause.min(*before)).or_insert(cause);
}

/// The peers that the kernel carries already: a route with its neighbour and that one's FDB entry.
pub fn triples(observed: &Observed) -> impl Iterator<Item = Peer> + '_ {
    observed.routes.iter().filter_map(|(key, to)| {
        let gateway = to.gateway.filter(|gateway| to.plain && *gateway == key.prefix.address())?;
        let mac = *observed.neighbours.get(&gateway)?;
        let to = observed.fdb.get(&mac).filter(|to| to.plain)?;
        Some(Peer { subnet: key.prefix, mac, dst: to.dst })
    })
}

/// The name under which a key is counted.
#[must_use]
pub fn kind_of(key: Key) -> &'static str {
    match key {
        Key::Forwarding => "forwarding",
        Key::Device => "device",
        Key::Fdb(_) => "fdb",
        Key::Neighbour(_) => "neighbour",
        Key::Route(_) => "route",
    }
}
