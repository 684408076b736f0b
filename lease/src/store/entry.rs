//! What stands under one key, made into an [`Entry`]. The same for every store that keeps keys and values.

use crate::{Entry, Expiry, LeaseKey, LeaseRecord, Revision};

/// A key and its value as a store gives them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    /// The key without the prefix of the leases.
    pub(super) key: &'a str,
    pub(super) value: &'a [u8],
    pub(super) created: i64,
    pub(super) modified: i64,
    /// etcd's number of the lease it is attached to, 0 for none.
    pub(super) lease: i64,
}

impl Raw<'_> {
    /// The entry; none where the key names no subnet.
    pub(super) fn entry(self) -> Option<Entry> {
        let Self { key, value, created, modified, lease } = self;
        Some(Entry {
            key: key.parse::<LeaseKey>().ok()?,
            record: LeaseRecord::decode(value),
            created: Revision(created),
            modified: Revision(modified),
            expiry: if lease == 0 { Expiry::Never } else { Expiry::Lease(lease) },
        })
    }
}
