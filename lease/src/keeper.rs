//! Keeps this host's lease: claims it, renews it in time, and takes the same subnet again when it is lost.
//!
//! It writes nothing while nothing changes. It never gives up the subnet for another one, since the containers of this
//! host have their addresses from it, unless it is given another; and never takes it from another host that holds it. It renews by monotonic time; a
//! jump of the wall clock, which is also what a suspended machine shows, only makes it renew at once.

use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{debug, error, info, warn};

use crate::claim::{Claim, ClaimError, How, Outcome, Warning, come_by};
use crate::rng::{Backoff, Rng};
use crate::store::{Health, RenewError, StoreError};
use crate::{Entry, Event, Expiry, LeaseStore};

/// Pauses between attempts to claim or renew. The store has deadlines and attempts of its own in each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// How often a subnet is tried for that another host holds: this only backs up the watch that tells when it becomes free.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a full pool is looked at again, by a list of all leases: seldom enough for the store, soon enough for a person
/// who has just made room.
const POOL_PATIENCE: Duration = Duration::from_secs(10);

/// How often at the least it is asked which subnets this host is given, while it has none: a Node waits for its network.
const ASSIGNMENT_PATIENCE: Duration = Duration::from_secs(2);

/// So often in a row a lease that somebody undoes is claimed again at once; then each time waits longer. Every claim is an
/// event for all other hosts.
const UNDONE_AT_ONCE: u32 = 3;

/// A lease that was held for so long was held in peace.
const PEACE: Duration = Duration::from_secs(10);

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
    /// When it ends unless it is renewed before; none where it never does.
    pub expires: Option<Instant>,
}

/// Keeps one lease. What it is told and what it tells goes through the two channels that [`Keeper::new`] returns with it.
pub struct Keeper<S> {
    store: S,
    claim: Claim,
    margin: Duration,
    rng: Rng,
    backoff: Backoff,
    /// The lease that we have had, as it stood last: from then on it is this subnet or none.
    last: Option<Entry>,
    /// What was ours when we began, until the store has said how it stands.
    trusted: Option<Held>,
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
        (Self { store, claim, margin, rng, backoff, last: None, trusted: None, state, events }, states, sender)
    }

    /// Goes on with a lease that this process holds: it is that one or none. Where there is nothing new to be told to the others,
    /// it stays ours until the store says otherwise or its time is over, also while the store is away.
    #[must_use]
    pub fn holding(mut self, held: &Held) -> Self {
        let nothing_new = held.entry.record.as_ref().is_ok_and(|record| (self.claim.record)(Some(record)) == *record);
        self.last = Some(held.entry.clone());
        self.trusted = Some(held.clone()).filter(|_| nothing_new);
        if let Some(held) = self.trusted().cloned() {
            self.tell(LeaseState::Held(held));
        }
        self
    }

    /// The lease that this process held when this keeper began, unless its time is over.
    fn trusted(&self) -> Option<&Held> {
        self.trusted.as_ref().filter(|held| held.expires.is_none_or(|end| end > Instant::now()))
    }

    /// Goes on with a lease that was held before: it is that one or none.
    #[must_use]
    pub fn resuming(mut self, entry: &Entry) -> Self {
        self.last = Some(entry.clone());
        self
    }

    /// Keeps the lease until this is dropped. The lease stays in the store then: a restart finds it.
    pub async fn run(mut self) {
        let mut undone = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, Rng::new(self.rng.bits()));
        let mut in_a_row = 0_u32;
        loop {
            let held = self.come_by().await;
            let since = Instant::now();
            info!(lease = %held.entry.key, how = ?held.how, "lease held");
            for warning in &held.warnings {
                warn!(%warning, "odd lease");
            }
            let lost = self.hold(held).await;
            warn!(reason = lost, "lease to be claimed again");
            self.tell(LeaseState::Claiming { reason: lost.to_owned() });
            if since.elapsed() >= PEACE {
                undone.reset();
                in_a_row = 0;
            }
            in_a_row = in_a_row.saturating_add(1);
            if in_a_row > UNDONE_AT_ONCE {
                let reason = format!("{lost}, for the {in_a_row}th time in a row: somebody undoes it");
                self.tell(LeaseState::Claiming { reason });
                self.rest(undone.step()).await;
            }
        }
    }

    /// Tries until there is a lease, and its time to live is known.
    async fn come_by(&mut self) -> Held {
        loop {
            match self.attempt().await {
                Ok(held) => {
                    self.backoff.reset();
                    self.trusted = None;
                    return held;
                }
                Err(error @ (ClaimError::HeldByOther(_) | ClaimError::HeldByClone(_))) => {
                    if self.tell(LeaseState::Lost { reason: error.to_string() }) {
                        error!(%error, "lease lost: it is not taken from the other host");
                    }
                    self.pause(PATIENCE).await;
                }
                Err(error) => {
                    let pause = match error {
                        ClaimError::NoSubnet(_) => POOL_PATIENCE,
                        ClaimError::NotAssigned(_) => self.backoff.step().min(ASSIGNMENT_PATIENCE),
                        _ => self.backoff.step(),
                    };
                    if matches!(error, ClaimError::Store(_)) && self.trusted().is_some() {
                        self.pause(pause).await;
                        continue;
                    }
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
        // The store counts from when it does what it is asked, which is later than this.
        let mut asked = Instant::now();
        let Outcome { entry, how, warnings } = come_by(&self.store, &self.claim, self.last.as_ref(), &mut self.rng).await?;
        if matches!(how, How::Own | How::FromFlanneld | How::Reserved) {
            asked = Instant::now();
        }
        let ttl = match (entry.expiry, how) {
            (Expiry::Never, _) => None,
            (Expiry::Lease(_), How::Remembered | How::Fresh | How::Assigned) => Some(self.claim.ttl),
            // One that was found may be about to end.
            (Expiry::Lease(lease), How::Own | How::FromFlanneld | How::Reserved) => match self.store.keep_alive(lease).await {
                Ok(ttl) => Some(ttl),
                Err(RenewError::Lost) => return Err(StoreError::Unavailable("the lease ended as it was taken".to_owned()).into()),
                Err(RenewError::Store(error)) => return Err(error.into()),
            },
        };
        let expires = ttl.map(|ttl| asked + ttl);
        if expires.is_some_and(|at| at <= Instant::now()) {
            return Err(StoreError::Unavailable("the lease was over before we heard that it is ours".to_owned()).into());
        }
        self.last = Some(entry.clone());
        Ok(Held { entry, how, warnings, expires })
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
                lost = interference(&mut self.events, &held.entry) => return lost,
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

    /// Renews, and returns when to do so next. Not a moment longer than the lease lasts do we call it ours.
    async fn renew(&mut self, lease: i64, held: &mut Held) -> Result<Instant, &'static str> {
        let asked = Instant::now();
        let in_time = held.expires.filter(|end| *end > asked);
        if in_time.is_none() {
            self.overdue("the store has not answered yet");
        }
        let answer = self.store.keep_alive(lease);
        let answer = async {
            match in_time {
                Some(end) => timeout_at(end, answer).await.unwrap_or_else(|_| Err(too_late())),
                None => answer.await,
            }
        };
        let answer = tokio::select! {
            lost = interference(&mut self.events, &held.entry) => return Err(lost),
            answer = answer => answer,
        };
        match answer {
            Ok(ttl) => {
                debug!(lease = %held.entry.key, seconds = ttl.as_secs(), "lease renewed");
                self.backoff.reset();
                held.expires = Some(asked + ttl);
                self.tell(LeaseState::Held(held.clone()));
                Ok(self.due(ttl))
            }
            Err(RenewError::Lost) => Err("it has expired or was revoked"),
            Err(RenewError::Store(error)) => {
                let next = Instant::now() + self.backoff.step();
                if let Some(end) = held.expires.filter(|end| *end > Instant::now()) {
                    return Ok(next.min(end));
                }
                self.overdue(&error.to_string());
                Ok(next)
            }
        }
    }

    /// The lease may have run out. While the store is away nothing expires there either: only its answer will tell.
    fn overdue(&self, why: &str) {
        self.tell(LeaseState::Claiming { reason: format!("it could not be renewed in time: {why}") });
    }

    fn due(&mut self, ttl: Duration) -> Instant {
        let third = self.rng.jitter(ttl / 3);
        // A margin that is longer than the lease would mean to renew all the time.
        let before_end = ttl.checked_sub(self.margin).filter(|left| !left.is_zero());
        Instant::now() + before_end.map_or(third, |left| left.min(third))
    }

    /// Waits, whatever the watch says of our key meanwhile: what is claimed again will show how it stands.
    async fn rest(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            tokio::select! {
                () = sleep_until(end) => return,
                _ = next(&mut self.events) => {}
            }
        }
    }

    /// Waits, but no longer than until the watch says something of our key, or the store answers again.
    async fn pause(&mut self, around: Duration) {
        let end = Instant::now() + self.rng.jitter(around);
        let mut health = self.store.health();
        loop {
            tokio::select! {
                () = sleep_until(end) => return,
                () = comes_back(&mut health) => return sleep(self.rng.part_of(FIRST_PAUSE)).await,
                event = next(&mut self.events) => match event {
                    Event::Delete(key) if self.last.as_ref().is_some_and(|last| last.key == key) => return,
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

/// Returns when the store answers after it did not.
async fn comes_back(health: &mut watch::Receiver<Health>) {
    loop {
        if health.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if *health.borrow_and_update() == Health::Up {
            return;
        }
    }
}

fn too_late() -> RenewError {
    StoreError::Unavailable("no answer before the lease was over".to_owned()).into()
}

/// Why the lease that is held has to be claimed again, once the watch tells of a reason.
async fn interference(events: &mut mpsc::Receiver<Event>, held: &Entry) -> &'static str {
    loop {
        match next(events).await {
            // What comes late of our own writes is no news; after a break the store may have gone back in time.
            Event::Apply(entry) if entry.key == held.key && entry.modified > held.modified => return "it was written by another",
            Event::InitApply(entry) if entry.key == held.key && entry.modified != held.modified => return "it was written by another",
            Event::Delete(key) if key == held.key => return "it was deleted",
            Event::Apply(_) | Event::InitApply(_) | Event::Delete(_) | Event::Init | Event::InitDone(_) | Event::Stray(_) => (),
        }
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
