//! The filters of this host that are ours to take away: tables of nf_tables, and our rules in others' chains.

use std::fmt::Write;

use anyhow::bail;
use lease::{Family, Subnet};
use overlay::OurTable;

use super::vteps::vni_of;
use crate::agent::name_of;
use crate::cli::Options;
use crate::subnet_env::Remembered;

/// Those that are there, of any agent's VTEP or of the subnet file's network; and those that these devices would have, whose rules in
/// others' chains may have outlived them.
pub(super) async fn candidates(options: &Options, devices: &[String]) -> anyhow::Result<Vec<OurTable>> {
    let Remembered { network, ipv6_network, .. } = Remembered::read(&options.subnet_file);
    let networks: Vec<String> = [network, ipv6_network].into_iter().flatten().map(name_of).collect();
    let mut all = overlay::our_tables().await?;
    all.retain(|table| vni_of(&table.device).is_some() || networks.contains(&table.device));
    for device in devices.iter().chain(&networks) {
        let name = overlay::net_table_name(device);
        for family in Family::ALL {
            let table = OurTable { family, device: device.clone(), name: name.clone() };
            if !all.contains(&table) {
                all.push(table);
            }
        }
    }
    Ok(all)
}

/// Removes them; says what was there.
pub(super) async fn remove(filters: &[OurTable], out: &mut String) -> anyhow::Result<()> {
    for table in filters {
        if overlay::remove_table(table).await? {
            writeln!(out, "nft delete table {table}")?;
        }
        let (gone, trouble) = overlay::remove_guests(table).await?;
        for place in gone {
            writeln!(out, "# rules with the comment {} deleted from {place}", table.name)?;
        }
        if let Some(trouble) = trouble {
            bail!("rules with the comment {} may be left: {trouble}", table.name);
        }
    }
    Ok(())
}

/// Whether they may go: flanneld's own rules are in force for each of these networks, or packets do not rely on ours.
pub(super) async fn replaced(filters: &[OurTable], networks: &[Subnet]) -> anyhow::Result<bool> {
    for network in networks {
        for table in filters.iter().filter(|table| table.family == Family::of(network.address())) {
            if overlay::is_relied_on(table).await? && !overlay::flanneld_filters(*network).await? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
