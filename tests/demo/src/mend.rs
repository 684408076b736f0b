//! Steps 4 and 5: what somebody deletes comes back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::{KernelEntry, Table, Watch, wait_for};

use crate::cast::{Cast, PATIENCE, VTEP};
use crate::tale::{Tale, time};

pub(crate) fn device(cast: &mut Cast, tale: &mut Tale) -> Result<()> {
    tale.step(&format!("Somebody deletes {VTEP} on h2"));
    let mut mesh = cast.mesh()?;
    let member = cast.member("h2")?;
    let before = (member.vtep()?, member.entries()?);
    let start = Instant::now();
    member.host.run(&["ip", "link", "del", VTEP])?;
    let deletion = start.elapsed();
    mesh.wait_whole(PATIENCE)?;
    let took = start.elapsed();
    let vtep = member.vtep()?;
    ensure!(vtep.index != before.0.index, "{VTEP} was not deleted at all");
    ensure!(vtep.mac == before.0.mac && vtep.mtu == before.0.mtu, "{VTEP} came back as another: {} MTU {}", vtep.mac, vtep.mtu);
    same_entries(cast, "h2", &before.1)?;
    tale.figure(
        "device deleted, until all reach all",
        time(took),
        &format!("of which `ip link del` took {}; same MAC, same entries", time(deletion)),
    );
    Ok(())
}

pub(crate) fn entries(cast: &mut Cast, tale: &mut Tale) -> Result<()> {
    tale.step("Somebody deletes routes, neighbours, FDB entries");
    tale.say("Each in turn; timed from the request to delete it until the kernel tells of its return.");
    let kinds = [(Table::Route, "a route"), (Table::Neighbour, "a neighbour"), (Table::Fdb, "an FDB entry")];
    for (table, kind) in kinds {
        let mut outages = Vec::new();
        for index in 0..cast.members.len() {
            let member = cast.members.get(index).context("a host is missing")?;
            let name = member.host.name().to_owned();
            cast.suspect = Some(name.clone());
            let before = member.entries()?;
            let watch = Watch::new(&member.host)?;
            for entry in KernelEntry::list(&member.host, table, VTEP)? {
                outages.push(watch.outage(&entry, PATIENCE).with_context(|| format!("on {name}"))?);
            }
            same_entries(cast, &name, &before)?;
        }
        outages.sort();
        let median = outages.get(outages.len() / 2).context("there was nothing to delete")?;
        let worst = outages.last().map_or(Duration::ZERO, |worst| *worst);
        tale.figure(
            &format!("{kind} deleted, until it is back"),
            time(*median),
            &format!("median of {}, longest {}", outages.len(), time(worst)),
        );
    }
    Ok(())
}

/// The last of several entries may come back after traffic flows again.
fn same_entries(cast: &Cast, name: &str, before: &[String]) -> Result<()> {
    let member = cast.members.iter().find(|member| member.host.name() == name).context("the host is missing")?;
    wait_for(&format!("the entries on {name} to be as before"), PATIENCE, || {
        let now = member.entries()?;
        ensure!(now == before, "before: {before:#?}; now: {now:#?}");
        Ok(())
    })
}
