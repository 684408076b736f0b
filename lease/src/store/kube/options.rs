//! Where the API server is, and which Node is ours.

use std::path::PathBuf;

/// What it takes to use the Node store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeOptions {
    /// The API server's URL, in place of the one that the kubeconfig or the pod's environment names. Without a kubeconfig it is used
    /// without credentials, as flanneld does.
    pub api_url: Option<String>,
    /// The kubeconfig; none for the service account of the pod that we run in.
    pub kubeconfig: Option<PathBuf>,
    /// Our own Node.
    pub node: NodeRef,
    /// What the names of our annotations begin with, such as `flannel.alpha.coreos.com`.
    pub annotation_prefix: String,
    /// The file with the network configuration.
    pub net_config: PathBuf,
}

/// How our own Node is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeRef {
    /// By its name.
    Name(String),
    /// It is the one that this pod runs on.
    Pod {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
    },
}
