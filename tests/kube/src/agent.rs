//! The two agents that can make a cluster's network.

use std::path::Path;

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
    /// What its program is called.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Flannel => "flanneld",
            Self::Loden(_) => "loden",
        }
    }

    /// `kubectl apply`, as a person would.
    pub(crate) fn install(self, control: &Control, parts: &Parts, families: usize) -> Result<()> {
        match self {
            Self::Flannel => control.apply(&FLANNEL.replace("$NET_CONF", net_conf(families))).map(drop),
            Self::Loden(folder) => control.kubectl(&["apply", "-k", &parts.manifests(folder)]).map(drop),
        }
    }
}

/// A kustomization on top of loden's manifests, as people write them: pods are replaced when somebody deletes them.
pub(crate) fn loden_by_hand(parts: &Parts, folder: &Path) -> Result<String> {
    // kustomize follows no absolute path.
    let manifests = std::fs::canonicalize(parts.manifests(""))?;
    let up = "../".repeat(folder.components().count().saturating_sub(1));
    let kustomization = serde_json::json!({
        "resources": [format!("{up}{}", manifests.display().to_string().trim_start_matches('/'))],
        "patches": [{
            "target": {"kind": "DaemonSet"},
            "patch": r#"[{"op": "replace", "path": "/spec/updateStrategy", "value": {"type": "OnDelete"}}]"#,
        }],
    });
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("kustomization.yaml"), kustomization.to_string())?;
    Ok(folder.display().to_string())
}
