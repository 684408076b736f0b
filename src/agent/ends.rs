//! What ends a session: another underlay, another configuration, another lease. Each returns why, for the log.

use std::time::Duration;

use anyhow::Context;
use lease::keeper::LeaseState;
use lease::{Entry, Family, LeaseKey, NetworkConfig};
use tokio::sync::watch;

use super::board::Board;
use super::follow::{offer, taken};
use super::place::{self, Place};
use super::planes::Planes;
use super::sources::{ConfigFeed, ConfigKey, Usable, usable};
use super::wanted;
use crate::cli::Options;

/// How often to look for an interface while there is none that will do.
pub(super) const UNDERLAY_PAUSE: Duration = Duration::from_secs(1);

/// After a change of the underlay: until a burst of them (address away, address back) is over.
const UNDERLAY_SETTLE: Duration = Duration::from_millis(50);

pub(super) const UNDERLAY_CHANGED: &str = "the underlay has changed";
const CONFIG_CHANGED: &str = "the network configuration has changed";

/// Ends when the underlay is not what it was any more.
pub(super) async fn underlay_change(options: &Options, config: &NetworkConfig, place: &Place, planes: &Planes) -> &'static str {
    // What changes from now on is told; what changed before has to be looked at.
    let _ = planes.standing.clone().wait_for(Option::is_some).await;
    let mut missing = None;
    loop {
        let usable = place::find(options, &place.families()).await.map_err(|error| error.to_string());
        // One whose MTU is too small for one family is none for the other either: a session serves both.
        let usable = usable.and_then(|now| wanted::possible(&now, config).map(|()| now).map_err(|error| error.to_string()));
        match usable {
            Ok(now) if now.underlay != place.underlay => return UNDERLAY_CHANGED,
            Ok(_) => missing = None,
            // Down, without address or too small for now: what is in the kernel serves as well as anything.
            Err(error) => {
                if missing.as_ref() != Some(&error) {
                    tracing::warn!(error, "underlay not usable at the moment; the overlay stays as it is");
                }
                missing = Some(error);
            }
        }
        let told = planes.underlay.notified();
        if missing.is_some() || planes.is_empty() {
            // An interface that comes back is another one to the kernel, of which nobody tells us; and without a data plane nobody tells us
            // of any: we have to look.
            let _ = tokio::time::timeout(UNDERLAY_PAUSE, told).await;
        } else {
            told.await;
        }
        tokio::time::sleep(UNDERLAY_SETTLE).await;
    }
}

/// Ends when the configuration or the underlay is another than the one that a lease is being claimed for.
pub(super) async fn other_ground(
    options: &Options,
    feed: &mut ConfigFeed,
    key: &ConfigKey,
    config: &NetworkConfig,
    place: &Place,
) -> anyhow::Result<&'static str> {
    tokio::select! {
        why = other_config(feed, key, config) => why,
        why = other_underlay(options, place) => Ok(why),
    }
}

/// Ends when the underlay is another than the one that a lease is being claimed for. No data plane is there yet to tell.
async fn other_underlay(options: &Options, place: &Place) -> &'static str {
    loop {
        tokio::time::sleep(UNDERLAY_PAUSE).await;
        if place::find(options, &place.families()).await.is_ok_and(|now| now.underlay != place.underlay) {
            return UNDERLAY_CHANGED;
        }
    }
}

/// Ends when the configuration is another than the one that a lease is being claimed for.
pub(super) async fn other_config(feed: &mut ConfigFeed, key: &ConfigKey, claimed_for: &NetworkConfig) -> anyhow::Result<&'static str> {
    loop {
        feed.changed().await.context("the configuration is no longer followed")?;
        let text = feed.borrow_and_update().clone().flatten();
        if !usable(text.as_deref(), key).is_ok_and(|usable| usable.config == *claimed_for) {
            // The next session looks at it as if for the first time.
            feed.mark_changed();
            return Ok(CONFIG_CHANGED);
        }
    }
}

/// Ends when there is another configuration that a running agent follows. One that it does not is told of.
pub(super) async fn config_change(
    feed: &mut ConfigFeed,
    key: &ConfigKey,
    running: &Usable,
    own: LeaseKey,
    place: &Place,
    board: &Board,
) -> anyhow::Result<&'static str> {
    loop {
        feed.changed().await.context("the configuration is no longer followed")?;
        let text = feed.borrow_and_update().clone().flatten();
        if taken(offer(text.as_deref(), key, running, own, place), board).is_some() {
            return Ok(CONFIG_CHANGED);
        }
    }
}

/// Ends when the lease is held again with other subnets or another MAC than the data plane was started with: with that
/// lease, or none when nobody keeps it any more.
pub(super) async fn lease_change(lease: &mut watch::Receiver<LeaseState>, started_with: &Entry) -> Option<Entry> {
    loop {
        if lease.changed().await.is_err() {
            return None;
        }
        if let LeaseState::Held(held) = &*lease.borrow_and_update() {
            let vteps = |entry: &Entry| entry.record.as_ref().ok().map(|record| Family::ALL.map(|family| record.vtep_of(family)));
            if held.entry.key != started_with.key || vteps(&held.entry) != vteps(started_with) {
                return Some(held.entry.clone());
            }
        }
    }
}
