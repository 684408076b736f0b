//! A pod, seen from outside of Kubernetes: its network is entered by way of one of its processes.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::{Network, Stream, output};

use crate::node::Node;

/// What has not answered by then will not.
const PATIENCE: Duration = Duration::from_secs(2);

/// A running pod.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) node: String,
    /// One a family.
    pub(crate) addresses: Vec<IpAddr>,
    processes: Vec<u32>,
    network: Network,
}

impl Pod {
    /// What the API server says of one that runs on one of the nodes.
    pub(crate) fn of(pod: &Value, nodes: &[Node]) -> Result<Self> {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).with_context(|| format!("a pod without {pointer}: {pod}"));
        let (name, node) = (text("/metadata/name")?.to_owned(), text("/spec/nodeName")?.to_owned());
        let on = nodes.iter().find(|on| on.name() == node).with_context(|| format!("{name} runs on {node}, which is none of ours"))?;
        // kubelet names a pod's cgroup so.
        let processes = on.processes(&format!("/pod{}/", text("/metadata/uid")?))?;
        let network = Network::of(*processes.first().with_context(|| format!("{name} has no process on {node}"))?)?;
        let addresses = pod.pointer("/status/podIPs").and_then(Value::as_array).into_iter().flatten();
        let addresses = addresses.filter_map(|address| address.get("ip")?.as_str()?.parse().ok()).collect();
        Ok(Self { name, node, addresses, processes, network })
    }

    /// Its address of the family that this address has.
    pub(crate) fn address_like(&self, like: IpAddr) -> Result<IpAddr> {
        let found = self.addresses.iter().find(|address| address.is_ipv4() == like.is_ipv4());
        found.copied().with_context(|| format!("{} has no address like {like}", self.name))
    }

    /// Runs a program of this machine's in its network.
    pub(crate) fn run(&self, argv: &[&str]) -> Result<String> {
        let (program, args) = argv.split_first().context("no command given")?;
        self.network.within(|| output(Command::new(program).args(args))).with_context(|| format!("from {} on {}", self.name, self.node))
    }

    /// The process id of this program in it, as this machine numbers processes.
    pub(crate) fn process(&self, program: &str) -> Result<u32> {
        let named = |pid: &&u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == program);
        self.processes.iter().find(named).copied().with_context(|| format!("no {program} runs in {} on {}", self.name, self.node))
    }

    /// The MTU of its interface.
    pub(crate) fn mtu(&self) -> Result<u16> {
        let links = self.run(&["ip", "-o", "link", "show", "eth0"])?;
        let mtu = links.split("mtu ").nth(1).and_then(|rest| rest.split(' ').next());
        mtu.and_then(|mtu| mtu.parse().ok()).with_context(|| format!("no MTU in {links}"))
    }

    /// One ping with "don't fragment", of a packet of this size in all: 20 bytes of it are IPv4's, 40 IPv6's, and 8 ICMP's.
    pub(crate) fn ping(&self, to: IpAddr, size: u16) -> Result<()> {
        let headers = if to.is_ipv4() { 28 } else { 48 };
        let payload = size.saturating_sub(headers).to_string();
        self.run(&["ping", "-c1", "-W1", "-n", "-M", "do", "-s", &payload, &to.to_string()]).map(drop)
    }

    /// What a server tells to whoever asks from here.
    pub(crate) fn fetch(&self, server: SocketAddr) -> Result<String> {
        self.network.within(|| fetch(server)).with_context(|| format!("from {} on {}", self.name, self.node))
    }

    /// A packet each `interval` to another pod, by the family of that pod's address.
    pub(crate) fn stream(&self, to: &Self, address: IpAddr, interval: Duration) -> Result<Stream> {
        let socket = |pod: &Self| {
            let address = pod.address_like(address)?;
            pod.network.within(|| Ok(UdpSocket::bind((address, 0))?))
        };
        Stream::start(socket(self)?, socket(to)?, interval)
    }
}

/// What a web server tells: the body of its first page.
pub(crate) fn fetch(server: SocketAddr) -> Result<String> {
    let mut connection = TcpStream::connect_timeout(&server, PATIENCE).with_context(|| format!("{server} does not answer"))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    write!(connection, "GET / HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).with_context(|| format!("{server} says nothing"))?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no HTTP from {server}: {answer}"))?;
    ensure!(head.contains(" 200 "), "{server} says {head}");
    Ok(body.trim().to_owned())
}
