//! Boots while the store is away: the host goes on from its last state on disk, and the store finds nothing to change.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::world::{Member, PATIENCE, World};
use testkit::{Mesh, wait_for};

use crate::{Budget, Report};

const STATE: &str = "/var/lib/loden/state";

/// Booted hosts, and their agents' first packets.
pub(crate) fn run(budget: Budget) -> Result<Report> {
    let mut world = World::new()?;
    let (mut one, two) = (world.member("h1")?, world.member("h2")?);
    let containers = [one.host.container("c1")?, two.host.container("c2")?];
    let mut mesh = Mesh::new(&containers)?;
    mesh.wait_whole(PATIENCE)?;
    let (lease, file) = (one.lease(&world)?, one.host.read("/run/flannel/subnet.env")?);
    let mut report = Report::default();
    for _ in 0..budget.rounds(20) {
        wait_written(&one)?;
        world.etcd.kill()?;
        one.agent.kill9()?;
        one.host.boot()?;
        let start = Instant::now();
        one.agent.restart()?;
        report.fault("boot while the store is away, until containers meet", mesh.wait_whole(PATIENCE).ok().map(|_| start.elapsed()));
        one.agent.wait_ready(PATIENCE)?;
        ensure!(one.agent.metric("loden_stale")? > 0.5, "the last state was not used");
        report.fault("subnet file as before", (one.host.read("/run/flannel/subnet.env")? == file).then(|| start.elapsed()));
        world.etcd.restart()?;
        let back = Instant::now();
        one.wait_metric("loden_stale", 0.0)?;
        report.fault("the store comes back, until it is believed", Some(back.elapsed()));
    }
    let after = one.lease(&world)?;
    report.gate("the lease was never written again", after == lease, format!("version {}", after.version));
    report.gate(
        "the store is believed within 5 s of its return",
        report.slowest("the store comes back, until it is believed") <= Some(Duration::from_secs(5)),
        "see above",
    );
    Ok(report)
}

/// Waits until the state on disk knows the other host.
fn wait_written(member: &Member) -> Result<()> {
    wait_for("the last state to be written", PATIENCE, || {
        let text = member.host.read(STATE)?;
        text.ends_with("\npeers 1\n").then_some(()).with_context(|| format!("it says {text}"))
    })
}
