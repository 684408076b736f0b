//! loden's manifests, as the real API server sees them.

use std::process::Command;

use anyhow::Result;
use testkit::cases;
use testkit::output;
use testkit::trial::{Case, Report};

use crate::cluster::Cluster;

pub(crate) const CASES: &[Case<Cluster>] =
    cases![the_api_server_accepts_every_kustomization, the_api_server_accepts_what_the_helm_chart_makes,];

/// Below `manifests`.
const KUSTOMIZATIONS: [&str; 7] = [
    "",
    "kubernetes/cleanup",
    "kubernetes/handover",
    "kubernetes/overlays/dual-stack",
    "kubernetes/overlays/etcd",
    "kubernetes/overlays/nftables",
    "kubernetes/overlays/own-node-only",
];

/// What people set in the chart: by default, both families, and what is further down.
const VALUES: [&[&str]; 4] = [
    &[],
    &["podCidrv6=fc00:244::/32"],
    &["flannel.backend=host-gw", "flannel.mtu=1400", "flannel.skipCNIConfigInstallation=true"],
    &["flannel.GBP=true", "flannel.healthz.port=0"],
];

fn the_api_server_accepts_every_kustomization(cluster: &Cluster, report: &mut Report) -> Result<()> {
    // A trial run makes no namespace for the rest to be in.
    for namespace in ["kube-flannel", "loden-cleanup"] {
        cluster.control.kubectl(&["create", "namespace", namespace])?;
    }
    for folder in KUSTOMIZATIONS {
        let said = cluster.control.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-k", &cluster.parts.manifests(folder)]);
        let (holds, said) = told(said);
        report.gate(format!("manifests/{folder}"), holds, said);
    }
    Ok(())
}

fn the_api_server_accepts_what_the_helm_chart_makes(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let chart = cluster.parts.manifests("helm");
    let version = cluster.control.version()?;
    for values in VALUES {
        let mut helm = Command::new(&cluster.parts.helm);
        helm.args(["template", "loden", &chart, "--namespace", "kube-flannel", "--kube-version", &version]);
        helm.args(values.iter().flat_map(|value| ["--set", value]));
        let said = output(&mut helm).and_then(|made| cluster.control.apply_with(&["--dry-run=server", "--validate=strict"], &made));
        let (holds, said) = told(said);
        report.gate(format!("the chart with {values:?}"), holds, said);
    }
    let lint = output(Command::new(&cluster.parts.helm).args(["lint", "--strict", &chart]));
    report.gate("helm lint has nothing to say", lint.is_ok(), lint.map_or_else(|error| format!("{error:#}"), |_| version));
    Ok(())
}

/// What was said, in a line, and whether it went well.
fn told(said: Result<String>) -> (bool, String) {
    match said {
        Ok(said) => (true, format!("{} objects", said.lines().filter(|line| line.contains("dry run")).count())),
        Err(error) => (false, format!("{error:#}")),
    }
}
