//! The interface between the hosts changes under a running agent.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::{Lab, wait_for};

use testkit::Monitor;
use testkit::world::{Member, PATIENCE, Peer, SUBNETS, VTEP, World};

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
        Lab::GATEWAY
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
        Lab::GATEWAY
    ))?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    let after = member.lease(&world)?;
    ensure!(after.key == before.key && after.lease == before.lease && after.version == before.version + 1, "{after:?}");
    ensure!(after.value == before.value.replace("192.168.77.1\"", "192.168.77.61\""), "{after:?}");
    ensure!(member.vtep_identity()? == identity && member.vtep()?["linkinfo"]["info_data"]["local"] == "192.168.77.61");
    member.wait_peers(&peers)
}

/// Takes the host's network card out and, once the agent has seen that, puts one with the same address in, and the same MAC
/// unless another is given.
fn replace_card(world: &World, member: &Member, other_mac: Option<&str>) -> Result<()> {
    let host = &member.host;
    let links = host.ip_json(&["link", "show", "dev", "eth0"])?;
    let own = links.pointer("/0/address").and_then(Value::as_str).context("eth0 has no MAC")?;
    let mac = other_mac.unwrap_or(own);
    host.ip_batch("link del eth0\n")?;
    member.wait_log(&["underlay not usable"])?;
    world.lab.switch().ip_batch(&format!(
        "link add {name} type veth peer name eth0 netns {pid} address {mac}\nlink set {name} master br0 up\n",
        name = host.name(),
        pid = host.pid()
    ))?;
    host.ip_batch(&format!("addr add {}/24 dev eth0\nlink set eth0 up\nroute add default via {}\n", host.address(), Lab::GATEWAY))
}

#[test]
fn an_underlay_that_is_deleted_and_made_again_takes_nothing_of_ours_along() -> Result<()> {
    let world = World::new()?;
    let mut peers = world.peers([201, 202])?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let (identity, lease, monitor) = (member.vtep_identity()?, member.lease(&world)?, Monitor::start(&member.host)?);
    replace_card(&world, &member, None)?;
    peers.push(world.put(Peer::new(203))?);
    member.wait_peers(&peers)?;
    member.agent.wait_ready(PATIENCE)?;
    let touched: Vec<_> = monitor.so_far()?.into_iter().filter(|line| line.contains("10.5.201.0") || line.contains("10.5.202.0")).collect();
    ensure!(member.vtep_identity()? == identity && member.lease(&world)? == lease && touched.is_empty(), "{touched:#?}");
    // The new one is followed just as well.
    member.host.ip_batch("link set eth0 mtu 1400\n")?;
    wait_for("the MTU to follow", PATIENCE, || {
        ensure!(member.vtep()?["mtu"] == 1350);
        Ok(())
    })
}

#[test]
fn an_underlay_with_another_mac_leaves_the_running_host_its_subnet() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201, 202])?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let (identity, lease) = (member.vtep_identity()?, member.lease(&world)?);
    replace_card(&world, &member, Some("02:00:00:00:77:77"))?;
    member.host.ip_batch("link set eth0 mtu 1400\n")?;
    wait_for("the MTU to follow", PATIENCE, || {
        ensure!(member.vtep()?["mtu"] == 1350);
        Ok(())
    })?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.vtep_identity()? == identity && member.lease(&world)? == lease, "{:?}", member.lease(&world)?);
    ensure!(world.etcd.get_prefix(SUBNETS)?.len() == 3);
    Ok(())
}

#[test]
fn a_bound_device_of_flannelds_that_goes_with_its_parent_comes_back_whole() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201, 202])?;
    let mut member = world.member("h1")?;
    member.agent.kill9()?;
    let (_, mac) = member.vtep_identity()?;
    let subnet = member.host.subnet_env()?.subnet()?.network();
    member.host.ip_batch(&format!(
        "link del {VTEP}\nlink add {VTEP} mtu 1450 address {mac} type vxlan id 1 dev eth0 local 192.168.77.1 dstport 8472 nolearning\n\
         addr add {subnet}/32 dev {VTEP}\nlink set {VTEP} up\n"
    ))?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.vtep()?["linkinfo"]["info_data"]["link"] == "eth0", "a bound one is kept");
    replace_card(&world, &member, None)?;
    wait_for("the device to be there, unbound", PATIENCE, || {
        let vtep = member.vtep()?;
        ensure!(vtep["linkinfo"]["info_data"].get("link").is_none() && vtep["address"] == mac, "{vtep:#}");
        Ok(())
    })?;
    member.wait_peers(&peers)?;
    member.agent.wait_ready(PATIENCE)
}

#[test]
fn an_interface_that_is_not_there_or_has_no_address_is_named_with_those_that_are_there_and_waited_for() -> Result<()> {
    let world = World::new()?;
    let host = world.lab.host("h1")?;
    let mut member = Member::on(host, world.options()?.args(["--iface=wan0"]))?;
    member.wait_unready_for(&["wan0 is not there", "eth0 (192.168.77.1)"])?;
    member.wait_log(&["ERROR", "no interface for the tunnel", "wan0 is not there", "eth0 (192.168.77.1)"])?;
    member.host.ip_batch("link add wan0 mtu 1400 type veth peer name wan1\nlink set wan0 up\nlink set wan1 up\n")?;
    member.wait_unready_for(&["wan0 has no usable IPv4 address"])?;
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
    member.host.ip_batch(&format!("addr add 192.168.77.1/24 dev eth0\nroute add default via {}\n", Lab::GATEWAY))?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.vtep_identity()? == identity && monitor.so_far()?.is_empty(), "{:#?}", monitor.so_far()?);
    ensure!(member.lease(&world)? == lease);
    Ok(())
}

#[test]
fn the_default_route_moves_to_another_interface_and_the_tunnel_with_it() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201])?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let (identity, before) = (member.vtep_identity()?, member.lease(&world)?);
    let pid = member.host.pid();
    world.lab.switch().ip_batch(&format!("link add second type veth peer name eth1 netns {pid}\nlink set second master br0 up\n"))?;
    member.host.ip_batch("addr add 192.168.77.81/24 dev eth1 noprefixroute\nlink set eth1 up\n")?;
    let monitor = Monitor::start(&member.host)?;
    member.host.ip_batch(&format!("route replace default via {} dev eth1 onlink\n", Lab::GATEWAY))?;
    wait_for("the tunnel to leave by the other interface", PATIENCE, || {
        let vtep = member.vtep()?;
        ensure!(vtep["linkinfo"]["info_data"]["local"] == "192.168.77.81", "{vtep:#}");
        Ok(())
    })?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_peers(&peers)?;
    let now = member.lease(&world)?;
    ensure!(member.vtep_identity()? == identity && now.key == before.key && now.value.contains("192.168.77.81"), "{now:?}");
    let touched: Vec<_> = monitor.so_far()?.into_iter().filter(|line| line.contains("10.5.201.0")).collect();
    ensure!(touched.is_empty(), "{touched:#?}");
    Ok(())
}
