//! Faults of leases and of what stands in them.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use testkit::cases;
use testkit::trial::{Case, Report};
use testkit::wait_for;
use testkit::world::{CONFIG, PATIENCE, SUBNETS, record};

use super::{Outcome, beside, soon};
use crate::Agents;
use crate::families::mesh::readdressed;
use crate::scene::Scene;

pub(crate) const CASES: &[Case<Agents>] = cases![
    a_reservation_that_was_taken_stays_a_reservation,
    a_lease_that_was_deleted_is_claimed_again,
    a_new_underlay_address_is_told_to_the_others,
    without_a_backend_the_network_is_vxlan,
];

fn a_reservation_that_was_taken_stays_a_reservation(agents: &Agents, report: &mut Report) -> Result<()> {
    let fault = ("S8: a key without an etcd lease names the host", "it takes that subnet and leaves the key without a lease");
    beside(agents, report, fault, |agents, which| {
        let mut scene = Scene::new(agents, CONFIG, &[])?;
        scene.world.put_raw("10.5.200.0-24", &record("192.168.77.1", "02:00:00:00:00:c8"))?;
        let party = scene.join(which)?;
        let key = party.member.key()?;
        let entry = scene.world.etcd.get(&key)?.with_context(|| format!("{key} is not in etcd"))?;
        let taken = key == format!("{SUBNETS}10.5.200.0-24");
        let mut text = format!("it has {}", key.trim_start_matches(SUBNETS));
        match scene.world.etcd.lease_left(entry.lease).ok().flatten().filter(|_| entry.lease != 0) {
            Some(left) => write!(text, ", which ends in {} h unless it is renewed", (left + 1_800) / 3_600)?,
            None => text.push_str(", for ever"),
        }
        Ok(Outcome::new(taken && entry.lease == 0, text))
    })
}

fn a_lease_that_was_deleted_is_claimed_again(agents: &Agents, report: &mut Report) -> Result<()> {
    let fault = ("S21: the host's own lease is deleted", "it is claimed again, and the agent runs on");
    beside(agents, report, fault, |agents, which| {
        let mut scene = Scene::with(agents, &[which])?;
        let key = scene.first()?.member.key()?;
        scene.world.etcd.del(&key)?;
        let outcome = soon("it is there again", || scene.world.etcd.get(&key)?.context("it is not there").map(drop));
        Ok(match scene.first()?.member.agent.ended()? {
            Some(status) => Outcome::new(false, format!("it has ended: {status}")),
            None => outcome,
        })
    })
}

fn a_new_underlay_address_is_told_to_the_others(agents: &Agents, report: &mut Report) -> Result<()> {
    let fault = ("S21: the host's underlay address changes", "its record names the new one");
    beside(agents, report, fault, |agents, which| {
        let mut scene = Scene::with(agents, &[which])?;
        let party = scene.first()?;
        let key = party.member.key()?;
        readdressed(party, "192.168.77.99")?;
        Ok(soon("the record names it", || {
            let entry = scene.world.etcd.get(&key)?.context("it is not there")?;
            ensure!(entry.value.contains("\"192.168.77.99\""), "the record names the old address");
            Ok(())
        }))
    })
}

fn without_a_backend_the_network_is_vxlan(agents: &Agents, report: &mut Report) -> Result<()> {
    let fault = ("S22: a configuration without `Backend`", "it is vxlan, as flannel's documents say");
    beside(agents, report, fault, |agents, which| {
        let scene = Scene::new(agents, r#"{"Network":"10.5.0.0/16"}"#, &[])?;
        let agent = scene.world.lab.host("h1")?.agent(scene.options(which)?)?;
        let record = wait_for("a lease", PATIENCE, || {
            let leases = scene.leases()?;
            leases.first().map(|entry| entry.value.clone()).with_context(|| agent.log_tail())
        })?;
        let vxlan = record.contains("\"BackendType\":\"vxlan\"");
        Ok(Outcome::new(vxlan, format!("it is {}: the record is {record}", if vxlan { "vxlan" } else { "udp" })))
    })
}
