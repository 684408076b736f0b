//! What the tests of the agent in Kubernetes stand on: a switch, a stand-in API server on it, Nodes, and hosts of their names.
//!
//! The stand-in passes the store contract beside the real API server; the real one is in `make kube-test`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use testkit::world::{Member, PATIENCE};
use testkit::{AgentOptions, ApiServer, Lab, LabOptions, wait_for};

/// What flannel's annotations begin with.
pub(crate) const PREFIX: &str = "flannel.alpha.coreos.com/";
pub(crate) const CONFIG: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;
pub(crate) const DUAL: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:244::/32","Backend":{"Type":"vxlan"}}"#;

/// A switch, an API server on it, and the file with the network configuration.
pub(crate) struct Cluster {
    pub(crate) api: ApiServer,
    pub(crate) lab: Lab,
    files: TempDir,
}

impl Cluster {
    pub(crate) fn new(config: &str) -> Result<Self> {
        let lab = Lab::with(LabOptions::default())?;
        let cluster = Self { api: lab.api_server()?, lab, files: tempfile::tempdir()? };
        cluster.configure(config)?;
        Ok(cluster)
    }

    fn net_conf(&self) -> PathBuf {
        self.files.path().join("net-conf.json")
    }

    /// Puts another configuration in the file's place, as the kubelet does.
    pub(crate) fn configure(&self, config: &str) -> Result<()> {
        let new = self.files.path().join("new");
        fs::write(&new, config)?;
        Ok(fs::rename(new, self.net_conf())?)
    }

    pub(crate) fn options(&self, node: &str) -> Result<AgentOptions> {
        Ok(AgentOptions::loden_in_kubernetes(&self.api, node, &self.net_conf())?.args(["--ip-masq"]))
    }

    /// A Node and a host of its name with an agent that is not waited for.
    pub(crate) fn starting(&self, name: &str, cidrs: &[&str]) -> Result<Member> {
        self.api.put_node(name, cidrs)?;
        Member::on(self.lab.host(name)?, self.options(name)?)
    }

    /// The same with an agent that is ready.
    pub(crate) fn member(&self, name: &str, cidrs: &[&str]) -> Result<Member> {
        let mut member = self.starting(name, cidrs)?;
        member.agent.wait_ready(PATIENCE)?;
        Ok(member)
    }

    pub(crate) fn annotation(&self, node: &str, name: &str) -> Result<Option<String>> {
        self.api.annotation(node, &format!("{PREFIX}{name}"))
    }

    /// Waits until an annotation is this.
    pub(crate) fn wait_annotation(&self, node: &str, name: &str, wanted: &str) -> Result<()> {
        wait_for(&format!("{name} of {node} to be {wanted}"), PATIENCE, || {
            let have = self.annotation(node, name)?;
            ensure!(have.as_deref() == Some(wanted), "it is {have:?}");
            Ok(())
        })
    }

    /// Waits for an Event on the Node with this reason and these words.
    pub(crate) fn wait_event(&self, node: &str, reason: &str, words: &[&str]) -> Result<()> {
        wait_for(&format!("an Event {reason} on {node}"), PATIENCE, || {
            let events = self.api.events();
            let fits = |event: &Value| {
                let message = event.get("message").and_then(Value::as_str).unwrap_or_default();
                event.get("reason").is_some_and(|is| is == reason)
                    && event.pointer("/involvedObject/name").is_some_and(|is| is == node)
                    && words.iter().all(|word| message.contains(word))
            };
            ensure!(events.iter().any(fits), "there are {events:#?}");
            Ok(())
        })
    }

    /// A Node's condition.
    pub(crate) fn condition(&self, node: &str, kind: &str) -> Result<Value> {
        let node = self.api.node(node)?;
        let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
        let found = conditions.into_iter().flatten().find(|condition| condition.get("type").is_some_and(|is| is == kind));
        found.cloned().with_context(|| format!("no condition {kind} in {node:#}"))
    }

    /// The MAC of the VTEP, as the Node's annotation has it.
    pub(crate) fn mac(&self, node: &str) -> Result<String> {
        let data: Value = serde_json::from_str(&self.annotation(node, "backend-data")?.context("no backend-data")?)?;
        data.get("VtepMAC").and_then(Value::as_str).map(str::to_owned).context("no VtepMAC")
    }

    /// Puts annotations of flannel's on a Node.
    pub(crate) fn annotate(&self, node: &str, annotations: &[(&str, &str)]) -> Result<()> {
        let full: Vec<(String, &str)> = annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), *value)).collect();
        self.api.annotate(node, &full.iter().map(|(name, value)| (name.as_str(), Some(*value))).collect::<Vec<_>>())
    }
}
