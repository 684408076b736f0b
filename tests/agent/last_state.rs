//! The last state on disk: a host that boots while the store is away goes on from it, and from nothing that may be another's.

use anyhow::{Context, Result, ensure};
use testkit::wait_for;
use testkit::world::{Member, PATIENCE, Peer, World, write};

const STATE: &str = "/var/lib/loden/state";

/// Waits until the state on disk speaks of this many peers.
fn wait_written(member: &Member, peers: usize) -> Result<String> {
    wait_for("the last state to be written", PATIENCE, || {
        let text = member.host.read(STATE)?;
        ensure!(text.ends_with(&format!("\npeers {peers}\n")), "it says {text}");
        Ok(text)
    })
}

/// A member whose host has been booted while the store is away; the agent is started and not waited for.
fn booted(world: &mut World, numbers: impl IntoIterator<Item = u8>) -> Result<(Member, Vec<Peer>)> {
    let peers = world.peers(numbers)?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    wait_written(&member, peers.len())?;
    member.agent.kill9()?;
    member.host.boot()?;
    Ok((member, peers))
}

#[test]
fn a_host_that_boots_while_the_store_is_away_goes_on_from_its_last_state_until_the_store_speaks() -> Result<()> {
    let mut world = World::new()?;
    let (mut member, mut peers) = booted(&mut world, [201, 202, 203])?;
    let leases = world.etcd.get_prefix("/coreos.com/network/subnets/")?;
    world.etcd.kill()?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_peers(&peers)?;
    ensure!(leases.iter().any(|lease| member.key().is_ok_and(|key| lease.key == key)), "{} is another subnet", member.key()?);
    ensure!(member.agent.get("/readyz")?.1.contains("last state"), "{}", member.agent.get("/readyz")?.1);
    member.wait_status("that it is stale", |status| status["stale"] == true && status["ready"] == true)?;
    member.wait_metric("loden_stale", 1.0)?;
    // It heals as always.
    member.host.ip_batch("route del 10.5.201.0/24 dev flannel.1\nlink del flannel.1\n")?;
    member.wait_peers(&peers)?;
    world.etcd.restart()?;
    // What happened meanwhile is taken over; nothing is written where nothing changed.
    world.etcd.del(&peers.remove(0).key())?;
    peers.push(world.put(Peer::new(204))?);
    member.wait_peers(&peers)?;
    member.wait_status("that it is not stale any more", |status| status["stale"] == false && status["ready"] == true)?;
    member.wait_metric("loden_stale", 0.0)?;
    let lease = member.lease(&world)?;
    ensure!(leases.contains(&lease), "{lease:?} is not as it was: {leases:?}");
    ensure!(member.log_lines(&["not ready any more", "lease"]) == 0, "{}", member.agent.log_tail());
    Ok(())
}

#[test]
fn a_restart_while_the_store_is_away_heals_and_is_ready_and_writes_nothing_that_is_there() -> Result<()> {
    let mut world = World::new()?;
    let peers = world.peers([201, 202])?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    wait_written(&member, 2)?;
    world.etcd.kill()?;
    member.agent.kill9()?;
    member.host.ip_batch("route del 10.5.201.0/24 dev flannel.1\n")?;
    let monitor = testkit::Monitor::start(&member.host)?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_peers(&peers)?;
    let other: Vec<_> = monitor.so_far()?.into_iter().filter(|line| !line.contains("10.5.201.0")).collect();
    ensure!(other.is_empty(), "{other:#?}");
    Ok(())
}

#[test]
fn a_state_that_cannot_be_gone_on_from_is_named_and_the_store_is_waited_for() -> Result<()> {
    let mut world = World::new()?;
    let (mut member, peers) = booted(&mut world, [201])?;
    world.etcd.kill()?;
    let good = member.host.read(STATE)?;
    let ends = good.split("\"ends\":").nth(1).and_then(|rest| rest.split(',').next()).context("no end")?.to_owned();
    for (text, words) in [
        (good.replace(&format!("\"ends\":{ends}"), "\"ends\":1000"), "has ended since"),
        (good.replace("\"written\":", "\"written\":9"), "clock is wrong"),
        (good.replace("/coreos.com/network/config", "/other/config"), "is of the network under /other/config"),
        (good.replace("Owner\\\":\\\"", "Owner\\\":\\\"0"), "another machine"),
        (good.replace("peers 1", "peers 2"), "announces another number of peers"),
        (good[..good.len() / 2].to_owned(), "ends here"),
        (String::new(), "line 1"),
    ] {
        ensure!(text != good, "nothing was changed for {words:?}");
        write(&member.host, STATE, &text)?;
        member.agent.restart()?;
        member.wait_log(&["no last state to go on from", words])?;
        member.wait_unready()?;
        ensure!(member.vtep().is_err() && member.host.subnet_env().is_err(), "it went on with {text}");
    }
    world.etcd.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_peers(&peers)
}

#[test]
fn a_fifo_in_its_place_keeps_nobody_waiting() -> Result<()> {
    let mut world = World::new()?;
    let (mut member, _) = booted(&mut world, [201])?;
    world.etcd.kill()?;
    member.host.run(&["sh", "-ec", &format!("rm {STATE}; mkfifo {STATE}")])?;
    member.agent.restart()?;
    member.wait_log(&["no last state to go on from", "it is no file"])?;
    member.agent.terminate().map(drop)
}

#[test]
fn the_state_of_a_lease_that_another_host_holds_is_forgotten() -> Result<()> {
    let world = World::new()?;
    let member = world.member("h1")?;
    wait_written(&member, 0)?;
    let lease = member.lease(&world)?;
    world.etcd.put(&lease.key, &Peer::new(201).record())?;
    member.wait_unready_for(&["lease lost"])?;
    wait_for("the state to be gone", PATIENCE, || {
        ensure!(member.host.read(STATE).is_err());
        Ok(())
    })
}

#[test]
fn where_no_state_can_be_kept_the_agent_says_so_once_and_works() -> Result<()> {
    let world = World::new()?;
    let host = world.lab.host("h1")?;
    let options = world.options()?.args(["--state-file", "/proc/none/state"]);
    let mut member = Member::on(host, options)?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_log(&["last state cannot be kept", "/proc/none/state"])?;
    let peers = world.peers([201])?;
    member.wait_peers(&peers)?;
    member.ensure_ready()
}

#[test]
fn with_the_guard_off_a_store_that_lacks_all_peers_is_believed_and_with_a_short_hold_after_that() -> Result<()> {
    for (flag, held) in [("--mass-removal-accept", false), ("--mass-removal-hold=3", true)] {
        let mut world = World::new()?;
        let peers = world.peers(201..=204)?;
        let mut member = Member::on(world.lab.host("h1")?, world.options()?.args([flag]))?;
        member.agent.wait_ready(PATIENCE)?;
        member.wait_peers(&peers)?;
        world.etcd.restart_empty()?;
        world.etcd.put(testkit::world::CONFIG_KEY, testkit::world::CONFIG)?;
        if held {
            member.wait_metric("loden_held_removals", 4.0)?;
        }
        member.wait_peers([])?;
        member.wait_metric("loden_held_removals", 0.0)?;
        ensure!((member.log_lines(&["lacks peers"]) > 0) == held, "{}", member.agent.log_tail());
    }
    Ok(())
}
