//! The interface between the hosts changes under a running agent.

use anyhow::{Result, ensure};
use testkit::wait_for;

use crate::monitor::Monitor;
use crate::world::{Member, PATIENCE, SUBNETS, World};

#[test]
fn the_underlays_mtu_is_followed_by_device_and_subnet_file() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201, 202])?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let (identity, lease) = (member.vtep_identity()?, member.lease(&world)?);
    let monitor = Monitor::start(&member.host)?;
    for (mtu, inner) in [(1400, 1350), (1500, 1450)] {
        member.host.ip_batch(&format!("link set eth0 mtu {mtu}\n"))?;
        wait_for("the MTU to follow", PATIENCE, || {
            ensure!(member.vtep()?["mtu"] == inner && member.host.subnet_env()?.mtu()? == inner);
            Ok(())
        })?;
        member.agent.wait_ready(PATIENCE)?;
        member.wait_peers(&peers)?;
    }
    let touched: Vec<_> = monitor.so_far()?.into_iter().filter(|line| line.contains("10.5.20")).collect();
    ensure!(member.vtep_identity()? == identity && touched.is_empty(), "{touched:#?}");
    ensure!(member.lease(&world)? == lease, "the lease was written");
    Ok(())
}

#[test]
fn a_new_underlay_address_is_told_to_the_others_under_the_same_subnet_and_mac() -> Result<()> {
    let world = World::new()?;
    let (mut h1, mut h2) = (world.member("h1")?, world.member("h2")?);
    let (identity, before) = (h1.vtep_identity()?, h1.lease(&world)?);
    h1.host.ip_batch(&format!(
        "addr del 192.168.77.1/24 dev eth0\naddr add 192.168.77.61/24 dev eth0\nroute add default via {}\n",
        testkit::Lab::GATEWAY
    ))?;
    let after = wait_for("the record to name the new address", PATIENCE, || {
        let now = h1.lease(&world)?;
        ensure!(now.value.contains("\"192.168.77.61\""), "{now:?}");
        Ok(now)
    })?;
    ensure!(after.key == before.key && after.lease == before.lease && after.version == before.version + 1, "{after:?}");
    ensure!(after.value == before.value.replace("192.168.77.1\"", "192.168.77.61\""), "{after:?}");
    h1.agent.wait_ready(PATIENCE)?;
    let vtep = h1.vtep()?;
    ensure!(h1.vtep_identity()? == identity && vtep["linkinfo"]["info_data"]["local"] == "192.168.77.61", "{vtep:#}");
    wait_for("the other host to reach it there", PATIENCE, || {
        let entries = h2.entries()?;
        ensure!(entries.contains(&format!("{} dst 192.168.77.61 self permanent", identity.1)), "{entries:#?}");
        ensure!(!entries.iter().any(|entry| entry.contains("192.168.77.1 ")), "{entries:#?}");
        Ok(())
    })?;
    h2.agent.wait_ready(PATIENCE)?;
    ensure!(world.etcd.get_prefix(SUBNETS)?.len() == 2);
    let (c1, c2) = (h1.host.container("c1")?, h2.host.container("c2")?);
    wait_for("a ping", PATIENCE, || c2.ping(c1.address(), c1.full_payload(), true))
}

#[test]
fn a_host_that_got_another_address_while_the_agent_was_down_keeps_its_lease() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201])?;
    let mut member = world.member("h1")?;
    let (identity, before) = (member.vtep_identity()?, member.lease(&world)?);
    member.agent.kill9()?;
    member.host.ip_batch(&format!(
        "addr del 192.168.77.1/24 dev eth0\naddr add 192.168.77.61/24 dev eth0\nroute add default via {}\n",
        testkit::Lab::GATEWAY
    ))?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    let after = member.lease(&world)?;
    ensure!(after.key == before.key && after.lease == before.lease && after.version == before.version + 1, "{after:?}");
    ensure!(after.value == before.value.replace("192.168.77.1\"", "192.168.77.61\""), "{after:?}");
    ensure!(member.vtep_identity()? == identity && member.vtep()?["linkinfo"]["info_data"]["local"] == "192.168.77.61");
    member.wait_peers(&peers)
}

#[test]
fn an_interface_that_is_not_there_or_has_no_address_is_named_with_those_that_are_there_and_waited_for() -> Result<()> {
    let world = World::new()?;
    let host = world.lab.host("h1")?;
    let mut member = Member::on(host, world.options()?.args(["--iface=wan0"]))?;
    member.wait_unready_for(&["wan0 is not there", "eth0 (192.168.77.1)"])?;
    member.wait_log(&["ERROR", "no interface for the tunnel", "wan0 is not there", "eth0 (192.168.77.1)"])?;
    member.host.ip_batch("link add wan0 mtu 1400 type veth peer name wan1\nlink set wan0 up\nlink set wan1 up\n")?;
    member.wait_unready_for(&["wan0 has no usable address"])?;
    ensure!(member.vtep().is_err() && world.etcd.get_prefix(SUBNETS)?.is_empty());
    member.host.ip_batch("addr add 192.0.2.7/24 dev wan0\n")?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.log_lines(&["ERROR"]) == 2, "{}", member.agent.log());
    let vtep = member.vtep()?;
    ensure!(vtep["mtu"] == 1350 && vtep["linkinfo"]["info_data"]["local"] == "192.0.2.7", "{vtep:#}");
    ensure!(member.lease(&world)?.value.contains(r#""PublicIP":"192.0.2.7""#));
    Ok(())
}

#[test]
fn without_a_default_route_the_flag_to_use_is_named_and_each_way_to_choose_is_followed() -> Result<()> {
    let world = World::new()?;
    let host = world.lab.host("h1")?;
    host.ip_batch(
        "link add wan0 type veth peer name wan1\nlink set wan0 up\nlink set wan1 up\naddr add 192.0.2.7/24 dev wan0\nroute del default\n",
    )?;
    let mut member = Member::on(host, world.options()?)?;
    member.wait_unready_for(&["--iface", "wan0 (192.0.2.7)"])?;
    for (flags, local, told) in [
        (vec!["--iface=192.0.2.7"], "192.0.2.7", "192.0.2.7"),
        (vec!["--iface=nothing", "--iface-regex=^et"], "192.168.77.1", "192.168.77.1"),
        (vec!["--iface-can-reach=192.0.2.99"], "192.0.2.7", "192.0.2.7"),
        (vec!["--iface=wan0", "--public-ip=198.51.100.1"], "192.0.2.7", "198.51.100.1"),
        (vec!["--public-ip=192.168.77.1"], "192.168.77.1", "192.168.77.1"),
    ] {
        *member.agent.options_mut() = world.options()?.args(flags.clone());
        member.agent.restart()?;
        member.agent.wait_ready(PATIENCE)?;
        let (vtep, lease) = (member.vtep()?, member.lease(&world)?);
        ensure!(vtep["linkinfo"]["info_data"]["local"] == local, "{flags:?}: {vtep:#}");
        ensure!(lease.value.contains(&format!(r#""PublicIP":"{told}""#)), "{flags:?}: {lease:?}");
        // Each interface is another identity: what the one before held is another host's, until it expires.
        world.etcd.del(&lease.key)?;
    }
    Ok(())
}

#[test]
fn an_underlay_that_has_no_address_for_a_while_costs_nothing() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201])?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let (identity, lease, monitor) = (member.vtep_identity()?, member.lease(&world)?, Monitor::start(&member.host)?);
    member.host.ip_batch("addr del 192.168.77.1/24 dev eth0\n")?;
    member.wait_log(&["underlay not usable"])?;
    member.host.ip_batch(&format!("addr add 192.168.77.1/24 dev eth0\nroute add default via {}\n", testkit::Lab::GATEWAY))?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.vtep_identity()? == identity && monitor.so_far()?.is_empty(), "{:#?}", monitor.so_far()?);
    ensure!(member.lease(&world)? == lease);
    Ok(())
}
