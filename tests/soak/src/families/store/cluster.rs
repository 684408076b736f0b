//! One of three members dead, then the quorum gone.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testkit::world::{CONFIG, CONFIG_KEY, Member, PATIENCE, Peer};
use testkit::{AgentOptions, EtcdCluster, Lab, Monitor};

use crate::Report;

pub(super) fn run(report: &mut Report, lasts: Duration) -> Result<()> {
    let lab = Lab::new()?;
    let mut cluster = EtcdCluster::on(&lab)?;
    cluster.member(0)?.put(CONFIG_KEY, CONFIG)?;
    let mut member = Member::on(lab.host("h1")?, AgentOptions::loden_at(&cluster.endpoints())?)?;
    member.agent.wait_ready(PATIENCE)?;
    let mut peers = Vec::new();
    for number in 0..3_u8 {
        let start = Instant::now();
        cluster.member(number.into())?.kill()?;
        let peer = Peer::new(201 + number);
        let alive = cluster.member(usize::from(number + 1) % 3)?;
        // Where the leader was killed, another one is chosen first.
        testkit::wait_for("the rest of the cluster to take a write", PATIENCE, || alive.put(&peer.key(), &peer.record()))?;
        peers.push(peer);
        report.fault("one of three members killed, until a write is seen", member.wait_peers(&peers).ok().map(|()| start.elapsed()));
        cluster.member(number.into())?.restart()?;
    }
    let monitor = Monitor::start(&member.host)?;
    cluster.member(0)?.kill()?;
    cluster.member(1)?.kill()?;
    thread::sleep(lasts);
    let touched = monitor.so_far()?;
    report.gate("without a quorum the kernel is not written", touched.is_empty(), touched.join("; "));
    member.ensure_ready()?;
    cluster.member(1)?.restart()?;
    let start = Instant::now();
    let peer = Peer::new(210);
    cluster.member(2)?.put(&peer.key(), &peer.record())?;
    peers.push(peer);
    report.fault("no quorum", member.wait_peers(&peers).ok().map(|()| start.elapsed()));
    ensure!(member.agent.ended()?.is_none(), "the agent has ended");
    Ok(())
}
