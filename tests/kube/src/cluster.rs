//! A cluster: a control plane, nodes, an agent, and pods.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use testkit::{Lab, Namespace, wait_for};

use crate::agent::{Agent, LABEL, NAMESPACE, loden_by_hand};
use crate::control::Control;
use crate::node::Node;
use crate::parts::Parts;
use crate::pod::Pod;

/// Far more than anything takes: the machine may build at the same time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// So many nodes can there ever be: each has been given a token.
const MOST: usize = 9;
/// Web servers in a Deployment, behind a Service, and on every node.
const WORKLOAD: &str = include_str!("../manifests/workload.yml");

/// What a cluster can be like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Who makes its network.
    pub(crate) agent: Agent,
    /// How many there are at first: n1, n2, ….
    pub(crate) nodes: usize,
    /// IPv4 alone, or IPv6 as well.
    pub(crate) families: usize,
    /// kube-proxy's: iptables or nftables.
    pub(crate) proxy_mode: &'static str,
}

/// A running cluster. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) control: Control,
    pub(crate) options: Options,
    lab: Lab,
    pub(crate) parts: Parts,
    files: TempDir,
}

impl Cluster {
    /// With nodes that have no network yet.
    pub(crate) fn bare(options: Options) -> Result<Self> {
        let (parts, lab) = (Parts::find()?, Lab::new()?);
        let files = tempfile::Builder::new().prefix("cluster").tempdir()?;
        let names = (1..=MOST).map(|number| format!("n{number}"));
        let control = Control::start(&parts, &lab, &files.path().join("control"), names, options.families)?;
        let mut cluster = Self { nodes: Vec::new(), control, options, lab, parts, files };
        for _ in 0..options.nodes {
            cluster.join()?;
        }
        Ok(cluster)
    }

    /// With its agent, and the workload, once all of it is ready.
    pub(crate) fn ready(options: Options) -> Result<Self> {
        let cluster = Self::bare(options)?;
        // The network first: a pod that comes before its node's network waits long before it is tried again.
        cluster.install(options.agent)?;
        cluster.wait_nodes()?;
        cluster.control.apply(&WORKLOAD.replace("$REPLICAS", &cluster.replicas().to_string()))?;
        cluster.wait_workload()?;
        Ok(cluster)
    }

    /// Applies an agent's manifests, as a person would.
    pub(crate) fn install(&self, agent: Agent) -> Result<()> {
        agent.install(&self.control, &self.parts, self.options.families)
    }

    /// A further node, which is switched on.
    pub(crate) fn join(&mut self) -> Result<&Node> {
        let host = self.lab.host(&format!("n{}", self.nodes.len() + 1))?;
        self.nodes.push(Node::start(&self.parts, &self.control, host, self.files.path(), self.options.proxy_mode)?);
        self.nodes.last().context("just pushed")
    }

    /// Reboots a node.
    pub(crate) fn reboot(&mut self, name: &str) -> Result<()> {
        let at = self.nodes.iter().position(|node| node.name() == name).with_context(|| format!("there is no {name}"))?;
        let node = self.nodes.remove(at).reboot(&self.lab)?;
        self.nodes.insert(at, node);
        Ok(())
    }

    /// One of the nodes.
    pub(crate) fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name() == name).with_context(|| format!("there is no {name}"))
    }

    /// The network that the nodes, and strangers, are on.
    pub(crate) fn switch(&self) -> &Namespace {
        self.lab.switch()
    }

    /// How many pods the Deployment has.
    pub(crate) fn replicas(&self) -> usize {
        self.options.nodes
    }

    /// Applies loden's manifests in such a way that nothing is replaced before [`Self::replace_agent`].
    pub(crate) fn install_by_hand(&self) -> Result<()> {
        let folder = loden_by_hand(&self.parts, &self.files.path().join("by-hand"))?;
        self.control.kubectl(&["apply", "-k", &folder]).map(drop)
    }

    /// Deletes the agent's pod on a node, and waits for the next one to be ready; the names of both.
    pub(crate) fn replace_agent(&self, node: &str) -> Result<(String, String)> {
        let on = format!("--field-selector=spec.nodeName={node}");
        let pods = ["get", "pods", "-n", NAMESPACE, "-l", LABEL, &on, "-o", "jsonpath={.items[*].metadata.name}"];
        let old = self.control.kubectl(&pods)?;
        // It returns when the pod is gone.
        self.control.kubectl(&["delete", "pod", "-n", NAMESPACE, &old])?;
        let new = wait_for("another agent", PATIENCE, || {
            let new = self.control.kubectl(&pods)?;
            ensure!(!new.is_empty() && new != old, "on {node} there is {new:?}");
            Ok(new)
        })?;
        self.wait(&["wait", "--for=condition=Ready", "-n", NAMESPACE, "pod", &new])?;
        Ok((old, new))
    }

    /// What each Node says of its network: name, subnets, and flannel's annotations.
    pub(crate) fn leases(&self) -> Result<String> {
        let annotations =
            ["public-ip", "backend-data"].map(|name| format!(r"{{.metadata.annotations.flannel\.alpha\.coreos\.com/{name}}} "));
        let line = format!(r#"jsonpath={{range .items[*]}}{{.metadata.name}} {{.spec.podCIDRs}} {}{{"; "}}{{end}}"#, annotations.concat());
        self.control.kubectl(&["get", "nodes", "-o", &line])
    }

    /// Waits until every node is there and Ready.
    pub(crate) fn wait_nodes(&self) -> Result<()> {
        let all: Vec<_> = self.nodes.iter().map(|node| format!("node/{}", node.name())).collect();
        wait_for("the nodes to register", PATIENCE, || self.control.kubectl(&[&["get".to_owned()], all.as_slice()].concat()).map(drop))
            .and_then(|()| self.wait(&[&["wait", "--for=condition=Ready", "node"][..], &self.names()].concat()))
    }

    /// Waits until a node that has just been switched on has a pod that is ready; how long after the node's registration that is.
    pub(crate) fn first_pod(&self, node: &str) -> Result<Duration> {
        wait_for("the node to register", PATIENCE, || self.control.kubectl(&["get", "node", node]))?;
        let (start, on) = (Instant::now(), format!("--field-selector=spec.nodeName={node}"));
        wait_for("its first pod to be ready", PATIENCE, || {
            let ready = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
            let said = self.control.kubectl(&["get", "pods", "-l", "app=each", &on, "-o", ready])?;
            ensure!(said == "True", "Ready is {said:?}");
            Ok(start.elapsed())
        })
        .with_context(|| self.explain())
    }

    /// What kubelets say of pods that they could not start: each waits long before it is tried again.
    pub(crate) fn refused_pods(&self) -> Result<String> {
        let said = self.control.kubectl(&[
            "get",
            "events",
            "--field-selector=reason=FailedCreatePodSandBox",
            "-o",
            "jsonpath={.items[*].message}",
        ]);
        Ok(said?.trim().to_owned())
    }

    /// Waits until every pod of the workload is ready.
    pub(crate) fn wait_workload(&self) -> Result<()> {
        ["deployment/web", "daemonset/each"].iter().try_for_each(|what| self.rolled_out(what, "default"))
    }

    /// Waits until every pod of something is there and ready.
    pub(crate) fn rolled_out(&self, what: &str, namespace: &str) -> Result<()> {
        self.wait(&["rollout", "status", "-n", namespace, what])
    }

    /// The pods with this label, by name of their node.
    pub(crate) fn pods(&self, namespace: &str, label: &str) -> Result<Vec<Pod>> {
        let list = self.control.get(&["pods", "-n", namespace, "-l", label])?;
        let items = list.get("items").and_then(Value::as_array).context("no items")?;
        // One that is on its way out is nobody's any more.
        let alive = items.iter().filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none());
        let mut pods: Vec<_> = alive.map(|pod| Pod::of(pod, &self.nodes)).collect::<Result<_>>()?;
        pods.sort_by(|one, other| one.node.cmp(&other.node));
        Ok(pods)
    }

    /// What `kubectl` waits for, with the usual patience; where it waits in vain, with all that can be said.
    pub(crate) fn wait(&self, args: &[&str]) -> Result<()> {
        let patience = format!("--timeout={}s", PATIENCE.as_secs());
        self.control.kubectl(&[args, &[&patience]].concat()).map(drop).with_context(|| self.explain())
    }

    fn names(&self) -> Vec<&str> {
        self.nodes.iter().map(Node::name).collect()
    }

    /// What a person would look at first.
    pub(crate) fn explain(&self) -> String {
        let said = self.control.kubectl(&["get", "nodes,pods", "-A", "-o", "wide"]);
        said.unwrap_or_else(|error| format!("{error:#}"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // For whoever wants to know more: the daemons' logs and the pods'.
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        if let Some(folder) = std::env::var_os("KUBE_LOGS") {
            let folder = Path::new(&folder).join(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
            let script = "mkdir -p \"$1\" && find . -name '*.log' -type f -print0 | tar -c --null -T - | tar -xC \"$1\"";
            let _ = Command::new("sh").args(["-c", script, "sh"]).arg(folder).current_dir(self.files.path()).status();
        }
    }
}
