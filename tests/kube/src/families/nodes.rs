//! Nodes come, boot, and go.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use testkit::cases;
use testkit::trial::{Case, Report};
use testkit::wait_for;

use crate::cluster::{Cluster, PATIENCE};
use crate::traffic::{Traffic, whole};

pub(crate) const CASES: &[Case<Cluster>] = cases![
    a_node_that_joins_has_its_network,
    a_node_that_reboots_has_its_network_again,
    a_node_that_is_deleted_is_forgotten_by_the_others,
    the_role_allows_all_that_the_agents_ask_for,
];

fn a_node_that_joins_has_its_network(cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let traffic = Traffic::start(cluster, &["n1", "n2", "n3"])?;
    let name = cluster.join()?.name().to_owned();
    let first_pod = cluster.first_pod(&name)?;
    report.note("its first pod is ready", format!("{first_pod:.1?} after it registered"));
    refused_none(cluster, report)?;
    traffic.finish("meanwhile", report)?;
    whole(cluster, "with it", report)
}

/// A gate: no pod came before its node had a network.
fn refused_none(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let refused = cluster.refused_pods()?;
    report.gate("no pod was refused for want of a network", refused.is_empty(), if refused.is_empty() { "none" } else { &refused });
    Ok(())
}

fn a_node_that_reboots_has_its_network_again(cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let traffic = Traffic::start(cluster, &["n1", "n2"])?;
    let start = Instant::now();
    cluster.reboot("n3")?;
    whole(cluster, "after the boot", report)?;
    report.note("the node is back", format!("{:.1?} after its power came", start.elapsed()));
    cluster.wait_nodes()?;
    refused_none(cluster, report)?;
    traffic.finish("between the other nodes", report)
}

fn a_node_that_is_deleted_is_forgotten_by_the_others(cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let last = cluster.nodes.last().context("no nodes")?.name().to_owned();
    let subnet = cluster.control.kubectl(&["get", "node", &last, "-o", "jsonpath={.spec.podCIDR}"])?;
    let address = cluster.node(&last)?.host.address().to_string();
    let kernel = |cluster: &Cluster| {
        let (routes, entries) =
            (["ip", "route", "show", subnet.trim()], ["sh", "-c", &format!("bridge fdb show dev flannel.1 | grep -w {address} || true")]);
        let node = cluster.node("n1")?;
        Ok::<_, anyhow::Error>([node.run(&routes)?, node.run(&entries)?].concat())
    };
    let before = kernel(cluster)?;
    ensure!(before.contains("flannel.1") && before.contains(&address), "n1 has {before:?} for {last}");
    let traffic = Traffic::start(cluster, &["n1", "n2"])?;
    drop(cluster.nodes.pop());
    cluster.control.kubectl(&["delete", "node", &last])?;
    let start = Instant::now();
    let forgotten = wait_for("n1 to forget it", PATIENCE, || {
        let left = kernel(cluster)?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    });
    report.gate("its route and its entry are gone from n1", forgotten.is_ok(), format!("{forgotten:?} after {:.1?}", start.elapsed()));
    traffic.finish("between the other nodes", report)
}

/// The last case of a family: it looks at what was asked in all of them.
pub(crate) fn the_role_allows_all_that_the_agents_ask_for(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let asked = cluster.control.audit()?;
    let refused: Vec<_> = asked.iter().filter(|(_, code)| matches!(code, 401 | 403)).collect();
    let all: Vec<_> = asked.iter().map(|(what, code)| format!("{what} ({code})")).collect();
    report.gate("nothing is refused", !asked.is_empty() && refused.is_empty(), format!("asked: {}", all.join(", ")));
    Ok(())
}
