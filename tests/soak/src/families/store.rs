//! The store fails in every way it knows. The data plane does not change but for what is explicitly deleted, the log stays
//! quiet, the CPU idle, and when the store is back everything is as it should be within seconds.

mod cluster;
mod patient;
mod purge;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use testkit::Fault;
use testkit::world::{CONFIG, CONFIG_KEY, PATIENCE, Peer};

use crate::{Budget, Report};
use patient::Patient;

/// How long a store that is slow takes for everything, as the wish list has it.
const SLOW: Duration = Duration::from_secs(5);

/// Every fault of a single store, then those of a cluster, then the great deletions.
pub(crate) fn run(budget: Budget) -> Result<Report> {
    let mut report = Report::default();
    let lasts = budget.time(Duration::from_secs(20)).max(Duration::from_secs(2));
    let mut patient = Patient::new()?;
    for _ in 0..budget.rounds(2) {
        single(&mut patient, &mut report, lasts)?;
    }
    patient.gates(&mut report, budget);
    if budget.rounds(100) > 2 {
        slow_from_the_start(&mut patient, &mut report)?;
    }
    drop(patient);
    cluster::run(&mut report, lasts)?;
    purge::every_lease(&mut report)?;
    purge::ten_thousand(&mut report, budget)?;
    Ok(report)
}

fn single(patient: &mut Patient, report: &mut Report, lasts: Duration) -> Result<()> {
    let wait = || thread::sleep(lasts);
    patient.suffer(report, "killed and restarted", |sick| sick.world.etcd.kill(), wait, |sick| sick.world.etcd.restart())?;
    patient.suffer(report, "hung", |sick| sick.world.etcd.pause(), wait, |sick| sick.world.etcd.resume())?;
    let spoil = |fault| {
        move |sick: &mut Patient| {
            sick.proxy.set(fault);
            sick.proxy.cut();
            Ok(())
        }
    };
    patient.suffer(report, "refuses connections", spoil(Fault::Refuse), wait, spoil(Fault::None))?;
    patient.suffer(report, "takes 5 s for everything", spoil(Fault::Delay(SLOW)), wait, spoil(Fault::None))?;
    patient.suffer(report, "answers 401", spoil(Fault::Unauthorized), wait, spoil(Fault::None))?;
    let until = Instant::now() + lasts;
    let flap = |sick: &mut Patient| {
        while Instant::now() < until + lasts {
            sick.proxy.cut();
            thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    };
    patient.suffer(report, "watch closed every second", flap, || (), |_| Ok(()))?;
    patient.suffer(
        report,
        "compacted while away",
        spoil(Fault::Refuse),
        || thread::sleep(Duration::from_secs(1)),
        |sick| {
            sick.world.etcd.compact()?;
            spoil(Fault::None)(sick)
        },
    )?;
    patient.suffer(
        report,
        "values corrupted",
        |sick| sick.peers.iter().try_for_each(|peer| sick.world.etcd.put(&peer.key(), "rubbish")),
        wait,
        Patient::put_peers,
    )?;
    patient.suffer(
        report,
        "wiped",
        |sick| {
            sick.world.etcd.restart_empty()?;
            sick.world.etcd.put(CONFIG_KEY, CONFIG)
        },
        wait,
        Patient::put_peers,
    )?;
    // A host that joins after the snapshot is missing from it.
    let snapshot = patient.world.etcd.snapshot()?;
    let later = patient.world.put(Peer::new(231))?;
    patient.peers.push(later);
    patient.member.wait_peers(&patient.peers)?;
    patient.suffer(report, "restored from an older snapshot", |sick| sick.world.etcd.restart_from(&snapshot), wait, Patient::put_peers)
}

/// An agent that has never known the store otherwise.
fn slow_from_the_start(patient: &mut Patient, report: &mut Report) -> Result<()> {
    patient.proxy.set(Fault::Delay(SLOW));
    patient.member.agent.restart()?;
    let start = Instant::now();
    let ready = patient.member.agent.wait_ready(PATIENCE * 6);
    report.fault("an agent starts on a store that takes 5 s for everything", ready.ok().map(|()| start.elapsed()));
    patient.proxy.set(Fault::None);
    Ok(())
}
