//! How soon a new node is of use, beside flannel in the same cluster.

use std::time::Duration;

use anyhow::Result;
use testkit::cases;
use testkit::trial::{Case, Report};

use crate::agent::{Agent, DAEMON_SET, NAMESPACE};
use crate::cluster::Cluster;

pub(crate) const CASES: &[Case<Cluster>] = cases![the_first_pod_of_a_new_node_is_ready_sooner_than_under_flannel];

/// So many nodes join under each agent; the last of them counts, when the machine is warm.
const TURNS: usize = 2;

fn the_first_pod_of_a_new_node_is_ready_sooner_than_under_flannel(cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let flannel = joined(cluster)?;
    cluster.install(Agent::Loden(""))?;
    cluster.rolled_out(DAEMON_SET, NAMESPACE)?;
    let loden = joined(cluster)?;
    report.compare("from the node's registration to its first pod", format!("{flannel:.1?}"), format!("{loden:.1?}"));
    report.gate("it is ready sooner than under flannel", loden.last() < flannel.last(), format!("{loden:.1?}"));
    Ok(())
}

fn joined(cluster: &mut Cluster) -> Result<Vec<Duration>> {
    let join = |_| {
        let name = cluster.join()?.name().to_owned();
        cluster.first_pod(&name)
    };
    (0..TURNS).map(join).collect()
}
