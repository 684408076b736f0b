//! Other hosts come, go and change.

use anyhow::{Result, ensure};
use testkit::wait_for;

use testkit::Monitor;
use testkit::world::{PATIENCE, Peer, World};

#[test]
fn hosts_that_join_know_each_other_and_one_that_leaves_is_forgotten() -> Result<()> {
    let world = World::new()?;
    let mut members = [world.starting("h1")?, world.starting("h2")?, world.starting("h3")?];
    for member in &mut members {
        member.agent.wait_ready(PATIENCE)?;
    }
    let peer = |member: &testkit::world::Member| -> Result<Peer> {
        let subnet = member.host.subnet_env()?.subnet()?.network().to_string();
        let number = subnet.split('.').nth(2).unwrap_or_default().parse()?;
        Ok(Peer { number, mac: member.vtep_identity()?.1, address: member.host.address().to_string() })
    };
    let [p1, p2, p3] = [peer(&members[0])?, peer(&members[1])?, peer(&members[2])?];
    members[0].wait_peers([&p2, &p3])?;
    members[1].wait_peers([&p1, &p3])?;
    members[2].wait_peers([&p1, &p2])?;
    let (c1, c2) = (members[0].host.container("c1")?, members[1].host.container("c2")?);
    // The containers' own links take a moment to be up.
    wait_for("a ping", PATIENCE, || c1.ping(c2.address(), c1.full_payload(), true))?;
    members[2].agent.terminate()?;
    members[2].agent.ask_with_flags("release")?;
    members[0].wait_peers([&p2])?;
    members[1].wait_peers([&p1])?;
    members[0].wait_metric("loden_peers", 1.0)
}

#[test]
fn a_peers_new_mac_address_or_both_take_the_place_of_the_old_ones() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201, 202])?;
    let [other, peer] = peers.as_slice() else { unreachable!() };
    let member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let monitor = Monitor::start(&member.host)?;
    let new_mac = world.put(peer.with_mac("02:aa:00:00:00:01"))?;
    member.wait_peers([other, &new_mac])?;
    let new_address = world.put(new_mac.at("192.168.77.99"))?;
    member.wait_peers([other, &new_address])?;
    let both = world.put(Peer::new(202).at("192.168.77.98"))?;
    member.wait_peers([other, &both])?;
    let told = monitor.so_far()?;
    ensure!(!told.iter().any(|line| line.contains("10.5.202.0/24 via")), "the route was touched: {told:#?}");
    ensure!(!told.iter().any(|line| line.contains("10.5.201.0") || line.contains(&other.mac)), "another peer was touched: {told:#?}");
    member.ensure_ready()
}

#[test]
fn two_peers_that_swap_their_addresses_or_macs_are_followed() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201, 202])?;
    let [first, second] = peers.as_slice() else { unreachable!() };
    let member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let first = world.put(first.at(&second.address))?;
    let second = world.put(second.at("192.168.77.201"))?;
    member.wait_peers([&first, &second])?;
    // For a moment one MAC is at two addresses.
    let (first_mac, second_mac) = (first.mac.clone(), second.mac.clone());
    let first = world.put(first.with_mac(&second_mac))?;
    let second = world.put(second.with_mac(&first_mac))?;
    member.wait_peers([&first, &second])?;
    member.wait_metric("loden_rejected_records", 0.0)
}

#[test]
fn a_peer_whose_lease_expires_is_forgotten() -> Result<()> {
    let world = World::new()?;
    let stays = world.put(Peer::new(201))?;
    let (lease, expires) = (world.etcd.lease_grant(3600)?, Peer::new(202));
    world.etcd.put_with_lease(&expires.key(), &expires.record(), lease)?;
    let member = world.member("h1")?;
    member.wait_peers([&stays, &expires])?;
    world.etcd.lease_revoke(lease)?;
    member.wait_peers([&stays])
}

#[test]
fn many_hosts_that_join_at_once_are_all_there() -> Result<()> {
    let world = World::with_config(r#"{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}"#)?;
    let member = world.member("h1")?;
    // One transaction, one revision, one event batch: 100 is the most that etcd's default allows is 128 operations.
    let script: String = (0..100)
        .map(|n| {
            let record = testkit::world::record(&format!("192.168.78.{n}"), &format!("02:00:00:00:01:{n:02x}")).replace('"', "\\\"");
            format!("put {}10.77.{n}.0-24 \"{record}\"\n", testkit::world::SUBNETS)
        })
        .collect();
    let script = format!("\n{script}\n\n");
    let file = member.host.files().join("txn");
    std::fs::write(&file, script)?;
    let command = format!("ETCDCTL_API=3 etcdctl --endpoints {} txn <{}", world.etcd.endpoint(), file.display());
    member.host.run(&["sh", "-c", &command])?;
    member.wait_metric("loden_peers", 100.0)?;
    member.wait_metric("loden_entries_observed{kind=\"route\"}", 100.0)?;
    let entries = member.entries()?;
    ensure!(entries.len() == 300, "{}", entries.len());
    member.wait_status("in step", |status| status["ready"] == true).map(drop)
}
