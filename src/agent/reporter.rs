//! Those who tell: readiness, systemd, metrics, and the report for `loden status`.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use lease::LeaseKey;
use lease::claim::How;
use lease::keeper::{Held, LeaseState};
use lease::store::Health;
use overlay::State;
use tokio::sync::{mpsc, watch};

use super::board::{Board, Facts};
use super::dataplane::Standing;
use crate::cli::EtcdOptions;
use crate::http::Readiness;
use crate::metrics::{LeaseEnd, Metrics};
use crate::status::{self, Asked, Report};
use crate::systemd;

/// Keeps readiness, systemd's status line and the metrics current. Ready means: the lease is held, and the kernel holds
/// what it should. That the store does not answer is no reason by itself: nothing is lost by it.
pub(super) async fn watch_readiness(
    board: Board,
    mut health: watch::Receiver<Health>,
    metrics: Arc<Metrics>,
    say: watch::Sender<Readiness>,
) {
    let mut facts = board.look();
    let mut told_ready = false;
    let mut last_line = String::new();
    loop {
        let now = facts.borrow_and_update().clone();
        let mut lease = now.lease.clone();
        let mut standing = now.dataplane.as_ref().map(|dataplane| dataplane.standing.clone());
        let store = health.borrow_and_update().clone();
        metrics.set_store_up(store == Health::Up);
        metrics.set_stale(now.stale.is_some());
        let lease_now = lease.as_mut().map(|lease| lease.borrow_and_update().clone());
        metrics.set_lease_end(lease_end(lease_now.as_ref()));
        let standing_now = standing.as_mut().and_then(|standing| standing.borrow_and_update().clone());
        let readiness = readiness(&now, lease_now.as_ref(), standing_now.as_ref());
        let line = line(&readiness, now.key, standing_now.as_ref(), &store);
        if line != last_line {
            systemd::status(&line);
            last_line = line;
        }
        if readiness.is_ready() && !told_ready {
            systemd::ready();
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

/// Waits for a change; for ever where there is nothing to change any more.
async fn changed<T>(receiver: Option<&mut watch::Receiver<T>>) {
    let gone = match receiver {
        Some(receiver) => receiver.changed().await.is_err(),
        None => true,
    };
    if gone {
        std::future::pending::<()>().await;
    }
}

fn readiness(facts: &Facts, lease: Option<&LeaseState>, standing: Option<&Standing>) -> Readiness {
    if facts.stuck {
        return Readiness::NotReady("the data plane does not answer".to_owned());
    }
    let what_is_known_is_there = matches!(standing, Some(Standing { state: State::Waiting | State::InStep | State::Converging(_), .. }));
    let lost = matches!(lease, Some(LeaseState::Lost { .. }));
    if facts.stale.is_some() && what_is_known_is_there && !lost && facts.blocked.is_none() && facts.subnet_file.is_none() {
        return Readiness::ReadyBut(STALE.to_owned());
    }
    let in_step = standing.is_some_and(|standing| match standing.state {
        State::InStep => true,
        // All peers were named before, and the store has nothing to say: what is known is in the kernel.
        State::Waiting => facts.known,
        State::Converging(_) | State::Troubled(..) => false,
    });
    let reason = match (facts.blocked.as_ref(), lease, standing) {
        (Some(reason), ..) => reason.clone(),
        (None, Some(LeaseState::Claiming { reason }), _) if reason.is_empty() => "claiming a lease".to_owned(),
        (None, Some(LeaseState::Claiming { reason }), _) => format!("no lease: {reason}"),
        (None, Some(LeaseState::Lost { reason }), _) => format!("lease lost: {reason}"),
        (None, Some(LeaseState::Held(_)), _) if in_step => match &facts.subnet_file {
            None => return Readiness::Ready,
            Some(error) => error.clone(),
        },
        (None, Some(LeaseState::Held(_)), Some(Standing { state, .. })) => state.to_string(),
        (None, ..) => "starting".to_owned(),
    };
    Readiness::NotReady(reason)
}

/// What a start from the last state means, for people.
const STALE: &str = "going on from the last state on disk: the store has not answered since the start";

/// The same, with its age.
fn stale(written: u64) -> String {
    format!("{STALE}; it is {} s old", unix_now().as_secs().saturating_sub(written))
}

fn unix_now() -> Duration {
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

/// Answers `loden status`.
pub(super) async fn answer(
    mut asked: mpsc::Receiver<Asked>,
    board: Board,
    etcd: EtcdOptions,
    mut health: watch::Receiver<Health>,
    readiness: watch::Receiver<Readiness>,
) {
    let started = Instant::now();
    let mut store_since = started;
    loop {
        tokio::select! {
            changed = health.changed() => if changed.is_ok() { store_since = Instant::now() } else { return },
            asker = asked.recv() => match asker {
                Some(asker) => {
                    let store = store(&health.borrow().clone(), store_since, &etcd);
                    let readiness = readiness.borrow().clone();
                    let report = report(&board, store, started, &readiness).await;
                    // Whoever asked may have gone away.
                    let _ = asker.send(Box::new(report));
                }
                None => return,
            },
        }
    }
}

fn store(health: &Health, since: Instant, etcd: &EtcdOptions) -> status::Store {
    let (state, error) = match health {
        Health::Unknown => (status::StoreState::Unknown, None),
        Health::Up => (status::StoreState::Up, None),
        Health::Down(reason) => (status::StoreState::Down, Some(reason.clone())),
    };
    let endpoints = etcd.endpoints.iter().map(ToString::to_string).collect();
    status::Store { state, since: since.elapsed().as_secs(), error, endpoints }
}

async fn report(board: &Board, store: status::Store, started: Instant, readiness: &Readiness) -> Report {
    let facts = board.look().borrow().clone();
    let view = match &facts.dataplane {
        Some(dataplane) => dataplane.view().await,
        None => None,
    };
    let lease = lease(&facts);
    let not_ready_because = match readiness {
        Readiness::Ready | Readiness::ReadyBut(_) => None,
        Readiness::NotReady(reason) => Some(reason.clone()),
    };
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime: started.elapsed().as_secs(),
        now_unix_ms: u64::try_from(unix_now().as_millis()).unwrap_or(u64::MAX),
        ready: not_ready_because.is_none(),
        not_ready_because,
        lease,
        vteps: Vec::new(),
        underlay: facts.underlay,
        store,
        data_plane: status::DataPlane::default(),
        peers: Vec::new(),
        rejected: Vec::new(),
        stray_keys: 0,
        heals: Vec::new(),
        fights: Vec::new(),
        held_removals: None,
        stale: facts.stale.is_some(),
        filter: None,
        config_changes: facts.config_changes,
        warnings: facts.warnings,
    };
    if let Some(view) = view {
        let super::view::View { vtep, data_plane, peers, rejected, strays, heals, fights, held, filter, warnings } = *view;
        report.vteps.extend(vtep);
        report.data_plane = data_plane;
        report.peers = peers;
        report.rejected = rejected;
        report.stray_keys = strays;
        report.heals = heals;
        report.fights = fights;
        report.held_removals = held;
        report.filter = filter;
        report.warnings.extend(warnings);
    }
    if let Some(LeaseState::Held(held)) = facts.lease.as_ref().map(|lease| lease.borrow().clone()) {
        report.warnings.extend(held.warnings.iter().map(ToString::to_string));
    }
    report.warnings.extend(facts.stale.map(stale));
    report.warnings.extend(facts.subnet_file);
    report.warnings.extend(facts.config);
    report
}

fn lease(facts: &Facts) -> status::Lease {
    let state = facts.lease.as_ref().map(|lease| lease.borrow().clone());
    let (state, key, how, reason, expires_in) = match state {
        Some(LeaseState::Held(Held { entry, how, warnings: _, expires })) => {
            let left = expires.map(|at| at.saturating_duration_since(tokio::time::Instant::now()).as_secs());
            (status::LeaseState::Held, Some(entry.key), Some(how_text(how).to_owned()), None, left)
        }
        Some(LeaseState::Lost { reason }) => (status::LeaseState::Lost, facts.key, None, Some(reason), None),
        Some(LeaseState::Claiming { reason }) => (status::LeaseState::Claiming, facts.key, None, Some(reason), None),
        None => (status::LeaseState::Claiming, facts.key, None, facts.blocked.clone(), None),
    };
    status::Lease {
        state,
        subnet: key.and_then(LeaseKey::v4),
        ipv6_subnet: key.and_then(LeaseKey::v6),
        how,
        reason,
        expires_in,
        owner: facts.owner,
    }
}

fn how_text(how: How) -> &'static str {
    match how {
        How::Own => "own lease",
        How::FromFlanneld => "flanneld's lease for this address",
        How::Reserved => "reservation",
        How::Remembered => "subnet file",
        How::Fresh => "free subnet",
    }
}
