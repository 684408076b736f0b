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
fn hostile_garbage_wherever_others_write_is_endured() -> Result<()> {
    short("hostile")
}
