//! Writes to our own Node: a patch that is guarded by what was seen, and tried again while only others' fields change.

use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::KubeStore;
use super::annotations::Said;
use super::ask::Ask;
use super::failure::Failure;
use super::node::Node;
use super::own::says_the_same;
use crate::rng::Rng;
use crate::store::{StoreError, WriteError};
use crate::{Entry, LeaseKey, LeaseRecord};

/// How often a write is tried whose Node was written by others in between: its kubelet and the controllers write a few
/// times a minute.
const ATTEMPTS: u32 = 16;

/// The longest pause before another attempt.
const PAUSE: Duration = Duration::from_millis(50);

/// What to do with the Node as it stands: nothing more, or to put these annotations.
type Step<T> = ControlFlow<Result<T, WriteError>, Value>;

impl KubeStore {
    /// Our own Node; none where it is not registered.
    pub(super) async fn own_node(&self) -> Result<Option<Node>, Failure> {
        let name = self.own.name(&self.connection).await?;
        match self.connection.call(Ask::Node(name)).await {
            Ok(node) => Ok(Some(node)),
            Err(Failure::Missing(_)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The lease that a Node has, if it is one.
    pub(super) fn lease_of(&self, node: &Node) -> Option<Entry> {
        match self.own.read(node) {
            Said::Lease(entry) => Some(entry),
            Said::Nothing | Said::Stray(_) => None,
        }
    }

    pub(super) async fn put(&self, key: LeaseKey, record: &LeaseRecord) -> Result<Entry, WriteError> {
        let decide = |node: Option<&Node>, there: Option<Entry>, tried| {
            let there = match (self.fits(node, key), there) {
                (Err(error), _) => return Step::Break(Err(error.into())),
                (Ok(node), None) => return Step::Continue(self.own.names.patch(node, record)),
                (Ok(_), Some(there)) => there,
            };
            // An attempt of ours before this one, whose answer was lost.
            if tried && is_wanted(&there, record) { Step::Break(Ok(Some(there))) } else { conflict(Some(there)) }
        };
        self.guarded(decide).await?.ok_or_else(|| not_kept().into())
    }

    pub(super) async fn put_over(&self, seen: &Entry, record: &LeaseRecord) -> Result<Entry, WriteError> {
        let decide = |node: Option<&Node>, there: Option<Entry>, _| match (node, there.filter(|there| there.key == seen.key)) {
            (Some(node), Some(there)) if says_the_same(&there, seen) => Step::Continue(self.own.names.patch(node, record)),
            (_, Some(there)) if there.created == seen.created && is_wanted(&there, record) => Step::Break(Ok(Some(there))),
            (_, there) => conflict(there),
        };
        self.guarded(decide).await?.ok_or_else(|| not_kept().into())
    }

    pub(super) async fn remove(&self, seen: &Entry) -> Result<(), WriteError> {
        let decide = |_: Option<&Node>, there: Option<Entry>, _| match there.filter(|there| there.key == seen.key) {
            None => Step::Break(Ok(None)),
            Some(there) if says_the_same(&there, seen) => Step::Continue(self.own.names.removal()),
            there => conflict(there),
        };
        self.guarded(decide).await.map(drop)
    }

    /// Decides by the Node as it stands, and by whether a patch was tried before; then patches it if it still stands so.
    /// Returns the lease that it has in the end.
    async fn guarded(
        &self,
        decide: impl Fn(Option<&Node>, Option<Entry>, bool) -> Step<Option<Entry>>,
    ) -> Result<Option<Entry>, WriteError> {
        for attempt in 0..ATTEMPTS {
            let node = self.own_node().await.map_err(StoreError::from)?;
            let there = node.as_ref().and_then(|node| self.lease_of(node));
            let annotations = match decide(node.as_ref(), there, attempt > 0) {
                Step::Break(result) => return result,
                Step::Continue(annotations) => annotations,
            };
            let version = node.as_ref().map(|node| node.metadata.resource_version.as_str());
            let patch = json!({ "metadata": { "resourceVersion": version, "annotations": annotations } });
            match self.patch_own(&patch).await {
                Ok(node) => return Ok(self.lease_of(&node)),
                Err(Failure::Conflict | Failure::Missing(_)) => sleep(Rng::from_entropy().part_of(PAUSE)).await,
                Err(failure) => return Err(StoreError::from(failure).into()),
            }
        }
        Err(StoreError::from(Failure::Conflict).into())
    }

    /// Patches our own Node's status, which is what we may, and its metadata with it.
    pub(super) async fn patch_own(&self, patch: &Value) -> Result<Node, Failure> {
        let node = self.own.name(&self.connection).await?;
        self.connection.call(Ask::PatchStatus { node, patch }).await
    }

    /// Our own Node, if it has these subnets.
    fn fits<'a>(&self, node: Option<&'a Node>, key: LeaseKey) -> Result<&'a Node, StoreError> {
        let node = node.ok_or_else(|| StoreError::Denied("our Node is not registered".to_owned()))?;
        let name = node.name();
        match node.key() {
            Ok(assigned) if assigned == key => Ok(node),
            Ok(assigned) => Err(StoreError::Denied(format!("Node {name} has the subnets {assigned} and not {key}"))),
            Err(error) => Err(StoreError::Denied(format!("Node {name}: {error}"))),
        }
    }
}

/// A patch that was taken, of which nothing is there.
fn not_kept() -> StoreError {
    StoreError::Denied("the API server took our annotations and has not kept them: does an admission webhook remove them?".to_owned())
}

fn conflict<T>(there: Option<Entry>) -> Step<T> {
    Step::Break(Err(WriteError::Conflict(there.map(Box::new))))
}

/// Whether it says what was to be written, of which a Node carries neither owner nor boot.
fn is_wanted(entry: &Entry, record: &LeaseRecord) -> bool {
    let wanted = LeaseRecord { owner: None, boot: None, ..record.clone() };
    entry.record.as_ref() == Ok(&wanted)
}
