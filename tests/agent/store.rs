//! The store goes away, comes back, forgets its history, or everything. The data plane does not care.

use anyhow::{Context, Result, ensure};
use testkit::wait_for;

use testkit::Monitor;
use testkit::world::{CONFIG, CONFIG_KEY, PATIENCE, Peer, World};

#[test]
fn while_the_store_is_down_everything_stays_and_heals_and_is_ready_and_what_came_meanwhile_is_seen_after() -> Result<()> {
    let mut world = World::new()?;
    let mut peers = world.peers([201, 202])?;
    let member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let monitor = Monitor::start(&member.host)?;
    world.etcd.kill()?;
    member.wait_status("that the store is down", |status| status["store"]["state"] == "down")?;
    member.wait_metric("loden_store_up", 0.0)?;
    member.ensure_ready()?;
    ensure!(monitor.so_far()?.is_empty(), "the kernel was touched: {:#?}", monitor.so_far()?);
    member.host.ip_batch("route del 10.5.201.0/24 dev flannel.1\n")?;
    member.wait_peers(&peers)?;
    let lines = member.log_lines(&["etcd"]);
    member.wait_status("two seconds of it", |status| status["store"]["since"].as_u64() >= Some(2))?;
    ensure!(member.log_lines(&["etcd"]) <= lines + 1, "more than a line a change:\n{}", member.agent.log_tail());
    world.etcd.restart()?;
    peers.push(world.put(Peer::new(203))?);
    member.wait_peers(&peers)?;
    member.wait_status("that the store is up", |status| status["store"]["state"] == "up" && status["ready"] == true)?;
    let before: Vec<_> = monitor.so_far()?.into_iter().filter(|line| line.contains("10.5.202.0")).collect();
    ensure!(before.is_empty(), "{before:#?}");
    Ok(())
}

#[test]
fn a_store_that_stops_answering_on_an_open_connection_is_noticed_and_survived() -> Result<()> {
    let mut world = World::new()?;
    let mut peers = world.peers([201])?;
    let member = world.member("h1")?;
    member.wait_peers(&peers)?;
    world.etcd.pause()?;
    wait_for("the store to be called down", PATIENCE * 3, || {
        let status = member.agent.status_json()?;
        ensure!(status["store"]["state"] == "down", "{:#}", status["store"]);
        Ok(())
    })?;
    member.ensure_ready()?;
    world.etcd.resume()?;
    peers.push(world.put(Peer::new(202))?);
    member.wait_peers(&peers)
}

#[test]
fn history_that_was_compacted_while_the_agent_could_not_hear_is_made_up_for_by_a_list() -> Result<()> {
    let mut world = World::new()?;
    let peers = world.peers([201, 202, 203])?;
    let member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let monitor = Monitor::start(&member.host)?;
    // The agent hears nothing, while etcd is spoken to from the switch.
    member.host.unplug()?;
    world.etcd.kill()?;
    world.etcd.restart()?;
    world.etcd.del(&peers[0].key())?;
    let changed = world.put(peers[1].with_mac("02:aa:00:00:00:02").at("192.168.77.88"))?;
    let joined = world.put(Peer::new(204))?;
    world.etcd.compact()?;
    member.host.plug()?;
    member.wait_peers([&changed, &peers[2], &joined])?;
    let touched: Vec<_> = monitor.so_far()?.into_iter().filter(|line| line.contains("10.5.203.0")).collect();
    ensure!(touched.is_empty(), "{touched:#?}");
    Ok(())
}

#[test]
fn a_store_that_suddenly_has_no_peers_takes_none_of_many_away_and_the_own_lease_is_put_back() -> Result<()> {
    let mut world = World::new()?;
    let peers = world.peers(201..=204)?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let (lease, monitor) = (member.lease(&world)?, Monitor::start(&member.host)?);
    world.etcd.restart_empty()?;
    world.etcd.put(CONFIG_KEY, CONFIG)?;
    let again = wait_for("the lease to be claimed again", PATIENCE, || world.etcd.get(&lease.key)?.context("it is not there"))?;
    ensure!(again.value == lease.value, "{again:?}");
    let status = member.wait_status("what it holds", |status| status["held_removals"]["peers"] == 4)?;
    ensure!(status["held_removals"]["passes_in"].as_u64() > Some(200), "{:#}", status["held_removals"]);
    member.wait_log(&["ERROR", "lacks peers"])?;
    // Those who claim their leases again are peers as before; a further one is seen as always.
    world.put(peers[0].clone())?;
    let joined = world.put(Peer::new(205))?;
    member.wait_peers(peers.iter().chain([&joined]))?;
    let touched: Vec<_> =
        monitor.so_far()?.into_iter().filter(|line| !line.contains("10.5.205.0") && !line.contains(&joined.mac)).collect();
    ensure!(touched.is_empty(), "{touched:#?}");
    // Explicit words pass, also while it holds.
    world.etcd.del(&peers[0].key())?;
    member.wait_peers(peers.iter().skip(1).chain([&joined]))?;
    member.agent.wait_ready(PATIENCE)?;
    // A restart does not forget what the kernel carries, and holds it just as well.
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_peers(peers.iter().skip(1).chain([&joined]))
}

#[test]
fn two_peers_that_are_gone_from_a_list_are_taken_away_at_once() -> Result<()> {
    let mut world = World::new()?;
    let peers = world.peers([201, 202, 203])?;
    let member = world.member("h1")?;
    member.wait_peers(&peers)?;
    member.host.unplug()?;
    world.etcd.kill()?;
    world.etcd.restart()?;
    world.etcd.del(&peers[0].key())?;
    world.etcd.del(&peers[1].key())?;
    world.etcd.compact()?;
    member.host.plug()?;
    member.wait_peers([&peers[2]])?;
    ensure!(member.agent.status_json()?["held_removals"].is_null());
    Ok(())
}

#[test]
fn a_configuration_that_cannot_be_used_or_followed_is_named_and_the_one_before_stays() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201])?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let monitor = Monitor::start(&member.host)?;
    for (config, words) in [
        ("{", &["not taken over", "stays in force"][..]),
        (r#"{"Network":"10.5.0.0/30"}"#, &["not taken over", "10.5.0.0/30"]),
        (r#"{"Network":"10.6.0.0/16"}"#, &["not taken over", "started again"]),
    ] {
        world.etcd.put(CONFIG_KEY, config)?;
        member.wait_log(words)?;
    }
    world.etcd.del(CONFIG_KEY)?;
    member.wait_log(&["missing", "stays in force"])?;
    let joined = world.put(Peer::new(202))?;
    member.wait_peers(peers.iter().chain([&joined]))?;
    member.ensure_ready()?;
    let touched: Vec<_> = monitor.so_far()?.into_iter().filter(|line| line.contains("10.5.201.0")).collect();
    ensure!(touched.is_empty(), "{touched:#?}");
    // One that changes nothing but the MTU is followed at once.
    world.etcd.put(CONFIG_KEY, r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}"#)?;
    wait_for("the MTU to follow", PATIENCE, || {
        ensure!(member.vtep()?["mtu"] == 1350 && member.host.subnet_env()?.mtu()? == 1350);
        Ok(())
    })?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_peers(peers.iter().chain([&joined]))
}

#[test]
fn an_underlay_that_changes_while_the_store_is_away_costs_no_peer_and_no_readiness() -> Result<()> {
    let mut world = World::new()?;
    let peers = world.peers([201, 202, 203])?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    world.etcd.kill()?;
    member.wait_status("that the store is down", |status| status["store"]["state"] == "down")?;
    for mtu in [1400, 1300, 1500] {
        // What the kernel lacks at the moment of the change is not forgotten.
        member.host.ip_batch(&format!("link set eth0 mtu {mtu}\nlink del flannel.1\n"))?;
        wait_for("the MTU to follow", PATIENCE, || {
            ensure!(member.vtep()?["mtu"] == mtu - 50);
            Ok(())
        })?;
        member.wait_peers(&peers)?;
        member.agent.wait_ready(PATIENCE)?;
    }
    world.etcd.restart()?;
    world.etcd.del(&peers[0].key())?;
    member.wait_peers(&peers[1..])?;
    member.agent.wait_ready(PATIENCE)
}
