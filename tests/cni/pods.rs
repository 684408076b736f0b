//! Pods on a real bridge, with addresses from the real host-local.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::world::write;
use testkit::{CniBin, CniCall, Host, Lab, Namespace};

const ENV: &str = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.52.1/24\nFLANNEL_IPV6_NETWORK=fd05::/48\nFLANNEL_IPV6_SUBNET=fd05:0:0:34::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n";

/// A host with plugins and a subnet.
struct Node {
    bin: CniBin,
    host: Host,
    _lab: Lab,
}

impl Node {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let host = lab.host("h1")?;
        write(&host, "/run/flannel/subnet.env", ENV)?;
        Ok(Self { bin: CniBin::standard(env!("CARGO_BIN_EXE_loden"))?, host, _lab: lab })
    }

    fn call(&self, command: &'static str, container: &str, pod: Option<&Namespace>) -> CniCall {
        let netns = pod.map(|pod| format!("/proc/{}/ns/net", pod.pid())).unwrap_or_default();
        CniCall::new(command, container, &netns, self.bin.path())
    }

    /// The plugin on this host.
    fn plugin(&self) -> Command {
        self.host.command(self.bin.path().join("flannel"))
    }

    /// Calls it, and returns what it printed.
    fn done(&self, call: &CniCall, version: &str) -> Result<String> {
        let output = call.run(self.plugin(), &conf(version))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{call:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
        Ok(text)
    }

    /// A folder as the host sees it.
    fn folder(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.host.pid()))
    }

    /// What is left of these containers: kept configurations, addresses, links on the bridge.
    fn left(&self) -> Result<Vec<String>> {
        let mut left = names(&self.folder("/var/lib/cni/flannel"))?;
        for name in names(&self.folder("/var/lib/cni/networks/cbr0"))? {
            let owner = fs::read_to_string(self.folder("/var/lib/cni/networks/cbr0").join(&name))?;
            // host-local makes the file, and then writes into it whose it is: one without an owner is a kill of its own.
            if !name.starts_with("last_reserved") && name.contains([':', '.']) && !owner.is_empty() {
                left.push(format!("{name} is of {}", owner.trim()));
            }
        }
        if let Ok(links) = self.host.ip_json(&["link", "show", "master", "cni0"]) {
            left.extend(links.as_array().into_iter().flatten().filter_map(|link| Some(link.get("ifname")?.as_str()?.to_owned())));
        }
        Ok(left)
    }
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// As kube-flannel.yml has it.
fn conf(version: &str) -> String {
    format!(r#"{{"name":"cbr0","cniVersion":"{version}","type":"flannel","delegate":{{"hairpinMode":true,"isDefaultGateway":true}}}}"#)
}

#[test]
fn a_pod_gets_addresses_routes_and_mtu_of_the_subnet_and_gives_them_back() -> Result<()> {
    let node = Node::new()?;
    for (number, version) in ["0.3.1", "0.4.0", "1.0.0"].into_iter().enumerate() {
        let pod = Namespace::new("p1", "")?;
        let container = format!("c{number}");
        let result: Value = serde_json::from_str(&node.done(&node.call("ADD", &container, Some(&pod)), version)?)?;
        ensure!(result.get("cniVersion").and_then(Value::as_str) == Some(version), "{result}");
        let told: Vec<&str> =
            result.get("ips").and_then(Value::as_array).into_iter().flatten().filter_map(|ip| ip.get("address")?.as_str()).collect();
        let link = pod.ip_json(&["addr", "show", "dev", "eth0"])?;
        let have = link.to_string();
        for address in &told {
            let address = address.split('/').next().context("no address")?;
            ensure!(have.contains(&format!("\"{address}\"")), "{address} is not among {have}");
        }
        ensure!(told.len() == 2 && have.contains("\"mtu\":1430"), "{told:?} {have}");
        let routes = pod.run(&["sh", "-c", "ip route; ip -6 route"])?;
        for wanted in ["10.5.0.0/16 via 10.5.52.1", "default via 10.5.52.1", "fd05::/48 via fd05:0:0:34::1"] {
            ensure!(routes.contains(wanted), "no {wanted}: {routes}");
        }
        pod.run(&["ping", "-c1", "-W5", "10.5.52.1"])?;
        if version != "0.3.1" {
            let checked = conf(version).replacen('{', &format!(r#"{{"prevResult":{result},"#), 1);
            let output = node.call("CHECK", &container, Some(&pod)).run(node.plugin(), &checked)?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        ensure!(node.left()?.len() == 4, "{:?}", node.left()?);
        // The second finds nothing, as after a runtime's crash.
        for _ in 0..2 {
            node.done(&node.call("DEL", &container, Some(&pod)), version)?;
        }
        ensure!(node.left()?.is_empty(), "{:?}", node.left()?);
    }
    Ok(())
}

#[test]
fn fifty_pods_at_once_have_an_address_each_and_leave_none() -> Result<()> {
    const PODS: usize = 50;
    let node = Node::new()?;
    let pods: Vec<Namespace> = (0..PODS).map(|number| Namespace::new(&format!("p{number}"), "")).collect::<Result<_>>()?;
    let calls = |command| pods.iter().enumerate().map(move |(number, pod)| (command, format!("c{number}"), pod));
    for command in ["ADD", "DEL"] {
        let started =
            calls(command).map(|(command, container, pod)| node.call(command, &container, Some(pod)).start(node.plugin(), &conf("0.4.0")));
        let started: Vec<_> = started.collect::<Result<_>>()?;
        for child in started {
            let output = child.wait_with_output()?;
            ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stdout));
        }
        if command == "ADD" {
            let mut addresses = BTreeSet::new();
            for pod in &pods {
                addresses.insert(pod.run(&["sh", "-c", "ip -4 -o addr show dev eth0 scope global | tr -s ' ' | cut -d' ' -f4"])?);
            }
            ensure!(addresses.len() == PODS, "{addresses:?}");
        }
    }
    ensure!(node.left()?.is_empty(), "{:?}", node.left()?);
    Ok(())
}

#[test]
fn killed_at_any_moment_it_leaves_nothing_that_a_del_does_not_take_away() -> Result<()> {
    let node = Node::new()?;
    let mut whole = 0;
    for number in 0..25_u64 {
        let pod = Namespace::new("p1", "")?;
        let container = format!("c{number}");
        // A process group, so that what it has started dies with it.
        let mut plugin = node.plugin();
        plugin.process_group(0);
        let mut child = node.call("ADD", &container, Some(&pod)).start(plugin, &conf("0.4.0"))?;
        std::thread::sleep(Duration::from_millis(number * 8));
        Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).output()?;
        whole += u32::from(child.wait()?.success());
        node.done(&node.call("DEL", &container, Some(&pod)), "0.4.0")?;
        ensure!(node.left()?.is_empty(), "killed after {} ms: {:?}", number * 8, node.left()?);
    }
    ensure!(whole < 25, "none was killed in the middle");
    Ok(())
}

#[test]
fn the_delegates_own_error_is_what_the_runtime_reads() -> Result<()> {
    let node = Node::new()?;
    let output = CniCall::new("ADD", "c1", "/run/netns/none", node.bin.path()).run(node.plugin(), &conf("0.4.0"))?;
    let said: Value = serde_json::from_slice(&output.stdout).context("no error object")?;
    ensure!(!output.status.success() && said.to_string().contains("/run/netns/none"), "{said}");
    node.done(&node.call("DEL", "c1", None), "0.4.0")?;
    ensure!(node.left()?.is_empty(), "{:?}", node.left()?);
    Ok(())
}
