//! The agent in a large Kubernetes cluster: made-up Nodes of a real one's size, in the stand-in API server.
//!
//! flanneld, where it is given, is measured in the same run on the same Nodes, from the next host.

use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::{Agent, AgentOptions, ApiServer, Host, Lab, LabOptions};

use crate::fleet::{self, CONFIG, Peer, SUBNET_LEN};
use crate::live::{self, Hands, Puts};
use crate::process::{self, Memory};
use crate::rtnl::Rtnl;
use crate::start::{self, PATIENCE, Start};
use crate::table;

/// flannel's annotations begin so.
const PREFIX: &str = "flannel.alpha.coreos.com";
/// Images that a kubelet names at most (`--node-status-max-images`).
const IMAGES: usize = 50;
/// The first made-up peer that no size and no other sample reaches: it says that what came before it has been taken in.
const MARK: u32 = 64_000;

/// What was measured of one agent.
struct Figures {
    name: &'static str,
    nodes: u32,
    start: Start,
    listed: u64,
    memory: [Memory; 2],
    puts: Puts,
    round: Round,
}

/// Every kubelet has written its Node once.
struct Round {
    bytes: u64,
    cpu: Duration,
    took: Duration,
}

/// Measures with so many Nodes each, and prints the table.
pub(crate) fn report(sizes: &[u32], samples: u32, logs: bool) -> Result<()> {
    let flanneld = env::var_os("FLANNELD_BIN").filter(|path| !path.is_empty()).map(PathBuf::from);
    let mut all = Vec::new();
    for size in sizes {
        println!("{size} Nodes: putting them into the API server");
        let lab = Lab::with(LabOptions { show_logs: logs, ..LabOptions::default() })?;
        let server = lab.api_server()?;
        let mut nodes = Nodes { server: &server };
        let bytes = nodes.fill(*size)?;
        let files = tempfile::tempdir()?;
        let net_conf = files.path().join("net-conf.json");
        std::fs::write(&net_conf, CONFIG)?;
        println!("{size} Nodes of {bytes} bytes: loden");
        let host = lab.host("h1")?;
        all.push(nodes.measure("loden", &host, &net_conf, *size, samples, None)?);
        match &flanneld {
            Some(program) => {
                ensure!(program.is_file(), "FLANNELD_BIN: there is no {}", program.display());
                println!("{size} Nodes: flanneld");
                let host = lab.host("h2")?;
                match nodes.measure("flanneld", &host, &net_conf, *size, samples, Some(program)) {
                    Ok(figures) => all.push(figures),
                    Err(error) => println!("{size} Nodes: flanneld FAILED: {:.300}", format!("{error:#}")),
                }
            }
            None => println!("{size} Nodes: flanneld NOT RUN, as FLANNELD_BIN names none"),
        }
    }
    println!("\n{}", render(&all));
    Ok(())
}

/// The cluster, and who changes it.
struct Nodes<'a> {
    server: &'a ApiServer,
}

impl Nodes<'_> {
    /// Puts so many; returns how large one is.
    fn fill(&self, count: u32) -> Result<usize> {
        for peer in fleet::peers(count) {
            self.server.put_object(node(&peer))?;
        }
        Ok(self.server.node(&name(&fleet::peer(0)))?.to_string().len())
    }

    fn measure(
        &mut self,
        agent: &'static str,
        host: &Host,
        net_conf: &Path,
        count: u32,
        samples: u32,
        other: Option<&Path>,
    ) -> Result<Figures> {
        // Its own subnet is one of those that the fleet leaves free.
        let own = format!("10.0.{}.0/{SUBNET_LEN}", if other.is_some() { 2 } else { 1 });
        // With an annotation, as every kubelet leaves its Node: flanneld v0.28.9 panics where there is none.
        let annotations = json!({ "node.alpha.kubernetes.io/ttl": "0" });
        self.server.put_object(
            json!({ "metadata": { "name": host.name(), "annotations": annotations }, "spec": { "podCIDRs": [own] }, "status": {} }),
        )?;
        let options = match other {
            None => AgentOptions::loden_in_kubernetes(self.server, host.name(), net_conf)?,
            // With the 5000 that it has room for otherwise, it stops for good above that many Nodes.
            Some(program) => AgentOptions::other_in_kubernetes(program, self.server, host.name(), net_conf)
                .env("EVENT_QUEUE_DEPTH", &count.saturating_mul(2).to_string()),
        };
        let mut rtnl = Rtnl::open(host)?;
        let before = self.server.bytes_sent();
        let started = Instant::now();
        let mut agent_process = host.agent(options)?;
        let start = start::wait_programmed(host, &mut agent_process, &mut rtnl, count, started)?;
        let listed = self.server.bytes_sent() - before;
        let after_start = process::memory(agent_process.pid())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let puts = runtime.block_on(live::puts(self, host, samples))?;
        let round = self.heartbeats(&mut rtnl, &agent_process, count)?;
        let memory = [after_start, process::memory(agent_process.pid())?];
        Ok(Figures { name: agent, nodes: count, start, listed, memory, puts, round })
    }

    fn heartbeats(&self, rtnl: &mut Rtnl, agent: &Agent, count: u32) -> Result<Round> {
        let (bytes, cpu, began) = (self.server.bytes_sent(), process::used(agent.pid())?.cpu, Instant::now());
        for peer in fleet::peers(count) {
            self.server.heartbeat(&name(&peer))?;
        }
        let mark = fleet::peer(MARK);
        self.server.put_object(node(&mark))?;
        testkit::wait_for("the end of the heartbeats", PATIENCE, || {
            ensure!(rtnl.has_route(mark.subnet)?, "the Node that was put after them has no route");
            Ok(())
        })?;
        let (took, cpu) = (began.elapsed(), process::used(agent.pid())?.cpu.saturating_sub(cpu));
        self.server.delete_node(&name(&mark))?;
        Ok(Round { bytes: self.server.bytes_sent() - bytes, cpu, took })
    }
}

impl Hands for Nodes<'_> {
    async fn put(&mut self, peer: &Peer) -> Result<Duration> {
        let start = Instant::now();
        self.server.put_object(node(peer))?;
        Ok(start.elapsed())
    }

    async fn delete(&mut self, peer: &Peer) -> Result<()> {
        self.server.delete_node(&name(peer)).context("no Node to delete")
    }
}

fn name(peer: &Peer) -> String {
    format!("node-{}", peer.subnet.to_string().replace('.', "-"))
}

/// A Node as a kubelet and a controller manager leave it, with the annotations of a flanneld: some 10 KB.
fn node(peer: &Peer) -> Value {
    let [a, b, c, d, e, f] = peer.mac;
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    let image = |number: usize| {
        let digest = format!("{:064x}", number.wrapping_mul(0x9e37_79b9));
        let image = format!("registry.example.com/team-{}/service-{number}", number % 7);
        json!({ "names": [format!("{image}@sha256:{digest}"), format!("{image}:v1.{number}.0")], "sizeBytes": 100_000_000 + number })
    };
    let condition = |kind: &str, status: &str| {
        json!({ "type": kind, "status": status, "reason": format!("Kubelet{kind}"), "message": format!("kubelet says of {kind} that it is {status}"),
                "lastHeartbeatTime": "2026-11-20T21:48:50Z", "lastTransitionTime": "2026-11-20T21:48:50Z" })
    };
    let resources = json!({ "cpu": "16", "memory": "65536000Ki", "pods": "110", "ephemeral-storage": "203056560Ki", "hugepages-1Gi": "0", "hugepages-2Mi": "0" });
    let fields = |manager: &str| {
        json!({ "manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2026-11-20T21:48:50Z", "fieldsType": "FieldsV1",
        "fieldsV1": { "f:metadata": { "f:annotations": { ".": {}, format!("f:{PREFIX}/backend-data"): {}, format!("f:{PREFIX}/backend-type"): {} } } } })
    };
    json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": {
            "name": name(peer),
            "labels": { "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", "kubernetes.io/hostname": name(peer), "topology.kubernetes.io/zone": "zone-a" },
            "annotations": {
                format!("{PREFIX}/kube-subnet-manager"): "true",
                format!("{PREFIX}/backend-type"): "vxlan",
                format!("{PREFIX}/backend-data"): format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#),
                format!("{PREFIX}/public-ip"): peer.host.to_string(),
                "node.alpha.kubernetes.io/ttl": "0",
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
            "managedFields": [fields("kubelet"), fields("kube-controller-manager"), fields("flanneld")],
        },
        "spec": { "podCIDRs": [format!("{}/{SUBNET_LEN}", peer.subnet)] },
        "status": {
            "capacity": resources, "allocatable": resources,
            "conditions": [condition("MemoryPressure", "False"), condition("DiskPressure", "False"), condition("PIDPressure", "False"), condition("Ready", "True")],
            "addresses": [{ "type": "InternalIP", "address": peer.host.to_string() }, { "type": "Hostname", "address": name(peer) }],
            "nodeInfo": { "kernelVersion": "6.18.0", "osImage": "Linux", "containerRuntimeVersion": "containerd://2.1.0", "kubeletVersion": "v1.34.3", "operatingSystem": "linux", "architecture": "amd64" },
            "images": (0..IMAGES).map(image).collect::<Vec<_>>(),
        },
    })
}

fn render(all: &[Figures]) -> String {
    let each = |what: &str, cell: &dyn Fn(&Figures) -> String| -> Vec<String> {
        std::iter::once(what.to_owned()).chain(all.iter().map(cell)).collect()
    };
    let megabytes = |bytes: u64| format!("{:.1} MB", Duration::from_micros(bytes).as_secs_f64());
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let milliseconds = |time: Duration| format!("{:.1} ms", 1_000.0 * time.as_secs_f64());
    table::aligned(&[
        each(" Nodes", &|figures| format!("{} {}", figures.nodes, figures.name)),
        each("start → all entries", &|figures| seconds(figures.start.all)),
        each("… its CPU", &|figures| seconds(figures.start.cpu)),
        each("… bytes from the API server", &|figures| megabytes(figures.listed)),
        each("resident, after the start / the end", &|figures| figures.memory.map(|memory| megabytes(memory.now_kib * 1_024)).join(" / ")),
        each("… at its highest", &|figures| {
            megabytes(figures.memory.map(|memory| memory.peak_kib).into_iter().max().unwrap_or(0) * 1_024)
        }),
        each("a Node put → route, p50 / p99", &|figures| {
            [50, 99].map(|percent| milliseconds(figures.puts.route.percentile(percent))).join(" / ")
        }),
        each("one heartbeat of each, bytes", &|figures| megabytes(figures.round.bytes)),
        each("… the agent's CPU", &|figures| seconds(figures.round.cpu)),
        each("… all of it", &|figures| seconds(figures.round.took)),
    ])
}
