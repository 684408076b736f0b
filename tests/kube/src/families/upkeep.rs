//! The agent is killed, updated, and left without an API server, while pods speak to each other.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::cases;
use testkit::trial::{Case, Report};
use testkit::wait_for;

use crate::agent::{DAEMON_SET, LABEL, NAMESPACE};
use crate::cluster::{Cluster, PATIENCE};
use crate::families::pods::agent_on;
use crate::traffic::{Traffic, told, whole};

pub(crate) const CASES: &[Case<Cluster>] = cases![
    an_agent_that_is_killed_comes_back_and_no_packet_is_lost,
    an_agents_pod_that_is_deleted_comes_back_and_no_packet_is_lost,
    an_update_of_the_daemon_set_loses_no_packet,
    without_an_api_server_a_deleted_device_is_healed_and_nothing_else_is_lost,
];

/// For so long there is no API server.
const OUTAGE: Duration = Duration::from_secs(30);
/// A deleted device costs its node's packets for less than this: tests/soak measures it closer, this is a busy machine.
const HEALED: Duration = Duration::from_secs(2);

fn an_agent_that_is_killed_comes_back_and_no_packet_is_lost(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let traffic = Traffic::start(cluster, &["n1", "n2", "n3"])?;
    let old = agent_on(cluster, "n1")?.process("loden")?;
    kill(Pid::from_raw(i32::try_from(old)?), Signal::SIGKILL)?;
    let new = wait_for("the agent to be started again", PATIENCE, || {
        let new = agent_on(cluster, "n1")?.process("loden")?;
        ensure!(new != old, "it is still the old one");
        Ok(new)
    });
    cluster.rolled_out(DAEMON_SET, NAMESPACE)?;
    report.gate("kubelet starts the agent again", new.is_ok(), format!("{old} → {new:?}"));
    traffic.finish("SIGKILL to the agent", report)
}

fn an_agents_pod_that_is_deleted_comes_back_and_no_packet_is_lost(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let traffic = Traffic::start(cluster, &["n1", "n2", "n3"])?;
    let (old, new) = cluster.replace_agent("n2")?;
    report.gate("there is another pod", new != old, format!("{old} → {new}"));
    traffic.finish("the agent's pod deleted", report)
}

fn an_update_of_the_daemon_set_loses_no_packet(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let traffic = Traffic::start(cluster, &["n1", "n2", "n3"])?;
    let names = || Ok::<BTreeSet<_>, anyhow::Error>(cluster.pods(NAMESPACE, LABEL)?.into_iter().map(|pod| pod.name).collect());
    let (start, before) = (Instant::now(), names()?);
    cluster.control.kubectl(&["rollout", "restart", "-n", NAMESPACE, DAEMON_SET])?;
    cluster.rolled_out(DAEMON_SET, NAMESPACE)?;
    let (took, after) = (start.elapsed(), names()?);
    report.gate(
        "every agent is replaced",
        after.len() == before.len() && after.is_disjoint(&before),
        format!("{} of them in {took:.1?}", after.len()),
    );
    traffic.finish("the DaemonSet updated", report)
}

fn without_an_api_server_a_deleted_device_is_healed_and_nothing_else_is_lost(cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let traffic = Traffic::start(cluster, &["n1", "n2", "n3"])?;
    cluster.control.kill_server()?;
    let start = Instant::now();
    cluster.node("n1")?.run(&["ip", "link", "del", "flannel.1"])?;
    // The outage is what is tried; there is no condition to wait for.
    thread::sleep(OUTAGE.saturating_sub(start.elapsed()));
    for (way, stream) in traffic.end()? {
        let (holds, wanted) = if way.contains("n1") && !way.contains("IPv6") {
            (stream.received > 0 && stream.longest_gap < HEALED, format!("{way}, over the device: healed within {HEALED:?}"))
        } else {
            (stream.lost == 0, format!("{way}: no packet is lost"))
        };
        report.gate(wanted, holds, told(&stream));
    }
    cluster.control.start_server()?;
    cluster.wait_nodes()?;
    cluster.rolled_out(DAEMON_SET, NAMESPACE)?;
    whole(cluster, "with the API server back", report)
}
