//! A Node as the API server sends it, as far as a lease needs: all else is passed over unread. Dumb: it mirrors the JSON.
//!
//! A real Node is some 10 KB of status, images and managed fields; of these nothing is kept, not even while it is read.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use crate::{LeaseKey, Revision, Subnet, SubnetError};

/// A Node.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Node {
    pub(super) metadata: Metadata,
    #[serde(default)]
    spec: Option<Spec>,
}

/// Who it is, and what is said of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    #[serde(default)]
    pub(super) uid: String,
    #[serde(default)]
    pub(super) resource_version: String,
    #[serde(default)]
    creation_timestamp: Option<String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Spec {
    #[serde(default, rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(default, rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

/// A page of a list of Nodes.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub(super) metadata: PageMetadata,
    #[serde(default, deserialize_with = "none_or_some")]
    pub(super) items: Vec<Node>,
}

/// A list, which Go writes as null where there is none.
fn none_or_some<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Node>, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// Where a page stands in its list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageMetadata {
    pub(super) resource_version: String,
    /// What to ask with for the next page; none, or empty, with the last.
    #[serde(default, rename = "continue")]
    pub(super) proceed: Option<String>,
}

/// Why a Node's podCIDRs make no lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CidrError {
    #[error("it has no podCIDR: kube-controller-manager gives them with --allocate-node-cidrs and --cluster-cidr, or put spec.podCIDR")]
    None,
    #[error("podCIDR {0:?} is no subnet")]
    NoSubnet(String),
    #[error("podCIDRs {0} and {1} are of one family")]
    OneFamily(Subnet, Subnet),
}

impl Node {
    pub(super) fn name(&self) -> &str {
        &self.metadata.name
    }

    /// The value of an annotation; one that is empty counts as absent.
    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// The resource version as a number, which it is with every API server that stands on etcd; 0 where it is none.
    pub(super) fn revision(&self) -> Revision {
        revision(&self.metadata.resource_version)
    }

    /// When it came to be, so that the older of two is smaller: the second, and within it by the uid, which has no other
    /// order but is the same for whoever compares.
    pub(super) fn created(&self) -> Revision {
        let Metadata { uid, creation_timestamp, .. } = &self.metadata;
        let seconds = creation_timestamp.as_ref().and_then(|text| text.parse::<Timestamp>().ok()).map_or(0, Timestamp::as_second);
        let digits = uid.chars().filter_map(|digit| digit.to_digit(16)).take(UID_DIGITS);
        let begin = digits.fold(0_i64, |number, digit| (number << 4) | i64::from(digit));
        Revision((seconds << (4 * UID_DIGITS)) | begin)
    }

    /// The subnets that it has: `spec.podCIDRs`, else `spec.podCIDR`, one a family.
    pub(super) fn key(&self) -> Result<LeaseKey, CidrError> {
        let spec = self.spec.as_ref().ok_or(CidrError::None)?;
        let several = spec.pod_cidrs.iter().flatten();
        let one = spec.pod_cidr.iter().filter(|_| spec.pod_cidrs.as_ref().is_none_or(Vec::is_empty));
        let (mut v4, mut v6) = (None, None);
        for text in several.chain(one).filter(|text| !text.is_empty()) {
            let subnet = subnet(text).ok_or_else(|| CidrError::NoSubnet(crate::excerpt(text)))?;
            let place = if subnet.is_ipv4() { &mut v4 } else { &mut v6 };
            if let Some(before) = place.replace(subnet) {
                return Err(CidrError::OneFamily(before, subnet));
            }
        }
        LeaseKey::new(v4, v6).ok_or(CidrError::None)
    }
}

/// The subnet that a podCIDR is: that in which its address lies, as for flanneld and kubelets (Go's `net.ParseCIDR`).
fn subnet(text: &str) -> Option<Subnet> {
    match text.parse() {
        Ok(subnet) => Some(subnet),
        Err(SubnetError::HostBits { network, .. }) => Some(network),
        Err(_) => None,
    }
}

/// How many hexadecimal digits of a uid tell apart what came to be in the same second. Seconds need 36 bits until the year 4147.
const UID_DIGITS: usize = 6;
const _: () = assert!(36 + 4 * UID_DIGITS < 64);

/// A resource version as a number; 0 where it is none.
pub(super) fn revision(resource_version: &str) -> Revision {
    Revision(resource_version.parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        serde_json::from_str(text).unwrap()
    }

    fn key(spec: &str) -> Result<String, String> {
        let node = node(&format!(r#"{{"metadata":{{"name":"n"}},"spec":{spec},"status":{{"images":[{{"names":["x"]}}]}}}}"#));
        node.key().map(|key| key.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_subnets_are_those_of_the_newer_field_else_the_older_ones() {
        assert_eq!(key(r#"{"podCIDR":"10.5.1.0/24"}"#), Ok("10.5.1.0-24".to_owned()));
        assert_eq!(key(r#"{"podCIDR":"10.5.1.0/24","podCIDRs":[]}"#), Ok("10.5.1.0-24".to_owned()));
        assert_eq!(key(r#"{"podCIDR":"10.5.1.0/24","podCIDRs":["10.5.1.0/24","fc00:1::/64"]}"#), Ok("10.5.1.0-24&fc00:1::-64".to_owned()));
        assert_eq!(key(r#"{"podCIDRs":["fc00:1::/64"]}"#), Ok("0.0.0.0-0&fc00:1::-64".to_owned()));
        assert_eq!(key(r#"{"podCIDRs":["10.5.1.7/24","fc00:1::5/64"]}"#), Ok("10.5.1.0-24&fc00:1::-64".to_owned()));
    }

    #[test]
    fn a_list_of_none_is_empty_however_it_is_written() {
        for items in ["", r#","items":null"#, r#","items":[]"#] {
            let page: Page = serde_json::from_str(&format!(r#"{{"metadata":{{"resourceVersion":"7"}}{items}}}"#)).unwrap();
            assert!(page.items.is_empty(), "{items}");
        }
    }

    #[test]
    fn what_is_no_assignment_is_told_with_its_reason() {
        for (spec, reason) in [
            ("null", "--allocate-node-cidrs"),
            ("{}", "--allocate-node-cidrs"),
            (r#"{"podCIDR":"","podCIDRs":null}"#, "--allocate-node-cidrs"),
            (r#"{"podCIDRs":["10.5.1.0"]}"#, "\"10.5.1.0\" is no subnet"),
            (r#"{"podCIDRs":["10.5.1.0/24","10.5.2.0/24"]}"#, "10.5.1.0/24 and 10.5.2.0/24 are of one family"),
        ] {
            let error = key(spec).unwrap_err();
            assert!(error.contains(reason), "{spec}: {error}");
        }
    }

    #[test]
    fn the_older_is_smaller_and_within_a_second_the_uid_decides() {
        let born =
            |time: &str, uid: &str| node(&format!(r#"{{"metadata":{{"name":"n","uid":"{uid}","creationTimestamp":"{time}"}}}}"#)).created();
        let (first, later) = ("2026-11-20T21:48:50Z", "2026-11-20T21:48:51Z");
        assert!(born(first, "ffffffff-0000") < born(later, "00000000-0000"));
        assert!(born(first, "0fffff11-0000") < born(first, "10000000-0000"));
        assert!(born(first, "") > Revision(0) && born("yesterday", "") == Revision(0));
    }
}
