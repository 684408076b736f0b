//! How a host comes by subnets that somebody else chose for it: in Kubernetes the Node's podCIDRs.
//!
//! There is nothing to choose and nobody to race with: who has the Node has its subnets. What stands there and is not what we
//! say of ourselves is put right; the MAC that the others have learnt from us stays.

use super::{ATTEMPTS, Claim, ClaimError, How, Outcome};
use crate::store::{Snapshot, WriteError};
use crate::{Assigned, Entry, Expiry, Family, LeaseKey, LeaseRecord, LeaseStore, NetworkConfig, Revision};

/// Takes these subnets. What was said in the record `last` goes before what stands there now, so that nobody else's edit of it
/// stays.
///
/// # Errors
/// [`ClaimError::Outside`] and [`ClaimError::NoneOf`] where they do not fit the configuration.
pub async fn take<S: LeaseStore>(store: &S, claim: &Claim, key: LeaseKey, last: Option<&Entry>) -> Result<Outcome, ClaimError> {
    fit(&claim.config, key)?;
    let said = last.and_then(|last| last.record.as_ref().ok());
    // That there is none is found out by the attempt to make one: in Kubernetes to look for it may take a list of all Nodes.
    let mut there = None;
    for _ in 0..ATTEMPTS {
        let wanted = record(claim, said, there.as_ref());
        let attempt = match there {
            None => store.create(key, &wanted, claim.ttl).await,
            Some(entry) if entry.record.as_ref() == Ok(&wanted) => Ok(entry),
            Some(entry) => store.replace(&entry, &wanted).await,
        };
        there = match attempt {
            Ok(entry) => return Ok(Outcome { entry, how: How::Assigned, warnings: Vec::new() }),
            Err(WriteError::Conflict(there)) => there.map(|there| *there),
            Err(WriteError::Store(error)) => return Err(error.into()),
        };
    }
    Err(ClaimError::Contended)
}

/// What [`take`] would come to; see [`super::foresee`].
pub(super) fn foresee(claim: &Claim, key: LeaseKey, snapshot: &Snapshot) -> Result<super::Foreseen, ClaimError> {
    fit(&claim.config, key)?;
    let there = snapshot.entries.iter().find(|entry| entry.key == key);
    let wanted = Ok(record(claim, None, there));
    let write = match there {
        None => Some("written for the first time"),
        Some(entry) => (entry.record != wanted).then_some("rewritten"),
    };
    let none = Entry { key, record: wanted.clone(), created: Revision::default(), modified: Revision::default(), expiry: Expiry::Never };
    let entry = there.cloned().unwrap_or(none);
    Ok(super::Foreseen { entry: Entry { record: wanted, ..entry }, write })
}

/// The subnets that the host is to have, if it is not to choose itself.
pub(super) fn key(assigned: &Assigned) -> Result<Option<LeaseKey>, ClaimError> {
    match assigned {
        Assigned::Any => Ok(None),
        Assigned::Key(key) => Ok(Some(*key)),
        Assigned::Not(reason) => Err(ClaimError::NotAssigned(reason.clone())),
    }
}

fn record(claim: &Claim, said: Option<&LeaseRecord>, there: Option<&Entry>) -> LeaseRecord {
    (claim.record)(said.or_else(|| there?.record.as_ref().ok()))
}

/// Whether each family that is on has a subnet within its network. One of a family that is off is not used.
fn fit(config: &NetworkConfig, key: LeaseKey) -> Result<(), ClaimError> {
    for (family, network) in Family::ALL.into_iter().filter_map(|family| Some((family, config.pool(family)?.network))) {
        match key.subnet(family) {
            Some(subnet) if network.covers(subnet) => {}
            Some(subnet) => return Err(ClaimError::Outside { subnet, network }),
            None => return Err(ClaimError::NoneOf { family, network }),
        }
    }
    Ok(())
}
