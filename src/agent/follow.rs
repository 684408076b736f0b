//! A network configuration that changes while containers run in the one before: followed as a whole, or not at all.

use std::time::UNIX_EPOCH;

use lease::{LeaseKey, NetworkConfig};

use super::board::Board;
use super::place::Place;
use super::sources::{ConfigKey, Usable, usable};
use super::wanted;
use crate::fields::{Changes, listed};
use crate::status::ConfigChanges;

/// What to do about the configuration that the store has now.
#[derive(Debug)]
pub(super) enum Offer {
    /// Nothing that counts has changed.
    Same,
    /// All of it can be taken over.
    Follow(Box<Usable>, Changes),
    /// It waits for another start.
    Wait(String, Changes),
    /// It cannot be used at all.
    Refuse(String),
}

/// Holds the configuration that the store has against the one that runs.
pub(super) fn offer(text: Option<&str>, key: &ConfigKey, running: &Usable, own: LeaseKey, place: &Place) -> Offer {
    // Before what this release can do: what would take another start is not refused for that.
    let parsed = text.and_then(|text| text.parse::<NetworkConfig>().ok());
    let parsed = parsed.map(|config| if key.assigned { config.for_assigned() } else { config });
    let changes = parsed.map(|config| Changes::between(&running.config, &config, own)).unwrap_or_default();
    if !changes.held_up_by.is_empty() {
        let what = format!(
            "{key} has changed: {}; all of that takes effect when the agent is started again, because of {}",
            listed(&changes.all),
            listed(&changes.held_up_by)
        );
        return Offer::Wait(what, changes);
    }
    match usable(text, key).map_err(|unusable| unusable.to_string()) {
        Ok(Usable { config, .. }) if config == running.config => Offer::Same,
        Ok(usable) => match wanted::possible(place, &usable.config) {
            Ok(()) => Offer::Follow(Box::new(usable), changes),
            Err(error) => Offer::Refuse(format!("{key}: {error}; the one before stays in force")),
        },
        Err(unusable) => Offer::Refuse(format!("{unusable}; the one before stays in force")),
    }
}

/// What of an offer is to be followed. What is not goes into the log and on the board.
pub(super) fn taken(offer: Offer, board: &Board) -> Option<(Usable, Changes)> {
    let (matter, waiting) = match offer {
        Offer::Same => (None, Vec::new()),
        Offer::Follow(usable, changes) => return Some((*usable, changes)),
        Offer::Wait(matter, changes) => (Some(matter), changes.all),
        Offer::Refuse(matter) => (Some(matter), Vec::new()),
    };
    if let Some(matter) = matter.as_ref().filter(|matter| board.look().borrow().config.as_ref() != Some(*matter)) {
        tracing::error!(matter, "network configuration not taken over");
    }
    board.change(|facts| {
        facts.config = matter;
        facts.config_changes.waiting = waiting;
    });
    None
}

/// Says that changes are taken over.
pub(super) fn followed(changes: Changes, board: &Board) {
    tracing::info!(changes = listed(&changes.all), "network configuration has changed: followed");
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    board.change(|facts| {
        let at = Some(u64::try_from(now).unwrap_or(u64::MAX));
        facts.config_changes = ConfigChanges { followed: changes.all, followed_at_unix_ms: at, waiting: Vec::new() };
    });
}
