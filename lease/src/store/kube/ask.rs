//! What is asked of the API server: each request, and the right that it takes.

use std::fmt;

use kube::Client;
use kube::api::{GetParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Where Nodes are.
pub(super) const NODES: &str = "/api/v1/nodes";

/// Nodes a page: 2.5 MB of real ones. Twice as many are hardly faster and cost twice the memory.
const PAGE: u32 = 250;

/// The namespace of Events about what has none itself, as kubectl looks for them (client-go `tools/record`).
pub(super) const EVENTS_NAMESPACE: &str = "default";

/// Who we are in a Node's managed fields.
const MANAGER: &str = "loden";

/// One request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask<'a> {
    /// A Node.
    Node(&'a str),
    /// Some Nodes: the first ones, or those after a token.
    Page(Option<&'a str>),
    /// One Node, for the revision that the list is of.
    Revision,
    /// A pod, for the Node that it runs on.
    Pod { namespace: &'a str, name: &'a str },
    /// A Node's status, and its metadata with it, to be patched.
    PatchStatus { node: &'a str, patch: &'a Value },
    /// An Event to be put.
    Note(&'a Value),
}

impl Ask<'_> {
    pub(super) async fn send<T: DeserializeOwned>(self, client: &Client) -> Result<T, kube::Error> {
        let request = match self {
            Self::Node(name) => Request::new(NODES).get(name, &GetParams::default()),
            Self::Page(proceed) => {
                let page = ListParams { limit: Some(PAGE), continue_token: proceed.map(str::to_owned), ..ListParams::default() };
                Request::new(NODES).list(&page)
            }
            Self::Revision => Request::new(NODES).list(&ListParams { limit: Some(1), ..ListParams::default() }),
            Self::Pod { namespace, name } => Request::new(format!("/api/v1/namespaces/{namespace}/pods")).get(name, &GetParams::default()),
            Self::PatchStatus { node, patch } => {
                let options = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
                Request::new(NODES).patch_subresource("status", node, &options, &Patch::Strategic(patch))
            }
            Self::Note(event) => Request::new(format!("/api/v1/namespaces/{EVENTS_NAMESPACE}/events"))
                .create(&PostParams::default(), event.to_string().into()),
        };
        client.request(request.map_err(kube::Error::BuildRequest)?).await
    }

    /// Whether the agent cannot do without.
    pub(super) fn is_vital(self) -> bool {
        !matches!(self, Self::Note(_))
    }

    /// The right that it takes, as RBAC names it.
    pub(super) fn right(self) -> Right {
        match self {
            Self::Node(_) => Right("get", "nodes"),
            Self::Page(_) | Self::Revision => Right::LIST,
            Self::Pod { .. } => Right("get", "pods"),
            Self::PatchStatus { .. } => Right("patch", "nodes/status"),
            Self::Note(_) => Right("create", "events"),
        }
    }
}

/// A verb and a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Right(&'static str, &'static str);

impl Right {
    /// To list the Nodes.
    pub(super) const LIST: Self = Self("list", "nodes");
    /// To follow the Nodes.
    pub(super) const WATCH: Self = Self("watch", "nodes");

    /// Whether every API server has an answer to it: one that says there is no such thing, or nothing that can be read, is none.
    pub(super) fn is_of_all_nodes(self) -> bool {
        self == Self::LIST || self == Self::WATCH
    }
}

impl fmt::Display for Right {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(verb, resource) = self;
        write!(out, "{verb} {resource}")
    }
}
