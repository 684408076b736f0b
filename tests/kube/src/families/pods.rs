//! Nodes get their network; pods reach each other, and services from everywhere.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::cases;
use testkit::trial::{Case, Report};
use testkit::wait_for;

use crate::agent::{LABEL, NAMESPACE};
use crate::cluster::{Cluster, PATIENCE};
use crate::pod::{Pod, fetch};
use crate::traffic::whole;

/// With loden in all its ways.
pub(crate) const CASES: &[Case<Cluster>] = cases![
    nodes_become_ready_and_say_whose_network_they_have,
    every_pod_reaches_every_other_with_small_and_full_packets,
    services_answer_from_pods_from_nodes_and_from_outside,
    status_is_told_through_kubectl_exec,
];

/// The service's port on every node, and the one of the pods that have a port of their node's.
const NODE_PORT: u16 = 30080;
const HOST_PORT: u16 = 8080;
/// So often is a service asked at most until another of its pods answers: with three of them, all the same by chance is 1 in 3^39.
const ASKED: usize = 40;

pub(crate) fn nodes_become_ready_and_say_whose_network_they_have(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let list = cluster.control.get(&["nodes"])?;
    for node in list.get("items").and_then(Value::as_array).context("no items")? {
        let name = node.pointer("/metadata/name").and_then(Value::as_str).context("no name")?;
        let conditions = node.pointer("/status/conditions").and_then(Value::as_array).context("no conditions")?;
        let condition = |kind: &str| conditions.iter().find(|condition| condition.get("type").is_some_and(|is| is == kind));
        let text = |kind: &str, what: &str| condition(kind)?.get(what)?.as_str().map(str::to_owned);
        report.gate(
            format!("{name} is Ready"),
            text("Ready", "status").as_deref() == Some("True"),
            text("Ready", "message").unwrap_or_default(),
        );
        let said = text("NetworkUnavailable", "reason").unwrap_or_default();
        report.gate(format!("{name} has the condition NetworkUnavailable=False"), said == "FlannelIsUp", said);
        let annotations: Vec<_> = node.pointer("/metadata/annotations").and_then(Value::as_object).into_iter().flatten().collect();
        let of_flannel: BTreeSet<_> = annotations.iter().filter_map(|(name, _)| name.strip_prefix("flannel.alpha.coreos.com/")).collect();
        let mut wanted = BTreeSet::from(["backend-data", "backend-type", "kube-subnet-manager", "public-ip"]);
        if cluster.options.families == 2 {
            wanted.extend(["backend-v6-data", "public-ipv6"]);
        }
        report.gate(format!("{name} has flannel's annotations"), of_flannel == wanted, format!("{of_flannel:?}"));
    }
    Ok(())
}

pub(crate) fn every_pod_reaches_every_other_with_small_and_full_packets(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let nodes: BTreeSet<_> = cluster.pods("default", "app=web")?.into_iter().map(|pod| pod.node).collect();
    report.gate("the Deployment has a pod on each node", nodes.len() == cluster.nodes.len(), format!("{nodes:?}"));
    whole(cluster, "at first", report)
}

pub(crate) fn services_answer_from_pods_from_nodes_and_from_outside(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let service = cluster.control.get(&["service", "web"])?;
    let addresses = service.pointer("/spec/clusterIPs").and_then(Value::as_array).context("no clusterIPs")?;
    let addresses: Vec<IpAddr> = addresses.iter().filter_map(|address| address.as_str()?.parse().ok()).collect();
    ensure!(addresses.len() == cluster.options.families, "the service has {addresses:?}");
    let pods = cluster.pods("default", "app=web")?;
    let names: BTreeSet<_> = pods.iter().map(|pod| pod.name.clone()).collect();
    let (pod, node) = (pods.first().context("no pods")?, cluster.nodes.first().context("no nodes")?);
    for address in addresses {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let service = SocketAddr::new(address, 80);
        balanced(report, &format!("the ClusterIP answers a pod by {family}"), &names, || pod.fetch(service));
        balanced(report, &format!("the ClusterIP answers a node by {family}"), &names, || node.host.within(|| fetch(service)));
        for to in &cluster.nodes {
            let at = to.name();
            let to: IpAddr = if address.is_ipv4() { to.host.address().into() } else { to.host.address_v6().into() };
            let service = SocketAddr::new(to, NODE_PORT);
            balanced(report, &format!("{at}'s NodePort answers a pod on n1 by {family}"), &names, || pod.fetch(service));
            balanced(report, &format!("{at}'s NodePort answers n1 by {family}"), &names, || node.host.within(|| fetch(service)));
            balanced(report, &format!("{at}'s NodePort answers a stranger by {family}"), &names, || {
                cluster.switch().within(|| fetch(service))
            });
        }
    }
    let each = cluster.pods("default", "app=each")?;
    for to in each.iter().filter(|to| to.node != pod.node) {
        let server = SocketAddr::new(cluster.node(&to.node)?.host.address().into(), HOST_PORT);
        for (who, said) in [("a pod on another node", pod.fetch(server)), ("a stranger", cluster.switch().within(|| fetch(server)))] {
            let holds = said.as_ref().is_ok_and(|said| *said == to.name);
            report.gate(format!("{}'s hostPort answers {who}", to.node), holds, said.unwrap_or_else(|error| format!("{error:#}")));
        }
    }
    Ok(())
}

/// A gate: it answers every time, and more than one pod does.
fn balanced(report: &mut Report, what: &str, names: &BTreeSet<String>, ask: impl Fn() -> Result<String>) {
    let answers = two_answers(what, ask);
    let holds = answers.as_ref().is_ok_and(|answers| answers.is_subset(names) && answers.len() == 2);
    report.gate(what, holds, answers.map_or_else(|error| format!("{error:#}"), |answers| format!("{answers:?}")));
}

fn two_answers(what: &str, ask: impl Fn() -> Result<String>) -> Result<BTreeSet<String>> {
    // kube-proxy may not have heard of the service yet.
    let mut answers = BTreeSet::from([wait_for(what, PATIENCE, &ask)?]);
    for _ in 1..ASKED {
        if answers.len() < 2 {
            answers.insert(ask()?);
        }
    }
    Ok(answers)
}

pub(crate) fn status_is_told_through_kubectl_exec(cluster: &Cluster, report: &mut Report) -> Result<()> {
    for agent in cluster.pods(NAMESPACE, LABEL)? {
        let said = cluster.control.kubectl(&["exec", "-n", NAMESPACE, &agent.name, "--", "/loden", "status"]);
        let others = cluster.nodes.iter().filter(|node| node.name() != agent.node);
        let missing: Vec<_> = match &said {
            Ok(said) => others.map(|node| node.host.address().to_string()).filter(|address| !said.contains(address)).collect(),
            Err(error) => vec![format!("{error:#}")],
        };
        let seen = if missing.is_empty() { "all of them".to_owned() } else { missing.join(", ") };
        report.gate(format!("the status on {} names every other node", agent.node), missing.is_empty(), seen);
    }
    Ok(())
}

/// The agent's pod on a node.
pub(crate) fn agent_on(cluster: &Cluster, node: &str) -> Result<Pod> {
    let found = cluster.pods(NAMESPACE, LABEL)?.into_iter().find(|pod| pod.node == node);
    found.with_context(|| format!("no agent on {node}"))
}
