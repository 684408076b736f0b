//! The two agents that can make a cluster's network.

use anyhow::Result;

use crate::control::Control;
use crate::parts::Parts;

/// flannel, in this project's words.
const FLANNEL: &str = include_str!("../manifests/kube-flannel.yml");
/// The namespace and label of either agent's pods.
pub(crate) const NAMESPACE: &str = "kube-flannel";
pub(crate) const LABEL: &str = "app=flannel";
/// The DaemonSet of either.
pub(crate) const DAEMON_SET: &str = "daemonset/kube-flannel-ds";

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agent {
    Flannel,
    /// loden, from this folder below `manifests`.
    Loden(&'static str),
}

/// flannel's network configuration for one family, or for two.
fn net_conf(families: usize) -> &'static str {
    match families {
        1 => r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#,
        _ => r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fc00:244::/32", "Backend": {"Type": "vxlan"}}"#,
    }
}

impl Agent {
    /// `kubectl apply`, as a person would.
    pub(crate) fn install(self, control: &Control, parts: &Parts, families: usize) -> Result<()> {
        match self {
            Self::Flannel => control.apply(&FLANNEL.replace("$NET_CONF", net_conf(families))).map(drop),
            Self::Loden(folder) => control.kubectl(&["apply", "-k", &parts.manifests(folder)]).map(drop),
        }
    }
}
