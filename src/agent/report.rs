//! The report for `loden status`: what the session, the store and the data planes say of themselves, put together.

use std::collections::BTreeSet;
use std::time::Instant;

use lease::LeaseKey;
use lease::claim::How;
use lease::keeper::{Held, LeaseState};
use lease::store::Health;
use tokio::sync::{mpsc, watch};

use super::board::{Board, Facts};
use super::reporter::{stale, unix_now};
use super::view::View;
use crate::cli::StoreOptions;
use crate::http::Readiness;
use crate::status::{self, Asked, Rejected, Report};

/// Answers `loden status`.
pub(super) async fn answer(
    mut asked: mpsc::Receiver<Asked>,
    board: Board,
    options: StoreOptions,
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
                    let store = store(&health.borrow().clone(), store_since, &options);
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

fn store(health: &Health, since: Instant, options: &StoreOptions) -> status::Store {
    let (state, error) = match health {
        Health::Unknown => (status::StoreState::Unknown, None),
        Health::Up => (status::StoreState::Up, None),
        Health::Down(reason) => (status::StoreState::Down, Some(reason.clone())),
    };
    let (kind, node, endpoints) = match options {
        StoreOptions::Etcd(etcd) => (status::StoreKind::Etcd, None, etcd.endpoints.iter().map(ToString::to_string).collect()),
        StoreOptions::Kube(kube) => (status::StoreKind::Kubernetes, Some(kube.node()), vec![kube.endpoint()]),
    };
    status::Store { kind, node, state, since: since.elapsed().as_secs(), error, endpoints }
}

async fn report(board: &Board, store: status::Store, started: Instant, readiness: &Readiness) -> Report {
    let facts = board.look().borrow().clone();
    let (views, idle) = match &facts.planes {
        Some(planes) => (planes.views().await, planes.is_empty()),
        None => (Vec::new(), false),
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
        packet_filters: Vec::new(),
        config_changes: facts.config_changes,
        warnings: facts.warnings,
    };
    for standing in facts.packet_filters.into_values() {
        report.warnings.extend(standing.notes);
        report.packet_filters.push(standing.filter);
    }
    if idle {
        report.data_plane.state = status::DataPlaneState::InStep;
    }
    for (nth, view) in views.into_iter().enumerate() {
        add(&mut report, view, nth == 0);
    }
    report.heals.sort_by_key(|heal| std::cmp::Reverse(heal.at_unix_ms));
    if let Some(LeaseState::Held(held)) = facts.lease.as_ref().map(|lease| lease.borrow().clone()) {
        report.warnings.extend(held.warnings.iter().map(ToString::to_string));
    }
    report.warnings.extend(facts.stale.map(stale));
    report.warnings.extend(facts.subnet_file);
    report.warnings.extend(facts.cni);
    report.warnings.extend(facts.config);
    report
}

/// Adds what one family's data plane says of itself.
fn add(report: &mut Report, view: View, first: bool) {
    let View { vtep, data_plane, peers, rejected, strays, heals, fights, held, filter, warnings } = view;
    report.vteps.extend(vtep);
    report.data_plane = if first { data_plane } else { both(report.data_plane.clone(), data_plane) };
    report.peers.extend(peers);
    // A record that cannot be read is bad for both families.
    let said: BTreeSet<Rejected> = if first { BTreeSet::new() } else { report.rejected.iter().cloned().collect() };
    report.rejected.extend(rejected.into_iter().filter(|rejected| !said.contains(rejected)));
    report.stray_keys = report.stray_keys.max(strays);
    report.heals.extend(heals);
    report.fights.extend(fights);
    report.held_removals = merged(report.held_removals.take(), held, held_by_both);
    report.filter = merged(report.filter.take(), filter, both_filters);
    report.warnings.extend(warnings);
}

/// What both say, or the one that says something.
fn merged<T>(a: Option<T>, b: Option<T>, both: impl FnOnce(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(both(a, b)),
        (a, b) => a.or(b),
    }
}

/// Mostly the same hosts.
fn held_by_both(a: status::Held, b: status::Held) -> status::Held {
    status::Held { peers: a.peers.max(b.peers), passes_in: a.passes_in.max(b.passes_in), reason: a.reason }
}

fn both_filters(a: status::Filter, b: status::Filter) -> status::Filter {
    status::Filter {
        table: format!("{}, {}", a.table, b.table),
        in_step: a.in_step && b.in_step,
        trouble: a.trouble.or(b.trouble),
        elements: a.elements + b.elements,
        wanted: a.wanted + b.wanted,
        dropped: a.dropped.zip(b.dropped).map(|(a, b)| a + b),
    }
}

fn both(a: status::DataPlane, b: status::DataPlane) -> status::DataPlane {
    use status::DataPlaneState::{Blocked, Converging, InStep};
    let state = match (a.state, b.state) {
        (Blocked, _) | (_, Blocked) => Blocked,
        (Converging, _) | (_, Converging) => Converging,
        (InStep, InStep) => InStep,
    };
    let sum = |a: status::Count, b: status::Count| status::Count {
        neighbours: a.neighbours + b.neighbours,
        fdb: a.fdb + b.fdb,
        routes: a.routes + b.routes,
    };
    status::DataPlane {
        state,
        reason: a.reason.or(b.reason),
        desired: sum(a.desired, b.desired),
        observed: sum(a.observed, b.observed),
        pending: a.pending + b.pending,
        retrying: a.retrying + b.retrying,
    }
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
        How::Assigned => "the Node's podCIDR",
    }
}
