//! Our own Node: what it is called, and since when it says what it says.
//!
//! Its kubelet writes it every few minutes, and each time its resource version grows. For a lease only the annotations
//! count: here it is remembered at which revision they came to be as they are, so that a heartbeat does not look as if
//! somebody had written our lease, nor a list of later look so.

use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use tokio::sync::OnceCell;

use super::NodeRef;
use super::annotations::{Names, Said};
use super::ask::Ask;
use super::connection::Connection;
use super::failure::Failure;
use super::node::Node;
use crate::Entry;

#[derive(Debug)]
pub(super) struct Own {
    pub(super) names: Names,
    name: OnceCell<String>,
    /// Its lease as it was seen first with this content.
    known: Mutex<Option<Entry>>,
}

/// A pod, as far as we need it.
#[derive(Deserialize)]
struct Pod {
    spec: PodSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    #[serde(default)]
    node_name: String,
}

impl Own {
    pub(super) fn new(names: Names, reference: &NodeRef) -> Self {
        let name = match reference {
            NodeRef::Name(name) => OnceCell::new_with(Some(name.clone())),
            NodeRef::Pod { .. } => OnceCell::new(),
        };
        Self { names, name, known: Mutex::default() }
    }

    /// Its name, asked for once.
    pub(super) async fn name(&self, connection: &Connection) -> Result<&str, Failure> {
        let ask = async || match &connection.options.node {
            NodeRef::Name(name) => Ok(name.clone()),
            NodeRef::Pod { namespace, name } => {
                let pod: Pod = connection.call(Ask::Pod { namespace, name }).await?;
                if pod.spec.node_name.is_empty() {
                    return Err(Failure::Protocol(format!(
                        "pod {namespace}/{name} runs on no Node: POD_NAME and POD_NAMESPACE have to name our own"
                    )));
                }
                Ok(pod.spec.node_name)
            }
        };
        self.name.get_or_try_init(ask).await.map(String::as_str)
    }

    /// What a Node says, ours or another's.
    pub(super) fn read(&self, node: &Node) -> Said {
        match self.names.read(node) {
            Said::Lease(entry) if self.name.get().is_some_and(|own| own == node.name()) => Said::Lease(self.dated(entry)),
            said => said,
        }
    }

    /// Our lease, as written when it came to be what it is.
    fn dated(&self, entry: Entry) -> Entry {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some(known) if says_the_same(known, &entry) => Entry { modified: known.modified, ..entry },
            // Something from before, which came late.
            Some(known) if entry.modified < known.modified => entry,
            _ => {
                *known = Some(entry.clone());
                entry
            }
        }
    }
}

/// Whether the two are one lease that nobody has written in between, as far as it shows.
pub(super) fn says_the_same(one: &Entry, other: &Entry) -> bool {
    let Entry { key, record, created, modified: _, expiry: _ } = one;
    *key == other.key && *record == other.record && *created == other.created
}
