//! A Node by itself, without an API server: for those who try out what is made of it.

use super::annotations::{Names, Said};
use super::node::Node;
use crate::{Entry, LeaseRecord, RecordError};

/// The lease of a Node that stands here as JSON; none where it is no peer.
///
/// # Errors
/// Why it can be none: in a line.
pub fn annotated(prefix: &str, json: &[u8]) -> Result<Option<Entry>, String> {
    let names = Names::new(prefix).map_err(|error| error.to_string())?;
    let node: Node = serde_json::from_slice(json).map_err(|error| crate::excerpt(&error.to_string()))?;
    match names.read(&node) {
        Said::Nothing => Ok(None),
        Said::Lease(entry) => Ok(Some(entry)),
        Said::Stray(why) => Err(why),
    }
}

/// What is read of the annotations that this record is written as.
///
/// # Errors
/// [`RecordError`], which no record that was read should lead to.
pub fn reread(prefix: &str, record: &LeaseRecord) -> Result<LeaseRecord, RecordError> {
    let wrong = |error: String| RecordError::Json(error);
    let annotations = Names::new(prefix).map_err(|error| wrong(error.to_string()))?.patch(&Node::default(), record);
    let held = annotations.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let held: serde_json::Map<String, serde_json::Value> = held.map(|(name, value)| (name.clone(), value.clone())).collect();
    let node = serde_json::json!({ "metadata": { "name": "n", "annotations": held }, "spec": { "podCIDR": "10.5.1.0/24" } });
    annotated(prefix, node.to_string().as_bytes()).map_err(wrong)?.ok_or(RecordError::Missing("kube-subnet-manager"))?.record
}
