//! What somebody keeps undoing is a fight, is named as one, and holds up nothing else; what is undone once is none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use testkit::world::{PATIENCE, VTEP};
use testkit::{KernelEntry, Table, Watch, wait_for};

use crate::healing::{addresses, stage};

#[test]
fn one_deletion_is_one_repair_and_six_different_edits_are_no_fight() -> Result<()> {
    let (_world, peers, mut member) = stage(201..=220)?;
    let edits = [
        format!("link set {VTEP} mtu 1300"),
        format!("link set {VTEP} address 02:ee:00:00:00:03"),
        format!("link set {VTEP} down"),
        format!("address add 10.5.240.1/24 dev {VTEP}"),
        format!("link set {VTEP} type vxlan local 192.168.77.99"),
        format!("link set {VTEP} addrgenmode eui64"),
        format!("link del {VTEP}"),
    ];
    for edit in &edits {
        member.host.ip_batch(&format!("{edit}\n"))?;
        wait_for(&format!("the end of {edit}"), PATIENCE, || {
            let vtep = member.vtep()?;
            ensure!(
                vtep["mtu"] == 1450 && vtep["inet6_addr_gen_mode"] == "none" && vtep["flags"].to_string().contains("\"UP\""),
                "{vtep:#}"
            );
            ensure!(vtep["linkinfo"]["info_data"]["local"] == "192.168.77.1", "{vtep:#}");
            ensure!(!addresses(&member)?.contains("10.5.240.1"));
            Ok(())
        })?;
        member.wait_peers(&peers)?;
    }
    member.agent.wait_ready(PATIENCE)?;
    let status = member.agent.status_json()?;
    let heals = status["heals"].as_array().context("no heals")?;
    ensure!(status["fights"].as_array().is_some_and(Vec::is_empty), "{:#}", status["fights"]);
    ensure!((edits.len()..edits.len() + 3).contains(&heals.len()), "{heals:#?}");
    ensure!(heals[0]["command"].to_string().contains("ip link add flannel.1"), "{:#}", heals[0]);
    Ok(())
}

#[test]
fn who_keeps_deleting_a_route_gets_a_fight_that_is_shown_and_holds_up_nobody_else() -> Result<()> {
    let (_world, peers, mut member) = stage(201..=203)?;
    let over = AtomicBool::new(false);
    let host = member.host.clone();
    thread::scope(|scope| {
        let vandal = scope.spawn(|| -> Result<u32> {
            let watch = Watch::new(&host)?;
            let mut deleted = 0;
            while !over.load(Ordering::Relaxed) {
                // Whenever it is there.
                deleted += u32::from(host.run(&["ip", "route", "del", "10.5.201.0/24", "dev", VTEP]).is_ok());
                watch.changes(std::time::Duration::from_millis(10))?;
            }
            Ok(deleted)
        });
        let meanwhile = || -> Result<()> {
            let status = member.wait_status("a fight", |status| status["fights"].as_array().is_some_and(|fights| !fights.is_empty()))?;
            ensure!(status["fights"][0]["what"].to_string().contains("10.5.201.0/24"), "{:#}", status["fights"]);
            member.wait_unready_for(&["10.5.201.0/24"])?;
            let batches = member.agent.metric("loden_batches_total")?;
            // Another key heals at once all the while.
            let watch = Watch::new(&member.host)?;
            let other = KernelEntry::list(&member.host, Table::Route, VTEP)?;
            let other = other.iter().find(|entry| entry.key == [10, 5, 202, 0]).context("no other route")?;
            watch.outage(other, PATIENCE)?;
            let more = member.agent.metric("loden_batches_total")? - batches;
            ensure!(more < 20.0, "{more} batches: it spins");
            Ok(())
        };
        let meanwhile = meanwhile();
        over.store(true, Ordering::Relaxed);
        let deleted = vandal.join().map_err(|_| anyhow!("the vandal panicked"))??;
        meanwhile?;
        ensure!((6..200).contains(&deleted), "put back {deleted} times");
        Ok(())
    })?;
    // The vandal is gone: peace, once it is that route's turn.
    member.wait_peers(&peers)?;
    member.agent.wait_ready(PATIENCE)
}
