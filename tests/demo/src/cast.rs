//! The cast: an etcd, and hosts with an agent and two containers each.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;
use testkit::{Agent, AgentOptions, Container, Etcd, Host, Lab, LabOptions, Mesh};

/// Far more than an agent needs, so that a busy machine does not fail the demo.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Where flannel's lease records stand, by default.
pub(crate) const SUBNETS: &str = "/coreos.com/network/subnets";
/// The VTEP: `flannel.` and the VNI, 1 by default.
pub(crate) const VTEP: &str = "flannel.1";

const CONFIG: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;

/// All that are on stage. Agents are dropped before the hosts they run on.
pub(crate) struct Cast {
    pub(crate) members: Vec<Member>,
    pub(crate) etcd: Etcd,
    lab: Lab,
    /// Whose log tells most when something does not hold; all, when it is nobody's in particular.
    pub(crate) suspect: Option<String>,
}

/// A host and what runs on it.
pub(crate) struct Member {
    pub(crate) containers: Vec<Container>,
    pub(crate) agent: Agent,
    pub(crate) host: Host,
    pub(crate) started: Instant,
    pub(crate) ready_after: Duration,
}

impl Cast {
    /// A switch, and an etcd with a network configuration.
    pub(crate) fn new() -> Result<Self> {
        let lab = Lab::with(LabOptions { show_logs: false, ..LabOptions::default() })?;
        let etcd = lab.etcd()?;
        etcd.put("/coreos.com/network/config", CONFIG)?;
        Ok(Self { members: Vec::new(), etcd, lab, suspect: None })
    }

    /// Hosts with these names enter, all agents at once.
    pub(crate) fn enter(&mut self, names: &[&str]) -> Result<()> {
        let hosts = names.iter().map(|name| self.lab.host(name)).collect::<Result<Vec<_>>>()?;
        let mut started_agents = Vec::new();
        for host in hosts {
            let agent = host.agent(AgentOptions::loden(&self.etcd)?)?;
            started_agents.push((host, agent, Instant::now()));
        }
        for (host, mut agent, started) in started_agents {
            let ready = agent.wait_ready(PATIENCE);
            let ready_after = started.elapsed();
            self.members.push(Member { containers: Vec::new(), agent, host, started, ready_after });
            ready?;
        }
        for member in self.members.iter_mut().filter(|member| member.containers.is_empty()) {
            let name = member.host.name().to_owned();
            member.containers = ["a", "b"].iter().map(|letter| member.host.container(&format!("{name}{letter}"))).collect::<Result<_>>()?;
        }
        Ok(())
    }

    /// All containers.
    pub(crate) fn containers(&self) -> impl Iterator<Item = &Container> {
        self.members.iter().flat_map(|member| &member.containers)
    }

    /// Sockets in all containers.
    pub(crate) fn mesh(&self) -> Result<Mesh> {
        Mesh::new(self.containers())
    }

    /// The host with this name becomes the suspect.
    pub(crate) fn member(&mut self, name: &str) -> Result<&mut Member> {
        self.suspect = Some(name.to_owned());
        self.members.iter_mut().find(|member| member.host.name() == name).with_context(|| format!("{name} is not on stage"))
    }

    /// What the suspect's agent, or each, logged last.
    pub(crate) fn logs(&self) -> Vec<(String, String)> {
        let told = self.members.iter().filter(|member| self.suspect.as_ref().is_none_or(|name| name == member.host.name()));
        told.map(|member| (member.host.name().to_owned(), member.agent.log_tail())).collect()
    }
}

impl Member {
    /// The host's subnet, without host bits, as the subnet file has it.
    pub(crate) fn subnet(&self) -> Result<String> {
        let subnet = self.host.subnet_env()?.subnet()?;
        Ok(format!("{}/{}", subnet.network(), subnet.prefix()))
    }

    /// What the kernel says of the VTEP.
    pub(crate) fn vtep(&self) -> Result<Vtep> {
        let links = self.host.ip_json(&["link", "show", "dev", VTEP])?;
        let link = links.get(0).with_context(|| format!("no {VTEP} on {}", self.host.name()))?;
        let number = |field: &str| link.get(field).and_then(Value::as_u64);
        let mac = link.get("address").and_then(Value::as_str);
        let (Some(index), Some(mac), Some(mtu)) = (number("ifindex"), mac, number("mtu")) else {
            anyhow::bail!("ip tells too little of {VTEP}: {link}")
        };
        Ok(Vtep { index, mac: mac.to_owned(), mtu })
    }

    /// What the kernel holds for the peers, as text that can be compared: routes, neighbours and FDB entries of the VTEP.
    pub(crate) fn entries(&self) -> Result<Vec<String>> {
        let lists: [&[&str]; 3] =
            [&["ip", "route", "show", "dev", VTEP], &["ip", "neigh", "show", "dev", VTEP], &["bridge", "fdb", "show", "dev", VTEP]];
        let mut entries = Vec::new();
        for list in lists {
            entries.extend(self.host.run(list)?.lines().map(|line| line.trim().to_owned()));
        }
        entries.sort();
        Ok(entries)
    }
}

/// A VTEP as the kernel has it.
#[derive(PartialEq, Eq)]
pub(crate) struct Vtep {
    pub(crate) index: u64,
    pub(crate) mac: String,
    pub(crate) mtu: u64,
}
