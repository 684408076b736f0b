//! Those who tell without being asked: readiness, systemd, metrics.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lease::LeaseKey;
use lease::keeper::{Held, LeaseState};
use lease::store::Health;
use overlay::State;
use tokio::sync::watch;

use super::board::{Board, Facts};
use super::dataplane::Standing;
use super::packet_filter;
use crate::http::Readiness;
use crate::metrics::{LeaseEnd, Metrics};
use crate::systemd;

/// Keeps readiness, systemd's status line and the metrics current. Ready means: the lease is held, and the kernel holds
/// what it should; forwarding is no reason where a CNI plugin sees to it, with the first pod. That the store does not answer is no reason by
/// itself: nothing is lost by it. `serving` becomes true once
/// containers may start.
pub(super) async fn watch_readiness(
    board: Board,
    mut health: watch::Receiver<Health>,
    metrics: Arc<Metrics>,
    say: watch::Sender<Readiness>,
    serving: watch::Sender<bool>,
    plugin_forwards: bool,
) {
    let mut facts = board.look();
    let mut told_ready = false;
    let mut last_line = String::new();
    loop {
        let now = facts.borrow_and_update().clone();
        let mut lease = now.lease.clone();
        let mut standing = now.planes.as_ref().map(|planes| planes.standing.clone());
        let store = health.borrow_and_update().clone();
        metrics.set_store_up(store == Health::Up);
        metrics.set_stale(now.stale.is_some());
        let lease_now = lease.as_mut().map(|lease| lease.borrow_and_update().clone());
        metrics.set_lease_end(lease_end(lease_now.as_ref()));
        let standing_now = standing.as_mut().and_then(|standing| standing.borrow_and_update().clone());
        let readiness = readiness(&now, lease_now.as_ref(), standing_now.as_ref(), plugin_forwards);
        let line = line(&readiness, now.key, standing_now.as_ref(), &store);
        if line != last_line {
            systemd::status(&line);
            last_line = line;
        }
        if !told_ready && (readiness.is_ready() || serves(&now, lease_now.as_ref(), standing_now.as_ref())) {
            systemd::ready();
            serving.send_replace(true);
            told_ready = true;
        }
        say.send_if_modified(|before| {
            let changed = *before != readiness;
            if changed {
                match &readiness {
                    Readiness::Ready => tracing::info!("ready"),
                    Readiness::ReadyBut(matter) => tracing::warn!(matter, "ready, but not all is well"),
                    Readiness::NotReady(reason) if before.is_ready() => tracing::warn!(reason, "not ready any more"),
                    Readiness::NotReady(reason) if matches!(standing_now, Some(Standing { state: State::Troubled(..), .. })) => {
                        tracing::warn!(reason, "not ready yet");
                    }
                    // On the way there each step speaks for itself.
                    Readiness::NotReady(reason) => tracing::debug!(reason, "not ready yet"),
                }
                *before = readiness;
            }
            changed
        });
        let board_gone = tokio::select! {
            changed = facts.changed() => changed.is_err(),
            _ = health.changed() => false,
            () = changed(lease.as_mut()) => false,
            () = changed(standing.as_mut()) => false,
        };
        if board_gone {
            return;
        }
    }
}

/// Whether whoever starts after us may start: lease and subnet file are there, and what can be done for the peers has been. That one of
/// them cannot be reached is no reason to keep containers from starting.
fn serves(facts: &Facts, lease: Option<&LeaseState>, standing: Option<&Standing>) -> bool {
    let done = matches!(standing, Some(Standing { state: State::Troubled(..) | State::Unforwarding(_), complete: true, .. }));
    let filtered = facts.packet_filters.values().all(|filter| filter.not_ready().is_none());
    matches!(lease, Some(LeaseState::Held(_))) && done && filtered && facts.blocked.is_none() && facts.subnet_file.is_none()
}

/// Waits for a change; for ever where there is nothing to change any more.
pub(super) async fn changed<T>(receiver: Option<&mut watch::Receiver<T>>) {
    let gone = match receiver {
        Some(receiver) => receiver.changed().await.is_err(),
        None => true,
    };
    if gone {
        std::future::pending::<()>().await;
    }
}

fn readiness(facts: &Facts, lease: Option<&LeaseState>, standing: Option<&Standing>, plugin_forwards: bool) -> Readiness {
    if facts.stuck {
        return Readiness::NotReady("the data plane does not answer".to_owned());
    }
    let what_is_known_is_there = matches!(standing, Some(Standing { state: State::Waiting | State::InStep | State::Converging(_), .. }));
    let filtered = facts.packet_filters.values().find_map(packet_filter::Standing::not_ready);
    let lost = matches!(lease, Some(LeaseState::Lost { .. }));
    if facts.stale.is_some()
        && what_is_known_is_there
        && !lost
        && facts.blocked.is_none()
        && facts.subnet_file.is_none()
        && filtered.is_none()
    {
        return Readiness::ReadyBut(STALE.to_owned());
    }
    let in_step = standing.is_some_and(|standing| match standing.state {
        State::InStep => true,
        // All peers were named before, and the store has nothing to say: what is known is in the kernel.
        State::Waiting => facts.known,
        State::Unforwarding(_) => plugin_forwards,
        State::Converging(_) | State::Troubled(..) => false,
    });
    let reason = match (facts.blocked.as_ref(), lease, standing) {
        (Some(reason), ..) => reason.clone(),
        (None, Some(LeaseState::Claiming { reason }), _) if reason.is_empty() => "claiming a lease".to_owned(),
        (None, Some(LeaseState::Claiming { reason }), _) => format!("no lease: {reason}"),
        (None, Some(LeaseState::Lost { reason }), _) => format!("lease lost: {reason}"),
        (None, Some(LeaseState::Held(_)), _) if in_step => match facts.subnet_file.clone().or(filtered) {
            Some(error) => error,
            None => match standing {
                Some(Standing { state: State::Unforwarding(reason), .. }) => return Readiness::ReadyBut(reason.clone()),
                _ => return Readiness::Ready,
            },
        },
        (None, Some(LeaseState::Held(_)), Some(Standing { state, .. })) => state.to_string(),
        (None, ..) => "starting".to_owned(),
    };
    Readiness::NotReady(reason)
}

/// What a start from the last state means, for people.
const STALE: &str = "going on from the last state on disk: the store has not answered since the start";

/// The same, with its age.
pub(super) fn stale(written: u64) -> String {
    format!("{STALE}; it is {} s old", unix_now().as_secs().saturating_sub(written))
}

pub(super) fn unix_now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn line(readiness: &Readiness, key: Option<LeaseKey>, standing: Option<&Standing>, store: &Health) -> String {
    let ready = match readiness {
        Readiness::Ready => "ready".to_owned(),
        Readiness::ReadyBut(matter) => format!("ready, {matter}"),
        Readiness::NotReady(reason) => format!("not ready: {reason}"),
    };
    let key = key.map_or_else(String::new, |key| format!(", {key}"));
    let peers = standing.map_or_else(String::new, |standing| format!(", {} peers", standing.peers));
    let store = if let Health::Down(reason) = store { format!(", store down: {reason}") } else { String::new() };
    format!("{ready}{key}{peers}{store}")
}

fn lease_end(lease: Option<&LeaseState>) -> LeaseEnd {
    match lease {
        Some(LeaseState::Held(Held { expires: Some(at), .. })) => LeaseEnd::At(at.into_std()),
        Some(LeaseState::Held(Held { expires: None, .. })) => LeaseEnd::Never,
        Some(LeaseState::Claiming { .. } | LeaseState::Lost { .. }) | None => LeaseEnd::None,
    }
}
