//! What a stand-in API server holds: every version of every Node, as etcd keeps them. No waiting, no sockets.

#![expect(clippy::indexing_slicing, reason = "serde_json's indexing gives null for what is not there, and every Node is an object")]

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use serde_json::{Value, json};

use super::patch::{Form, merge};
use super::refusal::Refusal;

/// Where revisions begin: real ones are never small.
const FIRST_REVISION: u64 = 1_000;

#[derive(Debug)]
pub(super) struct World {
    pub(super) revision: u64,
    /// Versions before this one are forgotten.
    compacted: u64,
    nodes: BTreeMap<String, Vec<Version>>,
    log: BTreeMap<u64, Change>,
    /// `NAMESPACE/NAME` to the Node that it runs on.
    pub(super) pods: BTreeMap<String, String>,
    /// Every Event object that was put.
    pub(super) events: Vec<Value>,
    made: u64,
}

/// A Node since a revision; none where it was deleted then.
#[derive(Debug)]
struct Version {
    since: u64,
    object: Option<Arc<str>>,
}

/// What a watch says of one revision.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) verb: &'static str,
    pub(super) object: Arc<str>,
}

/// Some Nodes at one revision.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) revision: u64,
    pub(super) nodes: Vec<Arc<str>>,
    /// The name after which to go on.
    pub(super) next: Option<String>,
}

impl Default for World {
    fn default() -> Self {
        let (nodes, log, pods, events) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { revision: FIRST_REVISION, compacted: FIRST_REVISION, nodes, log, pods, events, made: 0 }
    }
}

impl World {
    pub(super) fn node(&self, name: &str) -> Result<Value, Refusal> {
        let text = self.nodes.get(name).and_then(|versions| versions.last()?.object.as_ref());
        text.map(|text| serde_json::from_str(text).unwrap_or_default()).ok_or_else(|| Refusal::not_found("nodes", name))
    }

    /// Puts a Node that is not there, with a uid, and with a time of creation a second after the one before unless it has one.
    pub(super) fn create(&mut self, mut node: Value) -> Result<Value, Refusal> {
        let name = node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if name.is_empty() || !(node["spec"].is_object() || node["spec"].is_null()) {
            return Err(Refusal::invalid("metadata.name: Required value"));
        }
        if self.node(&name).is_ok() {
            return Err(Refusal::already_exists("nodes", &name));
        }
        self.made += 1;
        let metadata = &mut node["metadata"];
        metadata["uid"] = json!(format!("{:08x}-0000-4000-8000-{:012x}", self.made.wrapping_mul(0x9e37_79b9) & 0xffff_ffff, self.made));
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = json!(time(self.made));
        }
        // As the API server's own: the older field repeats the first of the newer.
        if let Some(first) = node["spec"]["podCIDRs"].get(0).cloned() {
            node["spec"]["podCIDR"] = first;
        }
        Ok(self.write(&name, node, "ADDED"))
    }

    /// Merges a patch into a Node, or into its status alone; one that changes nothing makes no version.
    pub(super) fn patch(&mut self, name: &str, patch: &Value, form: Form, status_alone: bool) -> Result<Value, Refusal> {
        let before = self.node(name)?;
        let wanted = &patch["metadata"]["resourceVersion"];
        if !wanted.is_null() && *wanted != before["metadata"]["resourceVersion"] {
            return Err(Refusal::conflict(name));
        }
        let mut after = before.clone();
        merge(&mut after, patch, form);
        if !after["metadata"].is_object() {
            return Err(Refusal::invalid("metadata: it is no object"));
        }
        // What the server itself keeps: what is not the status' of a Node but for its metadata, and who it is.
        let kept: &[&str] = if status_alone { &["spec"] } else { &["status"] };
        for field in kept {
            after[field] = before[field].clone();
        }
        for field in ["name", "uid", "creationTimestamp", "resourceVersion"] {
            after["metadata"][field] = before["metadata"][field].clone();
        }
        if after == before {
            return Ok(before);
        }
        Ok(self.write(name, after, "MODIFIED"))
    }

    pub(super) fn delete(&mut self, name: &str) -> Result<Value, Refusal> {
        let node = self.node(name)?;
        Ok(self.write(name, node, "DELETED"))
    }

    fn write(&mut self, name: &str, mut node: Value, verb: &'static str) -> Value {
        self.revision += 1;
        node["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let object: Arc<str> = node.to_string().into();
        let version = Version { since: self.revision, object: (verb != "DELETED").then(|| Arc::clone(&object)) };
        self.nodes.entry(name.to_owned()).or_default().push(version);
        self.log.insert(self.revision, Change { verb, object });
        node
    }

    /// The Nodes after a name, at a revision; `limit` 0 stands for all.
    pub(super) fn page(&self, at: u64, after: Option<&str>, limit: usize) -> Result<Page, Refusal> {
        if at < self.compacted {
            return Err(Refusal::gone("The provided continue parameter is too old"));
        }
        let from = after.map_or(Unbounded, Excluded);
        let mut rest = self.nodes.range::<str, _>((from, Unbounded)).filter_map(|(name, versions)| {
            let then = versions.iter().rfind(|version| version.since <= at)?;
            Some((name, then.object.as_ref()?))
        });
        let limit = if limit == 0 { usize::MAX } else { limit };
        let some: Vec<_> = rest.by_ref().take(limit).collect();
        let next = rest.next().and(some.last()).map(|(name, _)| (*name).clone());
        Ok(Page { revision: at, nodes: some.into_iter().map(|(_, object)| Arc::clone(object)).collect(), next })
    }

    /// What has changed since a revision, at most so many changes, each with its revision.
    pub(super) fn changes(&self, since: u64, limit: usize) -> Result<Vec<(u64, Change)>, Refusal> {
        if since < self.compacted {
            return Err(Refusal::gone(&format!("too old resource version: {since} ({})", self.compacted)));
        }
        let later = self.log.range((Excluded(since), Unbounded));
        Ok(later.take(limit).map(|(revision, change)| (*revision, change.clone())).collect())
    }

    /// Forgets all that came after a revision.
    pub(super) fn go_back(&mut self, revision: u64) {
        self.revision = revision;
        self.log.retain(|then, _| *then <= revision);
        for versions in self.nodes.values_mut() {
            versions.retain(|version| version.since <= revision);
        }
        self.nodes.retain(|_, versions| !versions.is_empty());
    }

    /// Forgets all versions but the last: a watch or a list that is behind is told that it is too old.
    pub(super) fn compact(&mut self) {
        self.revision += 1;
        self.compacted = self.revision;
        self.log.clear();
        self.nodes.retain(|_, versions| {
            let last = versions.pop().filter(|last| last.object.is_some());
            versions.clear();
            versions.extend(last);
            !versions.is_empty()
        });
    }
}

/// So many seconds after the year began, as the API writes it; within January.
pub(super) fn time(seconds: u64) -> String {
    let (day, hour, minute, second) = (1 + seconds / 86_400 % 31, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("2026-01-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
