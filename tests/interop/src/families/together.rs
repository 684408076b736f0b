//! Both agents on one host.

use anyhow::{Context, Result, ensure};
use testkit::cases;
use testkit::trial::{Case, Report};
use testkit::world::{CONFIG, PATIENCE, SUBNET_FILE};
use testkit::{Host, wait_for};

use crate::Agents;
use crate::peer::Which::{self, Flanneld, Loden};
use crate::scene::Scene;

pub(crate) const CASES: &[Case<Agents>] = cases![
    loden_is_refused_where_a_flanneld_of_the_same_network_runs_and_names_it,
    flanneld_and_loden_serve_two_networks_on_the_same_hosts,
];

/// A second network: its own place in the store, subnets, VNI, port and subnet file.
const OTHER: &str = r#"{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan","VNI":2,"Port":8473}}"#;
const OTHER_PREFIX: &str = "/other/network";
const OTHER_FILE: &str = "/run/other/subnet.env";

fn loden_is_refused_where_a_flanneld_of_the_same_network_runs_and_names_it(agents: &Agents, report: &mut Report) -> Result<()> {
    let mut scene = Scene::with(agents, &[Flanneld, Flanneld])?;
    scene.whole(PATIENCE)?;
    let (program, endpoint) = (scene.options(Loden)?.program().to_owned(), scene.world.etcd.endpoint().to_owned());
    let (before, flanneld) = (scene.first()?.member.entries()?, scene.first()?.member.agent.pid());
    let mut command = scene.first()?.member.host.command("timeout");
    // One that is not refused is ended by then.
    command.arg("10").arg(program).args(["agent", "--etcd-endpoints", &endpoint]);
    let done = command.output()?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
    let line = said.lines().last().unwrap_or_default().to_owned();
    report.gate("it ends with an error", !done.status.success() && done.status.code() != Some(124), format!("{}: {line}", done.status));
    report.gate("which names flanneld's process", line.contains(&flanneld.to_string()), line);
    let after = scene.first()?.member.entries()?;
    report.gate("nothing has changed on the device", after == before, format!("{} entries", after.len()));
    Ok(())
}

fn flanneld_and_loden_serve_two_networks_on_the_same_hosts(agents: &Agents, report: &mut Report) -> Result<()> {
    for (which, other) in [(Loden, Flanneld), (Flanneld, Loden)] {
        let scene = Scene::new(agents, CONFIG, &[])?;
        scene.world.etcd.put(&format!("{OTHER_PREFIX}/config"), OTHER)?;
        let hosts = [scene.world.lab.host("h1")?, scene.world.lab.host("h2")?];
        let mut running = Vec::new();
        for host in &hosts {
            running.push(host.agent(scene.options(which)?)?);
            running.push(host.agent(options_of_other(&scene, other)?)?);
        }
        for (file, by) in [(SUBNET_FILE, which), (OTHER_FILE, other)] {
            let reached = wait_for("an answer", PATIENCE, || reaches(&hosts, file));
            let seen = reached.map_or_else(|error| format!("{error:#}"), |()| "an answer".to_owned());
            report.gate(
                format!("the network that {by} serves, {other} being the second agent: the hosts reach each other"),
                seen == "an answer",
                seen,
            );
        }
        let ended: Vec<_> = running.iter_mut().filter_map(|agent| agent.ended().ok().flatten()).collect();
        report.gate("all four agents run", ended.is_empty(), format!("{ended:?}"));
    }
    Ok(())
}

fn options_of_other(scene: &Scene, which: Which) -> Result<testkit::AgentOptions> {
    // The last one of a flag is in force; the health port is the first agent's.
    let flags = ["--etcd-prefix", OTHER_PREFIX, "--subnet-file", OTHER_FILE, "--healthz-port", "0"];
    Ok(scene.options(which)?.args(flags))
}

/// Whether the first host reaches the second one's VTEP: its address is the second subnet's first.
fn reaches(hosts: &[Host; 2], file: &str) -> Result<()> {
    let [one, two] = hosts;
    let text = two.read(file)?;
    let subnet = text.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET=")).context("no FLANNEL_SUBNET")?;
    let address = subnet.split_once(".1/").map(|(network, _)| format!("{network}.0")).context("the subnet has no .1")?;
    ensure!(one.read(file).is_ok(), "the first host has no {file}");
    one.run(&["ping", "-c1", "-W1", "-n", &address]).map(drop)
}
