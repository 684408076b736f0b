//! The families of cases, each with a cluster of its own.

mod join;
mod manifests;
mod migration;
mod nodes;
mod pods;
mod upkeep;

use testkit::trial::Family;

use crate::agent::Agent;
use crate::cluster::{Cluster, Options};

/// Three nodes with both address families, and kube-proxy in its newer form.
const USUAL: Options = Options { agent: Agent::Loden("kubernetes/overlays/dual-stack"), nodes: 3, families: 2, proxy_mode: "nftables" };

/// All of them.
pub(crate) const FAMILIES: &[Family<Cluster>] = &[
    Family { name: "pods", stage: || Cluster::ready(USUAL), cases: pods::CASES },
    Family { name: "upkeep", stage: || Cluster::ready(USUAL), cases: upkeep::CASES },
    Family { name: "nodes", stage: || Cluster::ready(USUAL), cases: nodes::CASES },
    Family {
        name: "iptables",
        stage: || {
            Cluster::ready(Options {
                agent: Agent::Loden("kubernetes/overlays/own-node-only"),
                families: 1,
                proxy_mode: "iptables",
                ..USUAL
            })
        },
        cases: pods::CASES,
    },
    Family {
        name: "migration",
        stage: || Cluster::ready(Options { agent: Agent::Flannel, families: 1, ..USUAL }),
        cases: migration::CASES,
    },
    Family {
        name: "join",
        stage: || Cluster::ready(Options { agent: Agent::Flannel, families: 1, nodes: 1, ..USUAL }),
        cases: join::CASES,
    },
    Family { name: "manifests", stage: || Cluster::bare(Options { nodes: 0, ..USUAL }), cases: manifests::CASES },
];
