//! What the Node is told besides its annotations: that its pods have a network, and, as Events, what an operator should see.
//!
//! Nothing waits for either: a store that refuses them is told of once.

use std::collections::BTreeSet;
use std::time::Duration;

use lease::keeper::LeaseState;
use lease::store::kube::{EventKind, KubeStore, NodeEvent};
use lease::store::{Health, StoreError};
use lease::{LeaseStore, Rng};
use tokio::sync::watch;
use tokio::time::sleep;

use super::board::{Board, Facts};
use super::dataplane::Standing;
use super::reporter::changed;
use super::view::View;
use crate::http::Readiness;

/// Between two attempts to set the condition: it keeps pods away while it is wrong.
const CONDITION_PAUSE: Duration = Duration::from_secs(2);

/// The same where the store refuses it: a person has to act.
const DENIED_PAUSE: Duration = Duration::from_secs(60);

/// After a change: until what belongs together has come together, and what passes by itself, as a start does, is over.
const SETTLE: Duration = Duration::from_secs(3);

/// Between two looks at what changes: there may be thousands of Nodes that see the same.
const PAUSE: Duration = Duration::from_secs(10);

/// So many Events are put at a time; `loden status` has everything.
const MOST: usize = 8;

/// Says that pods here have a network, once they may start, and again whenever we become ready or the store comes back.
pub(super) async fn keep_available(store: KubeStore, mut serving: watch::Receiver<bool>, mut readiness: watch::Receiver<Readiness>) {
    let mut health = store.health();
    let mut said = None;
    if serving.wait_for(|serving| *serving).await.is_err() {
        return;
    }
    readiness.mark_unchanged();
    loop {
        let again = match store.set_network_available().await {
            Ok(()) => {
                said = None;
                None
            }
            Err(error) => {
                let pause = if matches!(error, StoreError::Denied(_)) { DENIED_PAUSE } else { CONDITION_PAUSE };
                // Of a store that does not answer, the store says so itself.
                if said.as_ref() != Some(&error) && !matches!(error, StoreError::Unavailable(_)) {
                    tracing::warn!(%error, retry_in = ?pause, "the Node's condition NetworkUnavailable cannot be set");
                }
                said = Some(error);
                Some(pause)
            }
        };
        tokio::select! {
            () = becomes(&mut readiness, Readiness::is_ready) => {}
            () = becomes(&mut health, |health| *health == Health::Up) => {}
            () = sleep(again.unwrap_or_default()), if again.is_some() => {}
        }
    }
}

/// Waits for a change after which it is so.
pub(super) async fn becomes<T>(receiver: &mut watch::Receiver<T>, is_so: impl Fn(&T) -> bool) {
    while receiver.changed().await.is_ok() {
        if is_so(&receiver.borrow_and_update()) {
            return;
        }
    }
    std::future::pending().await
}

/// Puts an Event for each thing that an operator should see, once for as long as it lasts.
pub(super) async fn note(store: KubeStore, board: Board) {
    let (mut facts, mut health) = (board.look(), store.health());
    let mut rng = Rng::from_entropy();
    let (mut told, mut denied) = (BTreeSet::new(), false);
    loop {
        sleep(SETTLE).await;
        let now = facts.borrow_and_update().clone();
        let mut lease = now.lease.clone();
        let mut standing = now.planes.as_ref().map(|planes| planes.standing.clone());
        let state = lease.as_mut().map(|lease| lease.borrow_and_update().clone());
        let complaints = standing.as_mut().and_then(|standing| standing.borrow_and_update().as_ref().map(|standing| standing.complaints));
        let mut matters = of_facts(&now, state.as_ref());
        if let Some(planes) = now.planes.as_ref().filter(|_| complaints.is_some_and(|complaints| complaints > 0)) {
            matters.extend(planes.views().await.iter().flat_map(of_view));
        }
        told.retain(|matter| matters.contains(matter));
        let mut fresh: Vec<Matter> = matters.difference(&told).cloned().collect();
        let more = fresh.len() > MOST;
        fresh.truncate(MOST);
        for matter in fresh {
            match store.note(matter.event()).await {
                Ok(()) => drop(told.insert(matter)),
                Err(error @ StoreError::Denied(_)) => {
                    if !denied {
                        tracing::warn!(%error, "no Event can be put: only `loden status` tells what an operator should see");
                    }
                    denied = true;
                    told.insert(matter);
                }
                // It is tried again with what changes next, the store's health at the latest.
                Err(_) => break,
            }
        }
        let gone = tokio::select! {
            changed = facts.changed() => changed.is_err(),
            changed = health.changed() => changed.is_err(),
            () = changed(lease.as_mut()) => false,
            () = sleep(PAUSE), if more => false,
            () = other_complaints(standing.as_mut(), complaints) => {
                sleep(rng.jitter(PAUSE)).await;
                false
            }
        };
        if gone {
            return;
        }
    }
}

/// Something that an operator should see.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Matter {
    reason: &'static str,
    message: String,
}

impl Matter {
    fn event(&self) -> NodeEvent {
        NodeEvent { kind: EventKind::Warning, reason: self.reason, message: self.message.clone() }
    }
}

/// What keeps the whole Node.
fn of_facts(facts: &Facts, lease: Option<&LeaseState>) -> BTreeSet<Matter> {
    let matter = |reason, message: &String| Matter { reason, message: message.clone() };
    let lease = match lease {
        Some(LeaseState::Claiming { reason } | LeaseState::Lost { reason }) if !reason.is_empty() => Some(matter("NoSubnet", reason)),
        Some(LeaseState::Claiming { .. } | LeaseState::Lost { .. } | LeaseState::Held(_)) | None => None,
    };
    let blocked = facts.blocked.as_ref().map(|reason| matter("NetworkBlocked", reason));
    let config = facts.config.as_ref().map(|reason| matter("NetworkConfigNotFollowed", reason));
    let file = facts.subnet_file.as_ref().map(|reason| matter("SubnetFileNotWritten", reason));
    let cni = facts.cni.iter().map(|reason| matter("CniNotInstalled", reason));
    [lease, blocked, config, file].into_iter().flatten().chain(cni).collect()
}

/// What concerns other Nodes, or single entries.
fn of_view(view: &View) -> BTreeSet<Matter> {
    let rejected = view.rejected.iter().map(|rejected| Matter {
        reason: if rejected.duplicate { "DuplicatePodCIDR" } else { "PeerRejected" },
        message: format!("the Node with the podCIDR {} is no peer: {}", rejected.key, rejected.reason),
    });
    let fights = view.fights.iter().map(|fight| Matter {
        reason: "NetworkFight",
        message: format!("{} keeps undoing this: {}", fight.who.as_deref().unwrap_or("somebody"), fight.what),
    });
    rejected.chain(fights).collect()
}

/// Waits until there are more or fewer complaints.
async fn other_complaints(standing: Option<&mut watch::Receiver<Option<Standing>>>, before: Option<usize>) {
    if let Some(standing) = standing {
        let other = standing.wait_for(|now| now.as_ref().map(|now| now.complaints) != before).await.is_ok();
        if other {
            return;
        }
    }
    std::future::pending::<()>().await;
}
