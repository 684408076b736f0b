//! The keys, leases and history of the store in memory: etcd's rules without etcd. Not shared, no waiting, time passed in.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::store::entry::Raw;
use crate::{Entry, Event, LeaseKey};

/// Where leases stand, as in etcd below the prefix.
pub(super) const LEASES: &str = "subnets/";

#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) revision: i64,
    /// Changes up to here are forgotten.
    pub(super) compacted: i64,
    keys: BTreeMap<String, Stored>,
    leases: BTreeMap<i64, Granted>,
    history: Vec<Change>,
    granted: i64,
}

#[derive(Debug, Clone)]
struct Stored {
    value: String,
    created: i64,
    modified: i64,
    lease: i64,
}

#[derive(Debug, Clone, Copy)]
struct Granted {
    ttl: Duration,
    ends: Instant,
}

/// One key's put or, without a value, its deletion.
#[derive(Debug)]
struct Change {
    revision: i64,
    key: String,
    put: Option<Stored>,
}

impl World {
    /// Deletes what has run out.
    pub(super) fn expire(&mut self, now: Instant) {
        let over: Vec<i64> = self.leases.iter().filter(|(_, granted)| granted.ends <= now).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|lease| self.revoke(lease));
    }

    /// When something runs out next.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.leases.values().map(|granted| granted.ends).min()
    }

    pub(super) fn grant(&mut self, ttl: Duration, now: Instant) -> i64 {
        self.granted += 1;
        self.leases.insert(self.granted, Granted { ttl, ends: now + ttl });
        self.granted
    }

    pub(super) fn revoke(&mut self, lease: i64) {
        self.leases.remove(&lease);
        let attached: Vec<String> = self.keys.iter().filter(|(_, stored)| stored.lease == lease).map(|(key, _)| key.clone()).collect();
        attached.iter().for_each(|key| self.del(key));
    }

    pub(super) fn keep_alive(&mut self, lease: i64, now: Instant) -> Option<Duration> {
        let granted = self.leases.get_mut(&lease)?;
        granted.ends = now + granted.ttl;
        Some(granted.ttl)
    }

    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(|stored| stored.value.as_str())
    }

    pub(super) fn entry(&self, key: LeaseKey) -> Option<Entry> {
        let key = format!("{LEASES}{key}");
        self.keys.get(&key).and_then(|stored| stored.entry(&key))
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.keys.iter().filter_map(|(key, stored)| stored.entry(key)).collect()
    }

    pub(super) fn put(&mut self, key: &str, value: String, lease: i64) {
        self.revision += 1;
        let created = self.keys.get(key).map_or(self.revision, |old| old.created);
        let stored = Stored { value, created, modified: self.revision, lease };
        self.keys.insert(key.to_owned(), stored.clone());
        self.history.push(Change { revision: self.revision, key: key.to_owned(), put: Some(stored) });
    }

    pub(super) fn del(&mut self, key: &str) {
        if self.keys.remove(key).is_some() {
            self.revision += 1;
            self.history.push(Change { revision: self.revision, key: key.to_owned(), put: None });
        }
    }

    /// Forgets the history: a watch that is behind has to list again.
    pub(super) fn compact(&mut self) {
        self.compacted = self.revision;
        self.history.clear();
    }

    /// The whole state, as a watch tells it.
    pub(super) fn snapshot(&self) -> Vec<Event> {
        let lease_keys = self.keys.iter().filter(|(key, _)| key.starts_with(LEASES));
        let each = lease_keys.filter_map(|(key, stored)| match stored.entry(key) {
            Some(entry) => Some(Event::InitApply(entry)),
            None => Some(Event::Stray(key.strip_prefix(LEASES)?.to_owned())),
        });
        [Event::Init].into_iter().chain(each).chain([Event::InitDone(crate::Revision(self.revision))]).collect()
    }

    /// What has changed among the leases since.
    pub(super) fn changes_since(&self, revision: i64) -> Vec<Event> {
        let since = self.history.iter().filter(|change| change.revision > revision);
        since
            .filter_map(|Change { key, put, .. }| {
                let name = key.strip_prefix(LEASES)?;
                match put {
                    Some(stored) => Some(stored.entry(key).map_or_else(|| Event::Stray(name.to_owned()), Event::Apply)),
                    None => Some(Event::Delete(name.parse().ok()?)),
                }
            })
            .collect()
    }
}

impl Stored {
    fn entry(&self, key: &str) -> Option<Entry> {
        let Self { value, created, modified, lease } = self;
        Raw { key: key.strip_prefix(LEASES)?, value: value.as_bytes(), created: *created, modified: *modified, lease: *lease }.entry()
    }
}
