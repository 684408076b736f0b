//! How this host comes by its lease, and gives it back.
//!
//! Every write is a compare-and-swap. A race that is lost is answered by looking again; a write whose reply was lost is
//! found again by the owner in the record. What belongs to another host is never overwritten, whatever address it claims.

pub mod assigned;
mod error;
mod survey;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

pub use self::error::{ClaimError, Warning};
use self::survey::{Survey, learn, survey};
use crate::alloc::choose;
use crate::store::{Snapshot, StoreError, WriteError};
use crate::{Assigned, Entry, LeaseKey, LeaseRecord, LeaseStore, NetworkConfig, Owner, Revision, Rng};

/// How often a lost race is answered by another attempt before the claim reports that it does not get through.
const ATTEMPTS: u32 = 64;

/// The longest pause before another attempt: enough to spread many hosts that start at once over many round trips.
const PAUSE: Duration = Duration::from_millis(50);

/// What the record of this host should be, given the one that stands in the lease it found, if any: so that a VTEP keeps
/// the MAC that the others know.
pub type RecordFor = Arc<dyn Fn(Option<&LeaseRecord>) -> LeaseRecord + Send + Sync>;

/// What a host claims a lease with.
#[derive(Clone)]
pub struct Claim {
    /// The network configuration.
    pub config: NetworkConfig,
    /// Who we are.
    pub owner: Owner,
    /// Our address, where IPv4 is on.
    pub public_ip: Option<Ipv4Addr>,
    /// Our address, where IPv6 is on.
    pub public_ipv6: Option<Ipv6Addr>,
    /// The subnet that we held before, from the subnet file.
    pub remembered: Option<LeaseKey>,
    /// How long the lease lives unless it is renewed.
    pub ttl: Duration,
    /// What to write into it. Its owner must be ours.
    pub record: RecordFor,
}

/// The lease that is held, and how it was come by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The lease as it stands in the store now.
    pub entry: Entry,
    /// Where it was found.
    pub how: How,
    /// What a person should know about.
    pub warnings: Vec<Warning>,
}

/// How a lease was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It was ours already.
    Own,
    /// flanneld had taken it for this host's address.
    FromFlanneld,
    /// A person had set it aside for this host.
    Reserved,
    /// It is the one that the subnet file names, and it was free.
    Remembered,
    /// It was free.
    Fresh,
    /// Somebody else chose it for this host: in Kubernetes it is the Node's podCIDR.
    Assigned,
}

/// Whether a clone of this host has written the lease: it says that it is us, but booted apart from us, and was written
/// after we wrote it in this boot. An older one is what we wrote before our last boot, in a store that was restored.
fn by_clone(claim: &Claim, entry: &Entry, last: &Entry) -> bool {
    let (Ok(record), Ok(said)) = (&entry.record, &last.record) else { return false };
    let ours = (claim.record)(Some(record)).boot;
    let is_us = record.owner == Some(claim.owner) && said.boot == ours;
    is_us && record.boot.is_some() && record.boot != ours && entry.modified > last.modified
}

/// Takes this host's lease: what was assigned to it; else the one that was held `last`, if any, and no other; else whichever is to
/// be had.
///
/// # Errors
/// [`ClaimError`].
pub async fn come_by<S: LeaseStore>(store: &S, claim: &Claim, last: Option<&Entry>, rng: &mut Rng) -> Result<Outcome, ClaimError> {
    match (assigned::key(&store.assigned().await?)?, last) {
        (Some(key), last) => assigned::take(store, claim, key, last).await,
        (None, Some(last)) => reclaim(store, claim, last).await,
        (None, None) => self::claim(store, claim, rng).await,
    }
}

/// Takes a lease for this host: its own, else flanneld's for the same address, else one reserved for it, else the one
/// remembered, else a free one.
///
/// # Errors
/// [`ClaimError`]. After [`ClaimError::Store`] and [`ClaimError::Contended`] trying again helps.
pub async fn claim<S: LeaseStore>(store: &S, claim: &Claim, rng: &mut Rng) -> Result<Outcome, ClaimError> {
    if let Some(outcome) = fast_path(store, claim).await? {
        return Ok(outcome);
    }
    let mut snapshot = store.list().await?;
    for _ in 0..ATTEMPTS {
        let Survey { ours, surplus, warnings } = survey(claim, &snapshot);
        for entry in surplus {
            drop_own(store, &mut snapshot, entry).await?;
        }
        let (key, attempt, how) = match ours {
            Some((entry, how)) => (entry.key, settle(store, claim, entry).await, how),
            None => {
                let (key, how) = free_key(claim, &snapshot, rng)?;
                (key, store.create(key, &(claim.record)(None), claim.ttl).await, how)
            }
        };
        match attempt {
            Ok(entry) => return Ok(Outcome { entry, how, warnings }),
            Err(WriteError::Conflict(there)) => learn(&mut snapshot, key, there.map(|there| *there)),
            Err(WriteError::Store(error)) => return Err(error.into()),
        }
        sleep(rng.part_of(PAUSE)).await;
    }
    Err(ClaimError::Contended)
}

/// Takes the subnet that was ours again: it and no other, since the containers of this host have their addresses from it.
/// It is known from how it stood `last`; where nothing stands there any more, the record is made of that one.
///
/// # Errors
/// [`ClaimError::HeldByOther`] when another host has it, [`ClaimError::HeldByClone`] when that is a clone of this one.
pub async fn reclaim<S: LeaseStore>(store: &S, claim: &Claim, last: &Entry) -> Result<Outcome, ClaimError> {
    let key = last.key;
    let mut there = store.get(key).await?;
    for _ in 0..ATTEMPTS {
        let (attempt, how) = match there {
            None => (store.create(key, &(claim.record)(last.record.as_ref().ok()), claim.ttl).await, How::Remembered),
            Some(entry) if by_clone(claim, &entry, last) => return Err(ClaimError::HeldByClone(Box::new(entry))),
            Some(entry) => match survey::how(claim, &entry) {
                Some(how) => (settle(store, claim, entry).await, how),
                None => return Err(ClaimError::HeldByOther(Box::new(entry))),
            },
        };
        there = match attempt {
            Ok(entry) => return Ok(Outcome { entry, how, warnings: Vec::new() }),
            Err(WriteError::Conflict(there)) => there.map(|there| *there),
            Err(WriteError::Store(error)) => return Err(error.into()),
        };
    }
    Err(ClaimError::Contended)
}

/// Gives back every lease that is ours. A reservation stays: a person made it.
///
/// # Errors
/// [`StoreError`].
pub async fn release<S: LeaseStore>(store: &S, owner: Owner) -> Result<Vec<LeaseKey>, StoreError> {
    let mut snapshot = store.list().await?;
    let mut released = Vec::new();
    for entry in snapshot.entries.clone() {
        if survey::owner(&entry) == Some(owner) && entry.expiry != crate::Expiry::Never {
            released.push(entry.key);
            drop_own(store, &mut snapshot, entry).await?;
        }
    }
    Ok(released)
}

/// The usual restart: one read, and no write where the record has not changed.
async fn fast_path<S: LeaseStore>(store: &S, claim: &Claim) -> Result<Option<Outcome>, ClaimError> {
    let Some(key) = claim.remembered.filter(|key| claim.config.admits(*key)) else { return Ok(None) };
    let Some(entry) = store.get(key).await? else { return Ok(None) };
    if survey::owner(&entry) != Some(claim.owner) {
        return Ok(None);
    }
    match settle(store, claim, entry).await {
        Ok(entry) => Ok(Some(Outcome { entry, how: How::Own, warnings: Vec::new() })),
        Err(WriteError::Conflict(_)) => Ok(None),
        Err(WriteError::Store(error)) => Err(error.into()),
    }
}

/// Makes the record of an entry that is ours what it should be; nothing is written where it is that already.
async fn settle<S: LeaseStore>(store: &S, claim: &Claim, entry: Entry) -> Result<Entry, WriteError> {
    let wanted = (claim.record)(entry.record.as_ref().ok());
    if entry.record.as_ref() == Ok(&wanted) { Ok(entry) } else { store.replace(&entry, &wanted).await }
}

async fn drop_own<S: LeaseStore>(store: &S, snapshot: &mut Snapshot, entry: Entry) -> Result<(), StoreError> {
    let key = entry.key;
    match store.delete(&entry).await {
        Ok(()) => learn(snapshot, key, None),
        Err(WriteError::Conflict(there)) => learn(snapshot, key, there.map(|there| *there)),
        Err(WriteError::Store(error)) => return Err(error),
    }
    Ok(())
}

fn free_key(claim: &Claim, snapshot: &Snapshot, rng: &mut Rng) -> Result<(LeaseKey, How), ClaimError> {
    let taken: Vec<LeaseKey> = snapshot.entries.iter().map(|entry| entry.key).collect();
    let is_free = |key: &LeaseKey| claim.config.admits(*key) && !taken.iter().any(|other| other.overlaps(*key));
    if let Some(key) = claim.remembered.filter(is_free) {
        return Ok((key, How::Remembered));
    }
    Ok((choose(&claim.config, &taken, rng)?, How::Fresh))
}

/// What a claim would come to, without making it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreseen {
    /// The lease as it would stand in the store. What is not known before it is written is as in the entry found, or zero.
    pub entry: Entry,
    /// What would have to be written; none when it stands already.
    pub write: Option<&'static str>,
}

/// Says what would be taken, given all leases. Pure; where the subnet is a random free one, another may be taken then.
///
/// # Errors
/// [`ClaimError`], but for those of the store.
pub fn foresee(claim: &Claim, assigned: &Assigned, snapshot: &Snapshot, rng: &mut Rng) -> Result<Foreseen, ClaimError> {
    if let Some(key) = assigned::key(assigned)? {
        return assigned::foresee(claim, key, snapshot);
    }
    if let Some((entry, _)) = survey(claim, snapshot).ours {
        let record = Ok((claim.record)(entry.record.as_ref().ok()));
        let write = (entry.record != record).then_some("rewritten");
        return Ok(Foreseen { entry: Entry { record, ..entry }, write });
    }
    let (key, how) = free_key(claim, snapshot, rng)?;
    let write = Some(if how == How::Fresh { "taken at random among the free ones" } else { "taken" });
    let (created, modified, expiry) = (Revision::default(), Revision::default(), crate::Expiry::Lease(0));
    Ok(Foreseen { entry: Entry { key, record: Ok((claim.record)(None)), created, modified, expiry }, write })
}
