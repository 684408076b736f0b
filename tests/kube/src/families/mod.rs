//! The families of cases, each with a cluster of its own.

mod pods;

use testkit::trial::Family;

use crate::agent::Agent;
use crate::cluster::{Cluster, Options};

/// All of them.
pub(crate) const FAMILIES: &[Family<Cluster>] = &[Family {
    name: "flannel",
    stage: || Cluster::ready(Options { agent: Agent::Flannel, nodes: 3, families: 2, proxy_mode: "iptables" }),
    cases: pods::CASES,
}];
