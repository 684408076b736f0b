//! Hosts contend for subnets, lose them and get them back; nobody ever shares one.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use testkit::world::{Member, PATIENCE, SUBNETS, World, record};
use testkit::{Monitor, wait_for};

use crate::{Budget, Report};

/// A crowd on a pool that is too small, then what happens to one lease.
pub(crate) fn run(budget: Budget) -> Result<Report> {
    let mut report = Report::default();
    crowd(&mut report, budget)?;
    one(&mut report, budget)?;
    Ok(report)
}

/// Five agents for four subnets, twenty for sixteen in full.
fn crowd(report: &mut Report, budget: Budget) -> Result<()> {
    let pool = usize::try_from(budget.rounds(16).max(4))?;
    let hosts = pool + pool / 4;
    let config = format!(r#"{{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.0","SubnetMax":"10.5.{pool}.0","Backend":{{"Type":"vxlan"}}}}"#);
    let world = World::with_config(&config)?;
    let start = Instant::now();
    let mut members = (1..=hosts).map(|n| world.starting(&format!("h{n}"))).collect::<Result<Vec<_>>>()?;
    let is_ready = |member: &Member| member.agent.get("/readyz").is_ok_and(|(code, _)| code == 200);
    let says_full = |member: &Member| member.agent.get("/readyz").is_ok_and(|(_, body)| body.contains("no subnet is free"));
    wait_for("the crowd to settle", PATIENCE * 4, || {
        let (ready, full) =
            (members.iter().filter(|member| is_ready(member)).count(), members.iter().filter(|member| says_full(member)).count());
        ensure!((ready, full) == (pool, hosts - pool), "{ready} are ready, {full} say that the pool is full");
        Ok(())
    })?;
    report.fault("a crowd starts at once", Some(start.elapsed()));
    shared(report, &world, &members, pool)?;
    // As many hosts leave as wait.
    let mut leaving = Vec::new();
    let mut staying = Vec::new();
    for member in members.drain(..) {
        if leaving.len() < hosts - pool && is_ready(&member) { leaving.push(member) } else { staying.push(member) }
    }
    let start = Instant::now();
    for member in &mut leaving {
        member.agent.terminate()?;
        member.agent.ask_with_flags("release")?;
    }
    let all = staying.iter_mut().try_for_each(|member| member.agent.wait_ready(PATIENCE * 2));
    report.fault("those who waited take what is freed", all.ok().map(|()| start.elapsed()));
    shared(report, &world, &staying, pool)
}

/// Whether each that is ready has a subnet of its own, as the subnet files and etcd tell.
fn shared(report: &mut Report, world: &World, members: &[Member], pool: usize) -> Result<()> {
    let held = members.iter().filter_map(|member| member.key().ok()).collect::<Vec<_>>();
    let distinct: BTreeSet<_> = held.iter().cloned().collect();
    let stored: BTreeSet<_> = world.etcd.get_prefix(SUBNETS)?.into_iter().map(|entry| entry.key).collect();
    let right = held.len() == pool && distinct == stored;
    report.gate(
        "each has a subnet of its own, and etcd says the same",
        right,
        format!("{} held, {} distinct, {} in etcd", held.len(), distinct.len(), stored.len()),
    );
    Ok(())
}

/// Deleted, expired, overwritten; and nothing but the lease changes.
fn one(report: &mut Report, budget: Budget) -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201, 202])?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let (before, monitor) = (member.lease(&world)?, Monitor::start(&member.host)?);
    let theirs = record("192.168.77.99", "02:00:00:00:00:99").replace("}}", r#"},"Owner":"00112233445566778899aabbccddeeff"}"#);
    for _ in 0..budget.rounds(10) {
        let again = |start: Instant| {
            let back = wait_for("the lease to be back", PATIENCE, || {
                world.etcd.get(&before.key)?.filter(|entry| entry.value == before.value).context("it is not")
            });
            back.ok().map(|_| start.elapsed())
        };
        let start = Instant::now();
        world.etcd.del(&before.key)?;
        report.fault("own lease deleted", again(start));
        let lease = member.lease(&world)?.lease;
        let start = Instant::now();
        world.etcd.lease_revoke(lease)?;
        report.fault("own lease expired", again(start));
        member.agent.wait_ready(PATIENCE)?;
        world.etcd.put(&before.key, &theirs)?;
        let lost = member.wait_unready_for(&["192.168.77.99", "lease lost"]);
        let start = Instant::now();
        world.etcd.del(&before.key)?;
        report.fault("own lease overwritten, until free again", lost.ok().and_then(|_| again(start)));
        member.agent.wait_ready(PATIENCE)?;
    }
    let touched = monitor.so_far()?;
    report.gate("the kernel is not written for a lease that comes back", touched.is_empty(), touched.join("; "));
    Ok(())
}
