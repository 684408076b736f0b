//! A flannel cluster moves to loden and back, and stays mixed for a while, while pods speak to each other.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Result, ensure};
use testkit::trial::{Case, Report};
use testkit::{cases, wait_for};

use crate::agent::{Agent, DAEMON_SET, LABEL, NAMESPACE};
use crate::cluster::{Cluster, PATIENCE};
use crate::families::nodes::the_role_allows_all_that_the_agents_ask_for;
use crate::traffic::{Traffic, whole};

pub(crate) const CASES: &[Case<Cluster>] = cases![
    flannel_makes_the_network_at_first,
    a_cluster_of_both_loses_no_packet_and_is_whole,
    flannel_gives_way_to_loden_node_by_node_and_no_packet_is_lost,
    loden_gives_way_to_flannel_node_by_node_and_no_packet_is_lost,
    cleanup_takes_nothing_from_a_flanneld_that_runs,
    what_loden_leaves_is_taken_away_beside_flanneld_and_no_packet_is_lost,
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

fn cleanup_takes_nothing_from_a_flanneld_that_runs(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let logs = cleaned(cluster, "kubernetes/cleanup", "flanneld is running here")?;
    report.gate("cleanup refuses on every node", true, logs);
    whole(cluster, "after it", report)
}

fn what_loden_leaves_is_taken_away_beside_flanneld_and_no_packet_is_lost(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let traffic = Traffic::start(cluster, &["n1", "n2", "n3"])?;
    let logs = cleaned(cluster, "kubernetes/handover", "nft delete table")?;
    report.gate("nothing has to stay", !logs.contains("# left"), logs);
    whole(cluster, "after it", report)?;
    traffic.finish("the handover", report)
}

/// Applies one of the manifests that clean up, until its pod on every node has said this; returns what they said.
fn cleaned(cluster: &Cluster, folder: &str, wanted: &str) -> Result<String> {
    let manifests = cluster.parts.manifests(folder);
    cluster.control.kubectl(&["apply", "-k", &manifests])?;
    let logs = wait_for(&format!("cleanup to say {wanted} on every node"), PATIENCE, || {
        let said = cluster.control.kubectl(&["-n", "loden-cleanup", "logs", "-l", "app=loden-cleanup", "--prefix", "--tail=-1"])?;
        let pods: BTreeSet<_> = said.lines().filter(|line| line.contains(wanted)).filter_map(|line| line.split(']').next()).collect();
        ensure!(pods.len() == cluster.replicas(), "{said}");
        Ok(said)
    })?;
    cluster.control.kubectl(&["delete", "-k", &manifests])?;
    Ok(logs)
}

fn give_way(cluster: &Cluster, agent: Agent, report: &mut Report) -> Result<()> {
    let traffic = Traffic::start(cluster, &["n1", "n2", "n3"])?;
    let (start, before) = (Instant::now(), cluster.leases()?);
    cluster.install(agent)?;
    cluster.rolled_out(DAEMON_SET, NAMESPACE)?;
    let took = start.elapsed().as_secs_f64();
    for pod in cluster.pods(NAMESPACE, LABEL)? {
        let runs = pod.process(agent.program()).map(|pid| format!("process {pid}, all within {took:.1} s"));
        let holds = runs.is_ok();
        report.gate(format!("{} runs on {}", agent.program(), pod.node), holds, runs.unwrap_or_else(|error| format!("{error:#}")));
    }
    let after = cluster.leases()?;
    report.gate("subnets, MACs and addresses are the same", before == after, after);
    whole(cluster, "after it", report)?;
    traffic.finish("meanwhile", report)
}
