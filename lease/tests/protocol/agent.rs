//! A host: a real keeper, polled by hand, its desk, and what the watch tells it.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use lease::claim::{Claim, RecordFor};
use lease::keeper::{Held, Keeper, LeaseState};
use lease::store::contract::record;
use lease::store::memory::MemoryStore;
use lease::{Boot, Entry, Event, LeaseKey, LeaseRecord, LeaseStore, NetworkConfig, Owner, Rng};
use tokio::sync::{mpsc, watch};

use crate::call::{Call, at_once};
use crate::run::{MARGIN, TTL};
use crate::wire::Wire;

/// Who a host is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) owner: u8,
    pub(crate) boot: u8,
    /// The last byte of its address.
    pub(crate) address: u8,
}

impl Identity {
    pub(crate) fn owner(self) -> Owner {
        Owner::new([self.owner; 16])
    }

    pub(crate) fn address(self) -> String {
        format!("192.0.2.{}", self.address)
    }
}

pub(crate) struct Agent {
    pub(crate) identity: Identity,
    pub(crate) wire: Wire,
    pub(crate) states: watch::Receiver<LeaseState>,
    /// The subnets whose lease somebody else has touched since this host last heard of it.
    pub(crate) interfered: BTreeSet<LeaseKey>,
    /// What the keeper has seen since it last was at rest: with what it held last, this is its whole state.
    pub(crate) history: u64,
    pub(crate) last_held: Option<Entry>,
    /// Whether all it has seen is done with once it rests.
    pub(crate) settled: bool,
    /// What the watch told last: the revision of its lease, or that there is none.
    pub(crate) heard: Option<Option<i64>>,
    keeper: Pin<Box<dyn Future<Output = ()>>>,
    tell: mpsc::Sender<Event>,
}

impl Agent {
    pub(crate) fn start(identity: Identity, config: &NetworkConfig, remembered: Option<LeaseKey>, seed: u64) -> Self {
        let Identity { boot, .. } = identity;
        let record: RecordFor = Arc::new(move |_| LeaseRecord {
            owner: Some(identity.owner()),
            boot: Some(Boot::new(boot.into())),
            ..record(&identity.address())
        });
        let claim = Claim {
            config: config.clone(),
            owner: identity.owner(),
            public_ip: identity.address().parse().ok(),
            public_ipv6: None,
            remembered,
            ttl: TTL,
            record,
        };
        let wire = Wire::default();
        let (keeper, states, tell) = Keeper::new(wire.clone(), claim, MARGIN, Rng::new(seed));
        let keeper = Box::pin(keeper.run());
        Self { identity, wire, states, interfered: BTreeSet::new(), history: 0, last_held: None, settled: false, heard: None, keeper, tell }
    }

    /// Lets the keeper do all it can.
    pub(crate) fn poll(&mut self) {
        let polled = self.keeper.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled == Poll::Pending, "a keeper never ends");
        if let Some(held) = self.believes() {
            self.last_held = Some(held.entry);
        }
    }

    /// What it says that it holds.
    pub(crate) fn believes(&self) -> Option<Held> {
        match &*self.states.borrow() {
            LeaseState::Held(held) => Some(held.clone()),
            LeaseState::Claiming { .. } | LeaseState::Lost { .. } => None,
        }
    }

    /// What it asks, and the number of its call.
    pub(crate) fn asks(&self) -> (Call, u64) {
        let desk = self.wire.desk();
        (desk.call.clone().expect("it asks"), desk.serial)
    }

    pub(crate) fn is_asking(&self) -> bool {
        self.wire.desk().call.is_some()
    }

    /// Whether the watch has something to say of its key. It is opened once there was a lease, as in the agent.
    pub(crate) fn has_news(&self, store: &MemoryStore) -> bool {
        self.last_held.as_ref().is_some_and(|last| self.heard != Some(standing(store, last.key)))
    }

    /// What the watch has to say.
    pub(crate) fn hear(&mut self, store: &MemoryStore) {
        let Some(key) = self.last_held.as_ref().map(|last| last.key) else { return };
        let first = self.heard.is_none();
        self.heard = Some(standing(store, key));
        let event = match at_once(store.get(key)).expect("the store is there") {
            Some(entry) if first => Event::InitApply(entry),
            Some(entry) => Event::Apply(entry),
            None => Event::Delete(key),
        };
        self.remember(&event);
        self.tell.try_send(event).expect("there is room");
        self.interfered.clear();
    }

    /// Adds to what the keeper has seen.
    pub(crate) fn remember(&mut self, seen: &impl std::fmt::Debug) {
        let mut hasher = DefaultHasher::new();
        (self.history, format!("{seen:?}")).hash(&mut hasher);
        self.history = hasher.finish();
    }
}

fn standing(store: &MemoryStore, key: LeaseKey) -> Option<i64> {
    at_once(store.get(key)).expect("the store is there").map(|entry| entry.modified.0)
}
