//! The peer filter's table as nft lists it.

use anyhow::{Context, Result};

use crate::Host;

/// The table of VNI 1.
pub const FILTER_TABLE: &str = "loden-flannel.1";

/// What nft lists, less what was counted and the order of elements; none where there is no table.
///
/// # Errors
/// When nft cannot be run.
pub fn filter_table(host: &Host) -> Result<Option<Vec<String>>> {
    let tables = host.run(&["nft", "list", "tables"])?;
    if !tables.lines().any(|line| line.trim() == format!("table ip {FILTER_TABLE}")) {
        return Ok(None);
    }
    let text = host.run(&["nft", "--stateless", "-n", "list", "table", "ip", FILTER_TABLE])?;
    let mut words: Vec<String> = Vec::new();
    for line in text.lines() {
        // Elements stand several to a line, in the kernel's order.
        words.extend(line.replace("elements = {", "").split([',', '}']).map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()));
    }
    words.sort();
    Ok(Some(words))
}

/// How many packets it has dropped.
///
/// # Errors
/// When there is no such table, or no counter in it.
pub fn filter_drops(host: &Host) -> Result<u64> {
    let text = host.run(&["nft", "list", "chain", "ip", FILTER_TABLE, "vxlan"])?;
    let counted = text.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
    Ok(counted.context("no counter")?.parse()?)
}
