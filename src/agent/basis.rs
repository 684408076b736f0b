//! What a session begins with: the network's configuration and this host's own addresses, as the store has them, as they were in the
//! last session, or as an earlier run wrote them down.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use lease::keeper::Held;
use lease::store::kube::OwnAddresses;
use lease::store::{Health, StoreError};
use lease::{Entry, LeaseRecord, LeaseStore, Owner};
use overlay::Peer;

use super::follow;
use super::node::becomes;
use super::place::Place;
use super::remember::{self, Known};
use super::session::Sessions;
use super::sources::{ConfigKey, Unusable, Usable, next_usable};
use super::store::Store;
use crate::cli::InterfaceOptions;

/// Between two questions after the own addresses while the store does not answer, or nonsense stands there.
const ADDRESSES_PAUSE: Duration = Duration::from_secs(2);

/// What one session leaves to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Who we are: decided once, so that an underlay with another network card does not make us another host.
    pub(super) owner: Option<Owner>,
    /// Where we stood last.
    pub(super) place: Option<Place>,
    /// The lease that we have held: from then on it is that one or none, since containers have their addresses from it.
    pub(super) held: Option<Entry>,
    /// The same, as it stood when the last session ended, if it was ours then.
    pub(super) last: Option<Held>,
    /// The configuration in force, for when the store has not said anything yet.
    pub(super) config: Option<Usable>,
    /// What the store says of our own addresses; none until it has.
    pub(super) addresses: Option<OwnAddresses>,
    /// What they seem to be, as long as it has not.
    pub(super) guess: OwnAddresses,
    /// The peers that were in force, and whether the store had named all.
    pub(super) peers: Vec<Peer>,
    pub(super) complete: bool,
}

impl Sessions {
    /// The configuration, and the peers that an earlier run knew where the store is away.
    pub(super) async fn configuration(&mut self, key: &ConfigKey) -> anyhow::Result<(Usable, Vec<Peer>)> {
        let board = self.board.clone();
        let refused = |unusable: &Unusable| {
            board.blocked(unusable.to_string());
            match unusable {
                Unusable::Missing { .. } => tracing::warn!(reason = %unusable, "waiting for the network configuration"),
                Unusable::Invalid { .. } => {
                    tracing::error!(reason = %unusable, "waiting for another network configuration");
                }
            }
        };
        self.board.blocked("waiting for the network configuration".to_owned());
        let silent = self.feed.borrow().is_none();
        if let Some(usable) = self.memory.config.clone().filter(|_| silent) {
            return Ok((usable, std::mem::take(&mut self.memory.peers)));
        }
        // Containers run in what is in force: whatever ended the last session, what waits for a start goes on waiting.
        let Memory { config: running, held, place, .. } = &mut self.memory;
        if let (Some(running), Some(held), Some(place), false) = (running, held, place, silent) {
            let text = self.feed.borrow_and_update().clone().flatten();
            let offer = follow::offer(text.as_deref(), key, running, held.key, place);
            if let Some((usable, changes)) = follow::taken(offer, &self.board) {
                follow::followed(changes, &self.board);
                *running = usable;
            }
            let running = running.clone();
            return Ok((running, std::mem::take(&mut self.memory.peers)));
        }
        let strange = self.memory.addresses.is_none();
        let spoken = async {
            let addresses = async {
                match self.memory.addresses {
                    Some(addresses) => addresses,
                    None => own_addresses(&self.store, |error| board.blocked(error)).await,
                }
            };
            let (usable, addresses) = tokio::join!(next_usable(&mut self.feed, key, refused), addresses);
            anyhow::Ok((usable.context("the configuration is no longer followed")?, addresses))
        };
        let (usable, peers) = tokio::select! {
            spoken = spoken => {
                let (usable, addresses) = spoken?;
                self.memory.addresses = Some(addresses);
                (usable, std::mem::take(&mut self.memory.peers))
            }
            known = remember::when_the_store_is_away(&self.options, &self.store, self.memory.owner), if silent || strange => {
                let Known { usable, entry, peers, written } = known;
                let age = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs().saturating_sub(written);
                tracing::warn!(lease = %entry.key, peers = peers.len(), age_seconds = age, "the store is away: going on from the last state");
                self.board.change(|facts| facts.stale = Some(written));
                self.memory.guess = told(&entry);
                self.memory.held = Some(entry);
                // What a file says may be newer, and has been read already.
                if !silent {
                    self.feed.mark_changed();
                }
                (usable, peers)
            }
        };
        self.memory.config = Some(usable.clone());
        Ok((usable, peers))
    }
}

/// The interface's options with what the store says of the own addresses: `--public-ip` goes before the Node's address, but what a
/// person wants the others to be told goes before both.
pub(crate) fn reached_at(flags: &InterfaceOptions, addresses: OwnAddresses) -> InterfaceOptions {
    let OwnAddresses { ip, ipv6, overwrite_ip, overwrite_ipv6 } = addresses;
    InterfaceOptions {
        public_ip: overwrite_ip.or(flags.public_ip).or(ip),
        public_ipv6: overwrite_ipv6.or(flags.public_ipv6).or(ipv6),
        ..flags.clone()
    }
}

/// What the others have last been told: a guess at what the store would say, so that nothing else is written as soon as it answers.
fn told(entry: &Entry) -> OwnAddresses {
    let Ok(LeaseRecord { public_ip, public_ipv6, .. }) = &entry.record else { return OwnAddresses::default() };
    OwnAddresses { ip: *public_ip, ipv6: *public_ipv6, ..OwnAddresses::default() }
}

/// What the store says of the own addresses, once it does. Says why it does not, once for each reason.
async fn own_addresses(store: &Store, say: impl Fn(String)) -> OwnAddresses {
    let mut said = None;
    loop {
        match store.own_addresses().await {
            Ok(addresses) => return addresses,
            Err(error) if said.as_ref() != Some(&error) => {
                // Of a store that does not answer, the store says so itself.
                if !matches!(error, StoreError::Unavailable(_)) {
                    tracing::error!(%error, "this host's addresses cannot be told");
                }
                say(error.to_string());
                said = Some(error);
            }
            Err(_) => {}
        }
        back_or_later(store).await;
    }
}

/// Returns when it is worth asking the store again.
async fn back_or_later(store: &Store) {
    let mut health = store.health();
    // Whatever it was, it may have been put right.
    let _ = tokio::time::timeout(ADDRESSES_PAUSE, becomes(&mut health, |health| *health == Health::Up)).await;
}

/// What the store says of the own addresses, where it had not said so before.
pub(super) async fn other_addresses(store: &Store, known: Option<OwnAddresses>) -> OwnAddresses {
    match known {
        Some(_) => std::future::pending().await,
        None => own_addresses(store, |_| ()).await,
    }
}
