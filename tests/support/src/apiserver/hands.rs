//! What a person, a kubelet and a test do to a stand-in API server, without HTTP.

#![expect(clippy::indexing_slicing, reason = "serde_json's indexing gives null for what is not there")]

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use super::ApiServer;
use super::patch::Form;
use super::refusal::Refusal;
use super::world::time;

fn said(refusal: Refusal) -> anyhow::Error {
    anyhow!("{}", refusal.status())
}

/// The cluster.
impl ApiServer {
    /// Registers a Node with these podCIDRs; each Node is a second younger than the one before.
    ///
    /// # Errors
    /// When it is there already.
    pub fn put_node(&self, name: &str, pod_cidrs: &[&str]) -> Result<()> {
        let spec = if pod_cidrs.is_empty() { json!({}) } else { json!({ "podCIDRs": pod_cidrs }) };
        self.put_object(json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "name": name }, "spec": spec, "status": {} }))
    }

    /// Registers a Node that is described in full.
    ///
    /// # Errors
    /// When it is there already, or has no name.
    pub fn put_object(&self, node: Value) -> Result<()> {
        self.shared.change(|world| world.create(node)).map(drop).map_err(said)
    }

    /// A Node as it stands.
    ///
    /// # Errors
    /// When it is not there.
    pub fn node(&self, name: &str) -> Result<Value> {
        self.shared.world().node(name).map_err(said)
    }

    /// One annotation of a Node, by its full name.
    ///
    /// # Errors
    /// When the Node is not there.
    pub fn annotation(&self, name: &str, annotation: &str) -> Result<Option<String>> {
        Ok(self.node(name)?["metadata"]["annotations"][annotation].as_str().map(str::to_owned))
    }

    /// Puts annotations of a Node, and removes those without a value.
    ///
    /// # Errors
    /// When the Node is not there.
    pub fn annotate(&self, name: &str, annotations: &[(&str, Option<&str>)]) -> Result<()> {
        let annotations: serde_json::Map<String, Value> =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        self.patch(name, &json!({ "metadata": { "annotations": annotations } }))
    }

    /// Merges a patch into a Node's spec or metadata, as `kubectl patch --type merge` does.
    ///
    /// # Errors
    /// When the Node is not there.
    pub fn patch(&self, name: &str, patch: &Value) -> Result<()> {
        self.shared.change(|world| world.patch(name, patch, Form::Merge, false)).map(drop).map_err(said)
    }

    /// Changes a Node's status and nothing else, as its kubelet does from time to time.
    ///
    /// # Errors
    /// When the Node is not there.
    pub fn heartbeat(&self, name: &str) -> Result<()> {
        let beat = time(self.shared.world().revision);
        let patch = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True", "lastHeartbeatTime": beat }] } });
        self.shared.change(|world| world.patch(name, &patch, Form::Strategic, true)).map(drop).map_err(said)
    }

    /// Puts a condition of a Node, as a cloud's controller does.
    ///
    /// # Errors
    /// When the Node is not there.
    pub fn set_condition(&self, name: &str, condition: &Value) -> Result<()> {
        let patch = json!({ "status": { "conditions": [condition] } });
        self.shared.change(|world| world.patch(name, &patch, Form::Strategic, true)).map(drop).map_err(said)
    }

    /// Deletes a Node.
    ///
    /// # Errors
    /// When it is not there.
    pub fn delete_node(&self, name: &str) -> Result<()> {
        self.shared.change(|world| world.delete(name)).map(drop).map_err(said)
    }

    /// Says that a pod runs on a Node.
    pub fn put_pod(&self, namespace: &str, name: &str, node: &str) {
        self.shared.change(|world| world.pods.insert(format!("{namespace}/{name}"), node.to_owned()));
    }

    /// The Event objects that were put so far.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.shared.world().events.clone()
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.shared.world().revision
    }
}

/// What can go wrong.
impl ApiServer {
    /// Forgets the history: watches and lists that are behind are told that they are too old, and all watches end.
    pub fn compact(&self) {
        self.shared.change(super::world::World::compact);
        self.close_watches();
    }

    /// Is again as it was at this revision, as after a restore from a copy. Watches stay, and are silent until it has caught up.
    pub fn go_back(&self, revision: u64) {
        self.shared.change(|world| world.go_back(revision));
    }

    /// Ends every watch.
    pub fn close_watches(&self) {
        self.shared.misbehave(|faults| faults.closed += 1);
    }

    /// Has every watch say where it is, if it was asked to.
    pub fn bookmark(&self) {
        self.shared.misbehave(|faults| faults.bookmarks += 1);
    }

    /// Takes connections and answers nothing, or answers again.
    pub fn hang(&self, hang: bool) {
        self.shared.misbehave(|faults| faults.hang = hang);
    }

    /// Wants this bearer token of everybody, or none any more.
    pub fn want_token(&self, token: Option<&str>) {
        self.shared.misbehave(|faults| faults.token = token.map(str::to_owned));
    }

    /// Forbids a verb on a resource, such as `patch` on `nodes/status`, to everybody.
    pub fn forbid(&self, verb: &str, resource: &str) {
        self.shared.misbehave(|faults| faults.forbidden.push((verb.to_owned(), resource.to_owned())));
    }

    /// Forbids nothing any more.
    pub fn forbid_nothing(&self) {
        self.shared.misbehave(|faults| faults.forbidden.clear());
    }

    /// Answers the next requests with these codes.
    pub fn fail_next(&self, codes: &[u16]) {
        self.shared.misbehave(|faults| faults.codes.extend(codes));
    }

    /// Cuts a list's page off in the middle, after so many whole ones.
    pub fn cut_page(&self, after: usize) {
        self.shared.misbehave(|faults| faults.cut_after = Some(after));
    }

    /// Does what the next write wants, and loses the answer.
    pub fn lose_next_reply(&self) {
        self.shared.misbehave(|faults| faults.lose_reply = true);
    }
}

/// What it has seen.
impl ApiServer {
    /// Every request since this was last asked: `GET /api/v1/nodes/n1`, `WATCH /api/v1/nodes`.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many bytes of answers were sent, headers aside.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }
}
