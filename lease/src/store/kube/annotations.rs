//! A lease record as flannel's annotations of a Node.
//!
//! Whose record it is says the Node that it stands on: neither owner nor boot is written, and a record that is read has none.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::OwnAddresses;
use super::node::Node;
use crate::store::StoreError;
use crate::wire::Parts;
use crate::{BackendType, Entry, Expiry, LeaseRecord, RecordError, VtepData};

/// The ends of the names, and what a [`RecordError`] calls them.
const ENDS: Parts<&str> = Parts {
    public_ip: "public-ip",
    public_ipv6: "public-ipv6",
    backend_type: "backend-type",
    backend_data: "backend-data",
    backend_v6_data: "backend-v6-data",
};

/// The names of the annotations in full.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// "true" on a Node that is a peer.
    managed: String,
    record: Parts<String>,
    overwrite_ip: String,
    overwrite_ipv6: String,
    node_ip: String,
    node_ipv6: String,
}

/// What a Node says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// It is no peer.
    Nothing,
    /// It has this lease.
    Lease(Entry),
    /// It wants to be a peer and cannot be one: why.
    Stray(String),
}

impl Names {
    /// The names that begin so. As with flannel, `a.b` stands for `a.b/`, and `a.b/c` for `a.b/c-`.
    pub(super) fn new(prefix: &str) -> Result<Self, StoreError> {
        let wrong = || {
            StoreError::Denied(format!(
                "--kube-annotation-prefix: {prefix:?} is not of the form flannel.alpha.coreos.com, or example.com/name"
            ))
        };
        let (domain, name) = prefix.split_once('/').unwrap_or((prefix, ""));
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b));
        if !domain.contains('.') || !domain.split('.').all(|label| !label.is_empty() && plain(label)) || !plain(name) {
            return Err(wrong());
        }
        let dash = if name.is_empty() || name.ends_with('-') { "" } else { "-" };
        let full = |end: &str| format!("{domain}/{name}{dash}{end}");
        Ok(Self {
            managed: full("kube-subnet-manager"),
            record: Parts {
                public_ip: full(ENDS.public_ip),
                public_ipv6: full(ENDS.public_ipv6),
                backend_type: full(ENDS.backend_type),
                backend_data: full(ENDS.backend_data),
                backend_v6_data: full(ENDS.backend_v6_data),
            },
            overwrite_ip: full("public-ip-overwrite"),
            overwrite_ipv6: full("public-ipv6-overwrite"),
            node_ip: full("node-public-ip"),
            node_ipv6: full("node-public-ipv6"),
        })
    }

    /// What the Node says of itself.
    pub(super) fn read(&self, node: &Node) -> Said {
        if node.annotation(&self.managed) != Some("true") {
            return Said::Nothing;
        }
        match node.key() {
            Ok(key) => {
                let named = |error| RecordError::Node { node: crate::excerpt(node.name()), error: Box::new(error) };
                let (created, modified) = (node.created(), node.revision());
                Said::Lease(Entry { key, record: self.record(node).map_err(named), created, modified, expiry: Expiry::Never })
            }
            Err(error) => Said::Stray(format!("Node {} is no peer: {error}", crate::excerpt(node.name()))),
        }
    }

    fn record(&self, node: &Node) -> Result<LeaseRecord, RecordError> {
        let Parts { public_ip, public_ipv6, backend_type, backend_data, backend_v6_data } = &self.record;
        // What a backend has nothing to say with, flannel writes as null.
        let data = |name: &str| node.annotation(name).filter(|data| *data != "null");
        let texts = Parts {
            public_ip: node.annotation(&self.overwrite_ip).or_else(|| node.annotation(public_ip)),
            public_ipv6: node.annotation(&self.overwrite_ipv6).or_else(|| node.annotation(public_ipv6)),
            backend_type: node.annotation(backend_type),
            backend_data: data(backend_data),
            backend_v6_data: data(backend_v6_data),
        };
        LeaseRecord::from_parts(&ENDS, texts)
    }

    /// What a person says of the Node's addresses.
    pub(super) fn own_addresses(&self, node: &Node) -> Result<OwnAddresses, StoreError> {
        Ok(OwnAddresses {
            ip: address(node, &self.node_ip)?,
            ipv6: address(node, &self.node_ipv6)?,
            overwrite_ip: address(node, &self.overwrite_ip)?,
            overwrite_ipv6: address(node, &self.overwrite_ipv6)?,
        })
    }

    /// The annotations that make this record, as a merge patch: null for those that have to go. An address that a person has
    /// overwritten is written as overwritten, for flanneld reads nothing else.
    pub(super) fn patch(&self, node: &Node, record: &LeaseRecord) -> Value {
        // Exhaustive, so that a new field is not forgotten. The owner is the Node.
        let LeaseRecord { public_ip, public_ipv6, backend, vtep, vtep_v6, owner: _, boot: _ } = record;
        let address = |overwrite: &str, own: Option<IpAddr>| match node.annotation(overwrite) {
            Some(text) => json!(text),
            None => json!(own),
        };
        let data = |of_family: bool, vtep: &Option<VtepData>| match (backend, vtep) {
            (BackendType::Vxlan, Some(vtep)) => json!(vtep.encode()),
            // flannel writes it so where a backend has no data, and does not look for it in a family that is off.
            (BackendType::Vxlan, None) => Value::Null,
            _ if of_family => json!("null"),
            _ => Value::Null,
        };
        self.object(
            json!("true"),
            Parts {
                public_ip: address(&self.overwrite_ip, public_ip.map(IpAddr::from)),
                public_ipv6: address(&self.overwrite_ipv6, public_ipv6.map(IpAddr::from)),
                backend_type: json!(backend.name().unwrap_or_default()),
                backend_data: data(public_ip.is_some(), vtep),
                backend_v6_data: data(public_ipv6.is_some(), vtep_v6),
            },
        )
    }

    /// The merge patch that takes all of them away: the Node is no peer any more.
    pub(super) fn removal(&self) -> Value {
        let none = || Value::Null;
        let record = Parts { public_ip: none(), public_ipv6: none(), backend_type: none(), backend_data: none(), backend_v6_data: none() };
        self.object(Value::Null, record)
    }

    fn object(&self, managed: Value, values: Parts<Value>) -> Value {
        let Parts { public_ip, public_ipv6, backend_type, backend_data, backend_v6_data } = &self.record;
        json!({
            &self.managed: managed,
            public_ip: values.public_ip,
            public_ipv6: values.public_ipv6,
            backend_type: values.backend_type,
            backend_data: values.backend_data,
            backend_v6_data: values.backend_v6_data,
        })
    }
}

fn address<T: std::str::FromStr>(node: &Node, name: &str) -> Result<Option<T>, StoreError> {
    let parse = |text: &str| {
        let said = || {
            StoreError::Denied(format!(
                "Node {}: annotation {name} is {:?}, which is no address of its family",
                node.name(),
                crate::excerpt(text)
            ))
        };
        text.parse().map_err(|_| said())
    };
    node.annotation(name).map(parse).transpose()
}

#[cfg(test)]
#[path = "annotations_tests.rs"]
mod tests;
