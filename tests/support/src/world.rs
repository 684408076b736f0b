//! What every test stands on: a switch, an etcd with a network configuration, hosts with an agent, and made-up peers.
//!
//! Oracles are `ip`, `bridge` and `etcdctl`. Nothing sleeps: to show that something had no effect, something else that
//! must have one is done after it, through the same channel.

use std::fs;
use std::time::Duration;

use crate::{Agent, AgentOptions, Entry, Etcd, Host, Lab, LabOptions, wait_for};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Far more than anything takes: the machine may build at the same time.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The VTEP: `flannel.` and the VNI, 1 by default.
pub const VTEP: &str = "flannel.1";
/// Where flannel keeps its data, by default.
pub const CONFIG_KEY: &str = "/coreos.com/network/config";
/// Where flannel's lease records stand, by default.
pub const SUBNETS: &str = "/coreos.com/network/subnets/";
/// Where the subnet file is, by default.
pub const SUBNET_FILE: &str = "/run/flannel/subnet.env";

/// The configuration that most tests use.
pub const CONFIG: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;

/// A switch and an etcd.
pub struct World {
    /// The store, at the switch.
    pub etcd: Etcd,
    /// The switch.
    pub lab: Lab,
}

impl World {
    /// With the usual configuration.
    pub fn new() -> Result<Self> {
        Self::with_config(CONFIG)
    }

    /// With this configuration.
    pub fn with_config(config: &str) -> Result<Self> {
        let world = Self::empty()?;
        world.etcd.put(CONFIG_KEY, config)?;
        Ok(world)
    }

    /// With nothing in etcd.
    pub fn empty() -> Result<Self> {
        let lab = Lab::with(LabOptions::default())?;
        Ok(Self { etcd: lab.etcd()?, lab })
    }

    /// How an agent is started here.
    pub fn options(&self) -> Result<AgentOptions> {
        AgentOptions::loden(&self.etcd)
    }

    /// A host with an agent that is not waited for.
    pub fn starting(&self, name: &str) -> Result<Member> {
        Member::on(self.lab.host(name)?, self.options()?)
    }

    /// A host with an agent that is ready.
    pub fn member(&self, name: &str) -> Result<Member> {
        let mut member = self.starting(name)?;
        member.agent.wait_ready(PATIENCE)?;
        Ok(member)
    }

    /// Made-up peers with these numbers, in etcd.
    pub fn peers(&self, numbers: impl IntoIterator<Item = u8>) -> Result<Vec<Peer>> {
        numbers.into_iter().map(|number| self.put(Peer::new(number))).collect()
    }

    /// Puts the peer's lease.
    pub fn put(&self, peer: Peer) -> Result<Peer> {
        self.etcd.put(&peer.key(), &peer.record())?;
        Ok(peer)
    }

    /// Puts a value under the lease key of this name, such as `10.5.201.0-24`.
    pub fn put_raw(&self, name: &str, value: &str) -> Result<()> {
        self.etcd.put(&format!("{SUBNETS}{name}"), value)
    }
}

/// A host and its agent, which ends first.
pub struct Member {
    /// The agent.
    pub agent: Agent,
    /// The host it runs on.
    pub host: Host,
}

impl Member {
    /// Starts an agent on a host.
    pub fn on(host: Host, options: AgentOptions) -> Result<Self> {
        Ok(Self { agent: host.agent(options)?, host })
    }

    /// The key of its lease in etcd, from the subnet file.
    pub fn key(&self) -> Result<String> {
        let subnet = self.host.subnet_env()?.subnet()?;
        Ok(format!("{SUBNETS}{}-{}", subnet.network(), subnet.prefix()))
    }

    /// Its lease in etcd.
    pub fn lease(&self, world: &World) -> Result<Entry> {
        let key = self.key()?;
        world.etcd.get(&key)?.with_context(|| format!("{key} is not in etcd"))
    }

    /// `ip -json -details link show flannel.1`.
    pub fn vtep(&self) -> Result<Value> {
        let links = self.host.ip_json(&["link", "show", "dev", VTEP])?;
        links.get(0).cloned().with_context(|| format!("no {VTEP} on {}", self.host.name()))
    }

    /// The VTEP's index and MAC.
    pub fn vtep_identity(&self) -> Result<(u64, String)> {
        let vtep = self.vtep()?;
        let index = vtep.get("ifindex").and_then(Value::as_u64).context("no ifindex")?;
        let mac = vtep.get("address").and_then(Value::as_str).context("no address")?;
        Ok((index, mac.to_owned()))
    }

    /// What the kernel holds on the VTEP.
    pub fn entries(&self) -> Result<Vec<String>> {
        entries(&self.host)
    }

    /// Waits until the kernel holds on the VTEP exactly what these peers call for.
    pub fn wait_peers<'a>(&self, peers: impl IntoIterator<Item = &'a Peer>) -> Result<()> {
        let mut wanted: Vec<String> = peers.into_iter().flat_map(Peer::entries).collect();
        wanted.sort();
        self.wait_entries(&wanted)
    }

    /// Waits until the kernel holds exactly these entries on the VTEP.
    pub fn wait_entries(&self, wanted: &[String]) -> Result<()> {
        wait_for(&format!("the entries on {}", self.host.name()), PATIENCE, || {
            let have = self.entries()?;
            ensure!(have == wanted, "there is {have:#?}; wanted is {wanted:#?}");
            Ok(())
        })
    }

    /// Waits until `/readyz` says no, and returns why.
    pub fn wait_unready(&self) -> Result<String> {
        wait_for("the agent not to be ready", PATIENCE, || {
            let (code, body) = self.agent.get("/readyz")?;
            ensure!(code == 503, "/readyz says {code} {}", body.trim());
            Ok(body)
        })
    }

    /// Waits until `/readyz` says no for a reason with all these words in it.
    pub fn wait_unready_for(&self, words: &[&str]) -> Result<String> {
        wait_for(&format!("the agent not to be ready because of {words:?}"), PATIENCE, || {
            let (code, body) = self.agent.get("/readyz")?;
            ensure!(code == 503 && words.iter().all(|word| body.contains(word)), "/readyz says {code} {}", body.trim());
            Ok(body)
        })
    }

    /// Whether it is ready now.
    pub fn ensure_ready(&self) -> Result<()> {
        let (code, body) = self.agent.get("/readyz")?;
        ensure!(code == 200, "/readyz says {code} {}", body.trim());
        Ok(())
    }

    /// Waits for a line with all these words in the log.
    pub fn wait_log(&self, words: &[&str]) -> Result<()> {
        wait_for(&format!("a line of the log with {words:?}"), PATIENCE, || {
            ensure!(self.log_lines(words) > 0, "the log ends with\n{}", self.agent.log_tail());
            Ok(())
        })
    }

    /// How many lines of the log have all these words.
    pub fn log_lines(&self, words: &[&str]) -> usize {
        self.agent.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    /// The status, once it is as wanted.
    pub fn wait_status(&self, what: &str, mut right: impl FnMut(&Value) -> bool) -> Result<Value> {
        wait_for(&format!("the status to say {what}"), PATIENCE, || {
            let status = self.agent.status_json()?;
            ensure!(right(&status), "it says {status:#}");
            Ok(status)
        })
    }

    /// Waits until the metric has the value.
    pub fn wait_metric(&self, name: &str, wanted: f64) -> Result<()> {
        wait_for(&format!("{name} to be {wanted}"), PATIENCE, || {
            let have = self.agent.metric(name)?;
            ensure!((have - wanted).abs() < 1e-9, "it is {have}");
            Ok(())
        })
    }

    /// A setting under /proc/sys, as a process on the host sees it.
    pub fn sysctl(&self, name: &str) -> Result<String> {
        Ok(self.host.run(&["cat", &format!("/proc/sys/{name}")])?.trim().to_owned())
    }

    /// Changes a setting.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.host.run(&["sh", "-c", &format!("echo {value} >/proc/sys/{name}")]).map(drop)
    }
}

/// Writes a file as the host sees it, with its folder.
pub fn write(host: &Host, path: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{}/root{path}", host.pid());
    let folder = std::path::Path::new(&path).parent().context("a path without a folder")?;
    fs::create_dir_all(folder)?;
    fs::write(&path, text).with_context(|| format!("cannot write {path}"))
}

/// What the kernel holds on the VTEP: routes of the main table, neighbours and FDB entries, as `ip` and `bridge` tell them.
pub fn entries(host: &Host) -> Result<Vec<String>> {
    let lists: [&[&str]; 3] =
        [&["ip", "route", "show", "dev", VTEP], &["ip", "neigh", "show", "dev", VTEP], &["bridge", "fdb", "show", "dev", VTEP]];
    let mut entries = Vec::new();
    for list in lists {
        entries.extend(host.run(list)?.lines().map(|line| line.trim().to_owned()));
    }
    entries.sort();
    Ok(entries)
}

/// A made-up peer with the subnet 10.5.N.0/24. It has no Owner: it is flanneld's record, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The third byte of its subnet.
    pub number: u8,
    /// Its VTEP's.
    pub mac: String,
    /// Its underlay address.
    pub address: String,
}

impl Peer {
    /// With a MAC and an address that follow from the number. Numbers from 101 on are those that no agent takes by itself
    /// from this network.
    pub fn new(number: u8) -> Self {
        Self { number, mac: format!("02:00:00:00:00:{number:02x}"), address: format!("192.168.77.{number}") }
    }

    /// The same peer with another MAC.
    pub fn with_mac(&self, mac: &str) -> Self {
        Self { mac: mac.to_owned(), ..self.clone() }
    }

    /// The same peer at another address.
    pub fn at(&self, address: &str) -> Self {
        Self { address: address.to_owned(), ..self.clone() }
    }

    /// The last part of its lease's key.
    pub fn name(&self) -> String {
        format!("10.5.{}.0-24", self.number)
    }

    /// Its lease's key.
    pub fn key(&self) -> String {
        format!("{SUBNETS}{}", self.name())
    }

    /// Its lease's record, as flanneld writes it.
    pub fn record(&self) -> String {
        record(&self.address, &self.mac)
    }

    /// What it calls for in the kernel, as `ip` and `bridge` tell it: route, neighbour, FDB entry.
    pub fn entries(&self) -> [String; 3] {
        let Self { number, mac, address } = self;
        let metric = u32::from(*number) + 1;
        [
            format!("10.5.{number}.0/24 via 10.5.{number}.0 proto 76 metric {metric} onlink"),
            format!("10.5.{number}.0 lladdr {mac} PERMANENT"),
            format!("{mac} dst {address} self permanent"),
        ]
    }
}

/// A lease record as flanneld writes it.
pub fn record(address: &str, mac: &str) -> String {
    format!(r#"{{"PublicIP":"{address}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}}}"#)
}
