//! Keeps this host's lease: claims it, renews it in time, and takes the same subnet again when it is lost.
//!
//! It writes nothing while nothing changes. It never gives up the subnet for another one, since the containers of this
//! host have their addresses from it, and never takes it from another host that holds it. It renews by monotonic time; a
//! jump of the wall clock, which is also what a suspended machine shows, only makes it renew at once.

use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::claim::{Claim, ClaimError, How, Outcome, Warning, claim, reclaim};
use crate::rng::{Backoff, Rng};
use crate::store::{RenewError, StoreError, WriteError};
use crate::{Entry, Event, Expiry, LeaseKey, LeaseRecord, LeaseStore};

/// Pauses between attempts to claim or renew. The store has deadlines and attempts of its own in each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// How often a subnet is tried for that another host holds: this only backs up the watch that tells when it becomes free.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a full pool is looked at again, by a list of all leases: seldom enough for the store, soon enough for a person
/// who has just made room.
const POOL_PATIENCE: Duration = Duration::from_secs(10);

/// How often the clocks are compared. A machine that slept is noticed this long after it woke.
const CLOCK_CHECK: Duration = Duration::from_secs(60);

/// A wall clock that is this far ahead of the monotonic one has jumped: more than time servers slew within a minute.
const CLOCK_JUMP: Duration = Duration::from_secs(5);

/// Room for what a watch says of one key between two looks at it.
const EVENTS: usize = 64;

/// How things stand with this host's lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseState {
    /// There is none yet, or it may have run out; it is being claimed.
    Claiming {
        /// Why it has not been had so far; empty before the first attempt.
        reason: String,
    },
    /// It is ours.
    Held(Held),
    /// Another host holds the subnet that was ours. It is taken again when it becomes free.
    Lost {
        /// Who holds it.
        reason: String,
    },
}

/// A lease that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// As it stands in the store.
    pub entry: Entry,
    /// How it was come by last.
    pub how: How,
    /// What a person should know about.
    pub warnings: Vec<Warning>,
    /// When it ends unless it is renewed before; none for a reservation.
    pub expires: Option<Instant>,
}

/// Keeps one lease. What it is told and what it tells goes through the two channels that [`Keeper::new`] returns with it.
pub struct Keeper<S> {
    store: S,
    claim: Claim,
    margin: Duration,
    rng: Rng,
    backoff: Backoff,
    /// The subnet that we have had: from then on it is this or none.
    key: Option<LeaseKey>,
    /// What we last said of ourselves there.
    last: Option<LeaseRecord>,
    state: watch::Sender<LeaseState>,
    events: mpsc::Receiver<Event>,
}

impl<S: LeaseStore> Keeper<S> {
    /// A keeper that renews at a third of the time to live, or this much before the end where that is earlier.
    ///
    /// Through the sender it wants to be told what the watch says of its key: `Apply`, and `Delete` also for a key that
    /// a snapshot no longer names. Other keys' events do no harm.
    pub fn new(store: S, claim: Claim, margin: Duration, mut rng: Rng) -> (Self, watch::Receiver<LeaseState>, mpsc::Sender<Event>) {
        let (state, states) = watch::channel(LeaseState::Claiming { reason: String::new() });
        let (sender, events) = mpsc::channel(EVENTS);
        let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, Rng::new(rng.bits()));
        (Self { store, claim, margin, rng, backoff, key: None, last: None, state, events }, states, sender)
    }

    /// Goes on with a lease that this process has held before: it is that one or none.
    #[must_use]
    pub fn resuming(mut self, entry: &Entry) -> Self {
        (self.key, self.last) = (Some(entry.key), entry.record.as_ref().ok().cloned());
        self
    }

    /// Keeps the lease until cancelled. The lease stays in the store: a restart finds it.
    pub async fn run(&mut self, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => (),
            () = self.keep() => (),
        }
    }

    /// Gives the lease back, and says whether there was one. A reservation stays: a person made it.
    ///
    /// # Errors
    /// [`StoreError`]: it then ends by itself when its time is over.
    pub async fn release(&mut self) -> Result<bool, StoreError> {
        let Some(key) = self.key else { return Ok(false) };
        let Some(entry) = self.store.get(key).await? else { return Ok(false) };
        let ours = entry.record.as_ref().is_ok_and(|record| record.owner == Some(self.claim.owner));
        if !ours || entry.expiry == Expiry::Never {
            return Ok(false);
        }
        match self.store.delete(&entry).await {
            Ok(()) => Ok(true),
            Err(WriteError::Conflict(_)) => Ok(false),
            Err(WriteError::Store(error)) => Err(error),
        }
    }

    async fn keep(&mut self) {
        loop {
            let held = self.come_by().await;
            info!(lease = %held.entry.key, how = ?held.how, "lease held");
            for warning in &held.warnings {
                warn!(%warning, "odd lease");
            }
            let lost = self.hold(held).await;
            warn!(reason = lost, "lease to be claimed again");
        }
    }

    /// Tries until there is a lease, and its time to live is known.
    async fn come_by(&mut self) -> Held {
        loop {
            match self.attempt().await {
                Ok(held) => {
                    self.backoff.reset();
                    return held;
                }
                Err(error @ ClaimError::HeldByOther(_)) => {
                    if self.tell(LeaseState::Lost { reason: error.to_string() }) {
                        error!(%error, "lease lost: it is not taken from the other host");
                    }
                    self.pause(PATIENCE).await;
                }
                Err(error) => {
                    let pause = if matches!(error, ClaimError::NoSubnet(_)) { POOL_PATIENCE } else { self.backoff.step() };
                    let news = self.tell(LeaseState::Claiming { reason: error.to_string() });
                    // Of a store that does not answer, the store says so itself.
                    if news && !matches!(error, ClaimError::Store(_)) {
                        error!(%error, "no lease to be had yet");
                    }
                    self.pause(pause).await;
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<Held, ClaimError> {
        let Outcome { entry, how, warnings } = match self.key {
            Some(key) => reclaim(&self.store, &self.claim, key, self.last.as_ref()).await?,
            None => claim(&self.store, &self.claim, &mut self.rng).await?,
        };
        (self.key, self.last) = (Some(entry.key), entry.record.as_ref().ok().cloned());
        let ttl = match (entry.expiry, how) {
            (Expiry::Never, _) => None,
            (Expiry::Lease(_), How::Remembered | How::Fresh) => Some(self.claim.ttl),
            // One that was found may be about to end.
            (Expiry::Lease(lease), How::Own | How::FromFlanneld | How::Reserved) => match self.store.keep_alive(lease).await {
                Ok(ttl) => Some(ttl),
                Err(RenewError::Lost) => return Err(StoreError::Unavailable("the lease ended as it was taken".to_owned()).into()),
                Err(RenewError::Store(error)) => return Err(error.into()),
            },
        };
        Ok(Held { entry, how, warnings, expires: ttl.map(|ttl| Instant::now() + ttl) })
    }

    /// Keeps what is held; returns why it has to be claimed again.
    async fn hold(&mut self, mut held: Held) -> &'static str {
        self.tell(LeaseState::Held(held.clone()));
        let mut due = held.expires.map(|expires| self.due(expires.saturating_duration_since(Instant::now())));
        let mut clocks = Clocks::now();
        loop {
            let check = Instant::now() + CLOCK_CHECK;
            let wake = due.map_or(check, |due| due.min(check));
            tokio::select! {
                event = next(&mut self.events) => match event {
                    Event::Apply(entry) | Event::InitApply(entry) if entry.key == held.entry.key && entry.modified != held.entry.modified => {
                        return "it was written by another";
                    }
                    Event::Delete(key) if key == held.entry.key => return "it was deleted",
                    _ => (),
                },
                () = sleep_until(wake) => {
                    let (Expiry::Lease(lease), Some(at)) = (held.entry.expiry, due) else { continue };
                    if clocks.jumped() || Instant::now() >= at {
                        match self.renew(lease, &mut held).await {
                            Ok(next) => due = Some(next),
                            Err(reason) => return reason,
                        }
                    }
                }
            }
        }
    }

    /// Renews, and returns when to do so next.
    async fn renew(&mut self, lease: i64, held: &mut Held) -> Result<Instant, &'static str> {
        match self.store.keep_alive(lease).await {
            Ok(ttl) => {
                debug!(lease = %held.entry.key, seconds = ttl.as_secs(), "lease renewed");
                self.backoff.reset();
                held.expires = Some(Instant::now() + ttl);
                self.tell(LeaseState::Held(held.clone()));
                Ok(self.due(ttl))
            }
            Err(RenewError::Lost) => Err("it has expired or was revoked"),
            Err(RenewError::Store(error)) => {
                // While the store is away nothing expires there either: only its answer will tell. But we no longer know.
                if held.expires.is_some_and(|expires| expires <= Instant::now()) {
                    self.tell(LeaseState::Claiming { reason: format!("it could not be renewed in time: {error}") });
                }
                Ok(Instant::now() + self.backoff.step())
            }
        }
    }

    fn due(&mut self, ttl: Duration) -> Instant {
        let third = self.rng.jitter(ttl / 3);
        // A margin that is longer than the lease would mean to renew all the time.
        let before_end = ttl.checked_sub(self.margin).filter(|left| !left.is_zero());
        Instant::now() + before_end.map_or(third, |left| left.min(third))
    }

    /// Waits, but no longer than until the watch says something of our key.
    async fn pause(&mut self, around: Duration) {
        let end = Instant::now() + self.rng.jitter(around);
        loop {
            tokio::select! {
                () = sleep_until(end) => return,
                event = next(&mut self.events) => match event {
                    Event::Delete(key) if Some(key) == self.key => return,
                    _ => (),
                },
            }
        }
    }

    /// Whether that was news.
    fn tell(&self, state: LeaseState) -> bool {
        self.state.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        })
    }
}

/// The next event; none ever when nobody can send one any more.
async fn next(events: &mut mpsc::Receiver<Event>) -> Event {
    match events.recv().await {
        Some(event) => event,
        None => std::future::pending().await,
    }
}

/// Both clocks at one moment.
struct Clocks {
    monotonic: Instant,
    wall: SystemTime,
}

impl Clocks {
    fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// Whether the wall clock has jumped ahead since this was last asked.
    fn jumped(&mut self) -> bool {
        let before = std::mem::replace(self, Self::now());
        let wall = self.wall.duration_since(before.wall).unwrap_or_default();
        wall > self.monotonic.duration_since(before.monotonic) + CLOCK_JUMP
    }
}
