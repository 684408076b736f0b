//! What the command line and the environment say of Kubernetes.

use std::ffi::OsString;

use lease::store::kube::{KubeOptions as Reach, NodeRef};

use super::flags::KubeFlags;
use super::options::OptionsError;

/// How Kubernetes is used as the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeOptions {
    /// How it is reached, and which Node is ours.
    pub reach: Reach,
    /// Whether the Node's condition `NetworkUnavailable` is ours to set.
    pub set_network_available: bool,
}

impl KubeOptions {
    /// Our Node, for people.
    #[must_use]
    pub fn node(&self) -> String {
        match &self.reach.node {
            NodeRef::Name(name) => name.clone(),
            NodeRef::Pod { namespace, name } => format!("of pod {namespace}/{name}"),
        }
    }

    /// The API server, as far as the command line says which.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let Reach { api_url, kubeconfig, .. } = &self.reach;
        match (api_url, kubeconfig) {
            (Some(url), _) => url.clone(),
            (None, Some(file)) => format!("the API server of {}", file.display()),
            (None, None) => "the cluster's API server".to_owned(),
        }
    }

    pub(super) fn of(flags: KubeFlags, environment: impl Fn(&str) -> Option<OsString>) -> Result<Self, OptionsError> {
        let KubeFlags {
            kube_subnet_mgr: _,
            kube_api_url,
            kubeconfig_file,
            kube_annotation_prefix,
            net_config_path,
            set_node_network_unavailable,
        } = flags;
        let variable = |name| environment(name)?.into_string().ok().filter(|value| !value.is_empty());
        let pod = || Some(NodeRef::Pod { namespace: variable("POD_NAMESPACE")?, name: variable("POD_NAME")? });
        let node = variable("NODE_NAME").map(NodeRef::Name).or_else(pod).ok_or(OptionsError::NoNode)?;
        let reach = Reach {
            api_url: kube_api_url,
            kubeconfig: kubeconfig_file,
            node,
            annotation_prefix: kube_annotation_prefix,
            net_config: net_config_path,
        };
        Ok(Self { reach, set_network_available: set_node_network_unavailable })
    }
}

/// Whether this flag says something only where Kubernetes is the store.
pub(super) fn is_flag(name: &str) -> bool {
    ["kube-api-url", "kubeconfig-file", "kube-annotation-prefix", "net-config-path", "set-node-network-unavailable"].contains(&name)
}
