//! A mesh of hosts some of which run flanneld, others loden.

use anyhow::{Context, Result};
use serde_json::Value;
use testkit::Lab;
use testkit::cases;
use testkit::trial::{Case, Report};
use testkit::world::PATIENCE;

use crate::Agents;
use crate::peer::Which::{Flanneld, Loden};
use crate::scene::{Party, Scene};

pub(crate) const CASES: &[Case<Agents>] = cases![
    flanneld_and_loden_hosts_reach_each_other_with_small_and_full_packets,
    hosts_that_join_a_mixed_mesh_are_reached_by_all,
    hosts_that_leave_a_mixed_mesh_are_forgotten_by_all,
    a_loden_host_with_a_new_address_is_followed_by_flanneld,
    a_flanneld_host_with_a_new_address_is_followed_by_loden,
    records_are_alike_but_for_the_owner,
];

fn flanneld_and_loden_hosts_reach_each_other_with_small_and_full_packets(agents: &Agents, report: &mut Report) -> Result<()> {
    let scene = Scene::with(agents, &[Flanneld, Loden, Flanneld, Loden])?;
    whole(&scene, "all containers reach all", report);
    Ok(())
}

fn hosts_that_join_a_mixed_mesh_are_reached_by_all(agents: &Agents, report: &mut Report) -> Result<()> {
    let mut scene = Scene::with(agents, &[Flanneld, Loden])?;
    whole(&scene, "the first two reach each other", report);
    for which in [Flanneld, Loden] {
        scene.join(which)?;
        whole(&scene, &format!("a {which} host has joined: all containers reach all"), report);
    }
    Ok(())
}

fn hosts_that_leave_a_mixed_mesh_are_forgotten_by_all(agents: &Agents, report: &mut Report) -> Result<()> {
    let mut scene = Scene::with(agents, &[Flanneld, Loden, Flanneld, Loden])?;
    scene.whole(PATIENCE)?;
    let mut l4 = scene.parties.pop().context("four hosts")?;
    l4.member.agent.terminate()?;
    l4.member.agent.ask_with_flags("release")?;
    gone(&scene, &l4, "a loden host has released its lease", report)?;
    let mut f3 = scene.parties.pop().context("three hosts")?;
    f3.member.agent.terminate()?;
    // flanneld has no way to leave: this is what its lease's end does a day later.
    scene.world.etcd.del(&f3.member.key()?)?;
    gone(&scene, &f3, "a flanneld host's lease has ended", report)?;
    whole(&scene, "those that are left reach each other", report);
    Ok(())
}

fn a_loden_host_with_a_new_address_is_followed_by_flanneld(agents: &Agents, report: &mut Report) -> Result<()> {
    let mut scene = Scene::with(agents, &[Flanneld, Loden, Loden])?;
    scene.whole(PATIENCE)?;
    let [_, l2, _] = scene.parties()?;
    let before = l2.identity()?;
    let took = readdressed(l2, "192.168.77.62").and_then(|()| scene.whole(PATIENCE));
    report.gate("all reach it at its new address", took.is_ok(), shown(&took));
    let [_, l2, _] = scene.parties()?;
    let after = l2.identity()?;
    report.gate("its device, MAC and subnet file are the same", before == after, after.devices.trim());
    whole(&scene, "full packets too", report);
    Ok(())
}

fn a_flanneld_host_with_a_new_address_is_followed_by_loden(agents: &Agents, report: &mut Report) -> Result<()> {
    let mut scene = Scene::with(agents, &[Flanneld, Loden, Flanneld])?;
    scene.whole(PATIENCE)?;
    let [f1, _, _] = scene.parties()?;
    let before = f1.member.key()?;
    readdressed(f1, "192.168.77.61")?;
    // It reads the underlay once.
    f1.member.agent.terminate()?;
    f1.member.agent.restart()?;
    f1.member.agent.wait_ready(PATIENCE)?;
    let after = f1.member.key()?;
    let kept = if before == after { "the same subnet" } else { "another subnet" };
    report.compare(
        "a host's address changes",
        format!("notices at its next start, then has {kept} ({} → {})", name(&before), name(&after)),
        "notices at once, keeps subnet, MAC and device",
    );
    // What its containers had is nobody's any more: it is one that is made now that has to be reached.
    let f1 = scene.parties.remove(0);
    let Party { which, container, member } = f1;
    if before != after {
        let bridge = member.host.subnet_env()?.subnet()?;
        member.host.ip_batch(&format!("addr flush dev cni0\naddr add {bridge} dev cni0\n"))?;
    }
    let name = format!("{}-new", container.name());
    drop(container);
    let container = member.host.container(&name)?;
    scene.parties.insert(0, Party { which, container, member });
    whole(&scene, "flanneld and loden hosts reach it at its new address", report);
    Ok(())
}

fn records_are_alike_but_for_the_owner(agents: &Agents, report: &mut Report) -> Result<()> {
    let mut scene = Scene::with(agents, &[Flanneld, Loden])?;
    let leases = scene.leases()?;
    let [f1, l2] = scene.parties()?;
    for party in [f1, l2] {
        let key = party.member.key()?;
        let entry = leases.iter().find(|entry| entry.key == key).with_context(|| format!("{key} is not in etcd"))?;
        let record: Value = serde_json::from_str(&entry.value)?;
        let mac = party.member.vtep_identity()?.1;
        let wanted = testkit::world::record(&party.member.host.address().to_string(), &mac);
        // Readers that know fewer fields see flannel's: those come first, in its order.
        let flannels = wanted.trim_end_matches('}');
        let same = entry.value == wanted || entry.value.starts_with(flannels) && record.get("Owner").is_some();
        report.gate(format!("{}'s record is flannel's, field by field", party.which), same, &entry.value);
        report.gate(format!("{}'s lease lasts a day", party.which), entry.lease != 0, format!("etcd lease {:x}", entry.lease));
    }
    Ok(())
}

/// The host's address is another one from now on, in the same network.
pub(crate) fn readdressed(party: &Party, address: &str) -> Result<()> {
    let host = &party.member.host;
    let lines =
        format!("addr del {}/24 dev eth0\naddr add {address}/24 dev eth0\nroute add default via {}\n", host.address(), Lab::GATEWAY);
    host.ip_batch(&lines)
}

/// Gates for small and for full-size packets between all.
pub(crate) fn whole(scene: &Scene, wanted: &str, report: &mut Report) {
    let took = scene.whole(PATIENCE);
    report.gate(wanted, took.is_ok(), shown(&took));
    let pings = scene.full_size();
    let seen = pings.as_ref().map_or_else(|error| format!("{error:#}"), |pings| format!("{pings} pings"));
    report.gate(format!("{wanted}, with the full MTU and no fragments"), pings.is_ok(), seen);
}

/// The gate that nobody knows a host any more.
fn gone(scene: &Scene, party: &Party, what: &str, report: &mut Report) -> Result<()> {
    let took = scene.forgotten(&format!("{}.", party.prefix()?));
    report.gate(format!("{what}: nobody has an entry of it any more"), took.is_ok(), shown(&took));
    Ok(())
}

fn shown(took: &Result<std::time::Duration>) -> String {
    took.as_ref().map_or_else(|error| format!("{error:#}"), |took| format!("after {took:.1?}"))
}

/// The last part of a key.
fn name(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}
