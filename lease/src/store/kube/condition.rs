//! The condition that lets pods onto our Node: cloud providers set it until there is a network.

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::KubeStore;
use super::ask::Ask;
use crate::store::StoreError;

/// flanneld's own words: what waits for flannel looks for them.
const CONDITION: &str = "NetworkUnavailable";
const REASON: &str = "FlannelIsUp";
const MESSAGE: &str = "Flannel is running on this node";

/// A Node's conditions, and nothing else of it.
#[derive(Deserialize)]
struct Conditioned {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    reason: String,
}

impl KubeStore {
    pub(super) async fn say_available(&self) -> Result<(), StoreError> {
        let name = self.own.name(&self.connection).await?;
        let node: Conditioned = self.connection.call(Ask::Node(name)).await?;
        let stands = |condition: &Condition| condition.kind == CONDITION && condition.status == "False" && condition.reason == REASON;
        if node.status.conditions.iter().any(stands) {
            return Ok(());
        }
        let now = now();
        // Strategic: of the conditions, the one of this type is merged, and the others stay.
        let condition = json!({
            "type": CONDITION, "status": "False", "reason": REASON, "message": MESSAGE,
            "lastTransitionTime": now, "lastHeartbeatTime": now,
        });
        self.patch_own(&json!({ "status": { "conditions": [condition] } })).await?;
        Ok(())
    }
}

/// The time as the API writes it (RFC 3339, whole seconds).
pub(super) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
