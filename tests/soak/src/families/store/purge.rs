//! Very many keys are deleted at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testkit::wait_for;
use testkit::world::{Member, PATIENCE, SUBNETS, World, entries, record};

use crate::{Budget, Report};

/// Every lease is deleted in one go: each agent claims its own again, and nobody exits.
pub(super) fn every_lease(report: &mut Report) -> Result<()> {
    let world = World::new()?;
    let mut members = ["h1", "h2", "h3"].iter().map(|name| world.member(name)).collect::<Result<Vec<_>>>()?;
    for member in &members {
        member.wait_metric("loden_peers", 2.0)?;
    }
    let leases = |world: &World| {
        Ok::<_, anyhow::Error>(world.etcd.get_prefix(SUBNETS)?.into_iter().map(|entry| (entry.key, entry.value)).collect::<Vec<_>>())
    };
    let before = (leases(&world)?, members.iter().map(|member| entries(&member.host)).collect::<Result<Vec<_>>>()?);
    world.etcd.ctl(&["del", "--prefix", SUBNETS])?;
    let start = Instant::now();
    let back = wait_for("every agent to have its own subnet again", PATIENCE, || {
        let now = (leases(&world)?, members.iter().map(|member| entries(&member.host)).collect::<Result<Vec<_>>>()?);
        ensure!(now == before, "there is {now:#?}");
        Ok(())
    });
    report.fault("every lease deleted in one go", back.ok().map(|()| start.elapsed()));
    let ended = members.iter_mut().filter_map(|member| member.agent.ended().transpose()).count();
    report.gate("no agent exits when every lease is deleted", ended == 0, format!("{ended} have ended"));
    members.iter_mut().try_for_each(|member: &mut Member| member.agent.wait_ready(PATIENCE))
}

/// Ten thousand leases go in one transaction.
pub(super) fn ten_thousand(report: &mut Report, budget: Budget) -> Result<()> {
    let world = World::with_config(r#"{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}"#)?;
    let member = world.member("h1")?;
    let number = budget.rounds(10_000).min(10_000);
    let numbers: Vec<u32> = (0..number).collect();
    for some in numbers.chunks(128) {
        let lease = |n: &u32| {
            let (a, b) = (n / 250, n % 250);
            let value = record(&format!("172.16.{a}.{b}"), &format!("02:00:00:01:{a:02x}:{b:02x}"));
            (format!("{SUBNETS}10.{}.{b}.0-24", 100 + a), Some(value))
        };
        world.etcd.write(&some.iter().map(lease).collect::<Vec<_>>())?;
    }
    member.wait_metric("loden_peers", f64::from(number))?;
    let start = Instant::now();
    world.etcd.ctl(&["del", "--prefix", &format!("{SUBNETS}10.1")])?;
    let gone = wait_for("all peers to be gone", PATIENCE * 2, || {
        let left = entries(&member.host)?.len();
        ensure!(left == 0, "{left} entries are left");
        Ok(())
    });
    report.fault(&format!("{number} leases deleted in one transaction"), gone.ok().map(|()| start.elapsed()));
    let lines = member.log_lines(&[]);
    report.gate(
        "a great deletion is no flood of lines",
        lines <= 80 + usize::try_from(Duration::from_secs(60).as_secs())?,
        format!("{lines} lines in all"),
    );
    Ok(())
}
