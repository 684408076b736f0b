//! What the leases in the store mean for this host. Pure.

use super::{Claim, How, Warning};
use crate::store::Snapshot;
use crate::{Entry, Expiry, LeaseKey, Owner};

/// What there is for this host among the leases.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The one to take.
    pub(super) ours: Option<(Entry, How)>,
    /// Others of ours, which are to be given back.
    pub(super) surplus: Vec<Entry>,
    pub(super) warnings: Vec<Warning>,
}

/// Who wrote the record; none for flanneld, for a person, and where it cannot be read.
pub(super) fn owner(entry: &Entry) -> Option<Owner> {
    entry.record.as_ref().ok().and_then(|record| record.owner)
}

/// How the entry is ours, if it is.
pub(super) fn how(claim: &Claim, entry: &Entry) -> Option<How> {
    match owner(entry) {
        Some(owner) => (owner == claim.owner).then_some(How::Own),
        None if !names_us(claim, entry) => None,
        None if entry.expiry == Expiry::Never => Some(How::Reserved),
        None => Some(How::FromFlanneld),
    }
}

/// Whether the record has our address: the IPv4 one, and only where IPv4 is off the IPv6 one, since flanneld tells
/// leases apart by that and writes 0.0.0.0 for every host of an IPv6-only network.
fn names_us(claim: &Claim, entry: &Entry) -> bool {
    entry.record.as_ref().is_ok_and(|record| match claim.config.v4 {
        Some(_) => record.public_ip.is_some() && record.public_ip == claim.public_ip,
        None => record.public_ipv6.is_some() && record.public_ipv6 == claim.public_ipv6,
    })
}

/// Sorts out what is ours. Preferred: one with our owner; the one remembered; a reserved one, then flanneld's; the oldest.
pub(super) fn survey(claim: &Claim, snapshot: &Snapshot) -> Survey {
    let mut found = Survey::default();
    let mut candidates: Vec<(Entry, How)> = Vec::new();
    for entry in &snapshot.entries {
        match how(claim, entry) {
            Some(how) if claim.config.admits(entry.key) => candidates.push((entry.clone(), how)),
            Some(_) if entry.expiry == Expiry::Never => found.warnings.push(Warning::ReservationDoesNotFit { key: entry.key }),
            Some(_) => found.surplus.push(entry.clone()),
            None => {
                if let Some(owner) = owner(entry).filter(|_| names_us(claim, entry)) {
                    found.warnings.push(Warning::SameAddress { key: entry.key, owner });
                }
            }
        }
    }
    candidates.sort_by_key(|(entry, how)| (*how != How::Own, claim.remembered != Some(entry.key), *how != How::Reserved, entry.created));
    let mut candidates = candidates.into_iter();
    found.ours = candidates.next();
    for (entry, how) in candidates {
        match (entry.expiry, how) {
            (Expiry::Never, _) => found.warnings.push(Warning::ReservationUnused { key: entry.key }),
            // One with our owner is left from a write whose reply was lost. flanneld's ends by itself: it may still run.
            (Expiry::Lease(_), How::Own) => found.surplus.push(entry),
            (Expiry::Lease(_), _) => (),
        }
    }
    found
}

/// Brings the snapshot up to date with what a refused write has shown to stand under the key.
pub(super) fn learn(snapshot: &mut Snapshot, key: LeaseKey, there: Option<Entry>) {
    snapshot.entries.retain(|entry| entry.key != key);
    snapshot.entries.extend(there);
}
