//! A flannel cluster moves to loden and back, and stays mixed for a while, while pods speak to each other.

use std::time::Instant;

use anyhow::Result;
use testkit::cases;
use testkit::trial::{Case, Report};

use crate::agent::{Agent, DAEMON_SET, NAMESPACE};
use crate::cluster::Cluster;
use crate::families::nodes::the_role_allows_all_that_the_agents_ask_for;
use crate::families::pods::agent_on;
use crate::traffic::{Traffic, whole};

pub(crate) const CASES: &[Case<Cluster>] = cases![
    flannel_makes_the_network_at_first,
    a_cluster_of_both_loses_no_packet_and_is_whole,
    flannel_gives_way_to_loden_node_by_node_and_no_packet_is_lost,
    loden_gives_way_to_flannel_node_by_node_and_no_packet_is_lost,
    the_role_allows_all_that_the_agents_ask_for,
];

const LODEN: Agent = Agent::Loden("");

fn flannel_makes_the_network_at_first(cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    whole(cluster, "under flannel", report)
}

/// Pods are replaced when a person deletes them, one node at a time.
fn a_cluster_of_both_loses_no_packet_and_is_whole(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let traffic = Traffic::start(cluster, &["n1", "n2", "n3"])?;
    cluster.install_by_hand()?;
    cluster.replace_agent("n1")?;
    whole(cluster, "loden on n1, flannel on n2 and n3", report)?;
    cluster.replace_agent("n2")?;
    whole(cluster, "loden on n1 and n2, flannel on n3", report)?;
    traffic.finish("flannel to loden on two nodes of three", report)
}

fn flannel_gives_way_to_loden_node_by_node_and_no_packet_is_lost(cluster: &Cluster, report: &mut Report) -> Result<()> {
    give_way(cluster, LODEN, report)
}

fn loden_gives_way_to_flannel_node_by_node_and_no_packet_is_lost(cluster: &Cluster, report: &mut Report) -> Result<()> {
    give_way(cluster, Agent::Flannel, report)
}

fn give_way(cluster: &Cluster, agent: Agent, report: &mut Report) -> Result<()> {
    let traffic = Traffic::start(cluster, &["n1", "n2", "n3"])?;
    let start = Instant::now();
    cluster.install(agent)?;
    cluster.rolled_out(DAEMON_SET, NAMESPACE)?;
    report.gate(
        "every agent is another",
        true,
        format!("{} on n1, in {:.1} s", agent_on(cluster, "n1")?.name, start.elapsed().as_secs_f64()),
    );
    whole(cluster, "after it", report)?;
    traffic.finish("meanwhile", report)
}
