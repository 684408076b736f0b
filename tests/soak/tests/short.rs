//! Every family of faults, in its shortest form.

use anyhow::{Result, ensure};
use soak::{Budget, FAMILIES};

/// Runs a family, and fails with all that did not hold.
fn short(name: &str) -> Result<()> {
    let family = FAMILIES.iter().find(|family| family.name == name);
    let Some(family) = family else { anyhow::bail!("there is no family {name}") };
    let report = (family.run)(Budget::SHORT)?;
    ensure!(!report.is_empty(), "nothing was tried");
    ensure!(report.failures().is_empty(), "{:#?}\n{report}", report.failures());
    Ok(())
}

#[test]
fn boots_while_the_store_is_away() -> Result<()> {
    short("boot")
}

#[test]
fn differential_a_model_of_flanneld_agrees_with_the_kernel() -> Result<()> {
    short("differential")
}

#[test]
fn security_crafted_packets_reach_no_container_while_peers_come_and_go() -> Result<()> {
    short("security")
}

#[test]
fn healing_of_each_fault_of_pairs_and_of_all_at_once() -> Result<()> {
    short("healing")
}

#[test]
fn storm_of_a_hundred_faults_a_second() -> Result<()> {
    short("storm")
}

#[test]
fn underlay_that_changes_in_every_way() -> Result<()> {
    short("underlay")
}

#[test]
fn fight_with_a_second_manager() -> Result<()> {
    short("fight")
}

#[test]
fn restart_by_kill_stop_upgrade_and_suspension() -> Result<()> {
    short("restart")
}

#[test]
fn store_in_every_kind_of_trouble() -> Result<()> {
    short("store")
}

#[test]
fn leases_contested_and_lost() -> Result<()> {
    short("leases")
}

#[test]
fn hostile_garbage_wherever_others_write_is_endured() -> Result<()> {
    short("hostile")
}
