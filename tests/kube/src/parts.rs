//! Where the programs and images are that a cluster is made of.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// Programs and images, as `make kube-test` names them.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// The folder with kube-apiserver and its like.
    pub(crate) programs: PathBuf,
    /// The folder with the images' tars: every node has all of them.
    pub(crate) images: PathBuf,
    /// The program that makes manifests of the chart.
    pub(crate) helm: PathBuf,
    /// This crate's folder: scripts and manifests.
    pub(crate) here: PathBuf,
}

impl Parts {
    pub(crate) fn find() -> Result<Self> {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let helm = named("HELM_BIN")?;
        let parts = Self { programs: named("KUBERNETES_BIN")?, images: named("KUBE_IMAGES")?, helm, here };
        for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"] {
            ensure!(
                parts.program(name).is_file(),
                "there is no {}: tests/support/peers kubernetes builds it",
                parts.program(name).display()
            );
        }
        Ok(parts)
    }

    /// A folder of loden's manifests.
    pub(crate) fn manifests(&self, folder: &str) -> String {
        self.here.join("../../manifests").join(folder).display().to_string()
    }

    /// One of Kubernetes' programs.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }
}

fn named(variable: &str) -> Result<PathBuf> {
    let path =
        std::env::var_os(variable).map(PathBuf::from).with_context(|| format!("{variable} is not set: run this by `make kube-test`"))?;
    ensure!(path.exists(), "{variable}: there is no {}", path.display());
    Ok(path)
}
