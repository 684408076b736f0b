//! What an operator should see with `kubectl describe node`: Events, each at most once in ten minutes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::KubeStore;
use super::ask::{Ask, EVENTS_NAMESPACE};
use super::condition;
use crate::store::StoreError;

/// How long the same Event is not put again; the next one says how often it would have been.
const QUIET: Duration = Duration::from_secs(600);

/// How many different ones are put in that time. Whatever makes more of them has said enough.
const DIFFERENT: usize = 50;

/// Who says so.
const COMPONENT: &str = "loden";

/// Something to be told about our own Node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeEvent {
    /// Whether a person has to act.
    pub kind: EventKind,
    /// One word in camel case, such as `DuplicatePodCIDR`.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// How much a [`NodeEvent`] matters: Kubernetes knows these two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It is good to know.
    Normal,
    /// A person should look.
    Warning,
}

/// What has been told, when last, and how often it would have been since then.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<HashMap<NodeEvent, (Instant, u32)>>);

impl Told {
    /// How often it has happened, if it is to be told now.
    fn count(&self, event: &NodeEvent, now: Instant) -> Option<u32> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, unsaid)) = told.get_mut(event) {
            *unsaid = unsaid.saturating_add(1);
            if now.duration_since(*last) < QUIET {
                return None;
            }
            *last = now;
            return Some(std::mem::take(unsaid));
        }
        told.retain(|_, (last, _)| now.duration_since(*last) < 2 * QUIET);
        if told.len() >= DIFFERENT {
            return None;
        }
        told.insert(event.clone(), (now, 0));
        Some(1)
    }

    /// It did not come through: it is to be told next time.
    fn forget(&self, event: &NodeEvent) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(event);
    }
}

impl KubeStore {
    pub(super) async fn put_event(&self, event: &NodeEvent) -> Result<(), StoreError> {
        let node = self.own.name(&self.connection).await?;
        let Some(count) = self.told.count(event, Instant::now()) else { return Ok(()) };
        let put = self.connection.call::<IgnoredAny>(Ask::Note(&object(event, node, count))).await;
        put.map(drop).inspect_err(|_| self.told.forget(event)).map_err(Into::into)
    }
}

fn object(NodeEvent { kind, reason, message }: &NodeEvent, node: &str, count: u32) -> Value {
    let now = condition::now();
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        // As client-go names them: what it is about, and a time that is no other's.
        "metadata": { "name": format!("{node}.{:x}", Timestamp::now().as_nanosecond()), "namespace": EVENTS_NAMESPACE },
        // As kubelets refer to a Node: its name for a uid.
        "involvedObject": { "apiVersion": "v1", "kind": "Node", "name": node, "uid": node },
        "type": match kind { EventKind::Normal => "Normal", EventKind::Warning => "Warning" },
        "reason": reason,
        "message": message,
        "count": count,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": { "component": COMPONENT, "host": node },
        "reportingComponent": COMPONENT,
        "reportingInstance": node,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_event_is_told_once_in_a_while_and_says_how_often_it_was() {
        let told = Told::default();
        let event = |message: &str| NodeEvent { kind: EventKind::Warning, reason: "X", message: message.to_owned() };
        let start = Instant::now();
        assert_eq!(told.count(&event("a"), start), Some(1));
        assert_eq!(told.count(&event("a"), start + QUIET / 2), None);
        assert_eq!(told.count(&event("b"), start + QUIET / 2), Some(1));
        assert_eq!(told.count(&event("a"), start + QUIET), Some(2));
        told.forget(&event("b"));
        assert_eq!(told.count(&event("b"), start + QUIET), Some(1), "it did not come through");
        let flood = (0..1_000).filter(|number| told.count(&event(&number.to_string()), start + QUIET).is_some());
        assert_eq!(flood.count(), DIFFERENT - 2);
    }
}
