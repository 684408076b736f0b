//! From nothing to a host that carries traffic, and what it takes to be ready.

use anyhow::{Context, Result, ensure};
use testkit::wait_for;

use testkit::world::{CONFIG, CONFIG_KEY, Member, PATIENCE, SUBNET_FILE, VTEP, World};

/// The subnet file's text, and the number N of the subnet 10.5.N.0/24 in it.
fn subnet_file(member: &Member) -> Result<(String, u8)> {
    let text = member.host.read(SUBNET_FILE)?;
    let number = text.split("FLANNEL_SUBNET=10.5.").nth(1).and_then(|rest| rest.split('.').next()).context("no FLANNEL_SUBNET")?;
    let number = number.parse()?;
    Ok((text, number))
}

#[test]
fn a_first_start_makes_subnet_file_device_and_entries_and_is_ready_only_then() -> Result<()> {
    let world = World::empty()?;
    let peers = world.peers([201, 202])?;
    let mut member = world.starting("h1")?;
    member.wait_unready_for(&["network configuration missing", CONFIG_KEY])?;
    ensure!(member.agent.get("/healthz")?.0 == 200, "it lives while it waits");
    ensure!(member.host.read(SUBNET_FILE).is_err(), "there is a subnet file before there is a subnet");
    ensure!(member.sysctl("net/ipv4/ip_forward")? == "0");
    world.etcd.put(CONFIG_KEY, CONFIG)?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.log_lines(&["basis: waiting for the network configuration"]) == 1, "{}", member.agent.log());

    let (text, number) = subnet_file(&member)?;
    let wanted = format!("FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.{number}.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n");
    ensure!(text == wanted, "{text}");
    ensure!((1..=100).contains(&number), "10.5.{number}.0/24 is none of the first 100 subnets");
    ensure!(member.host.run(&["stat", "-c", "%a %U", SUBNET_FILE])?.trim() == "644 root");

    let vtep = member.vtep()?;
    let data = &vtep["linkinfo"]["info_data"];
    ensure!(vtep["mtu"] == 1450 && vtep["inet6_addr_gen_mode"] == "none" && vtep["flags"].to_string().contains("\"UP\""), "{vtep:#}");
    ensure!(data["id"] == 1 && data["port"] == 8472 && data["learning"] == false && data["local"] == "192.168.77.1", "{data:#}");
    ensure!(data.get("link").is_none() && data.get("gbp").is_none(), "bound, or with GBP: {data:#}");
    let addresses = member.host.run(&["ip", "-o", "address", "show", "dev", VTEP])?;
    ensure!(addresses.lines().count() == 1 && addresses.contains(&format!("inet 10.5.{number}.0/32 ")), "{addresses}");
    ensure!(member.sysctl("net/ipv6/conf/flannel.1/accept_ra")? == "0");
    ensure!(
        member.sysctl("net/ipv4/ip_forward")? == "1" && member.log_lines(&["INFO", "forwarding switched on"]) == 1,
        "{}",
        member.agent.log()
    );
    // All is in the kernel when it says that it is ready, not soon after.
    let mut wanted: Vec<String> = peers.iter().flat_map(testkit::world::Peer::entries).collect();
    wanted.sort();
    ensure!(member.entries()? == wanted, "{:#?}", member.entries()?);

    let lease = member.lease(&world)?;
    let mac = vtep["address"].as_str().context("no MAC")?;
    ensure!(
        lease.value.starts_with(&format!(
            r#"{{"PublicIP":"192.168.77.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}},"Owner":""#
        )),
        "{}",
        lease.value
    );
    let left = world.etcd.lease_left(lease.lease)?.context("the lease has no time to live")?;
    ensure!((86_000..=86_400).contains(&left), "{left}");
    Ok(())
}

#[test]
fn the_configurations_mtu_is_the_outer_one_for_device_and_subnet_file_alike() -> Result<()> {
    let world = World::with_config(r#"{"network":"10.5.0.0/16","backend":{"type":"vxlan","mtu":1400}}"#)?;
    let host = world.lab.host("h1")?;
    let mut member = Member::on(host, world.options()?.args(["-ip-masq"]))?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.vtep()?["mtu"] == 1350);
    let (text, _) = subnet_file(&member)?;
    ensure!(text.ends_with("FLANNEL_MTU=1350\nFLANNEL_IPMASQ=true\n"), "{text}");
    Ok(())
}

#[test]
fn without_a_backend_the_configuration_means_vxlan_and_other_vxlan_options_are_followed() -> Result<()> {
    let world = World::with_config(r#"{"Network":"10.6.0.0/16"}"#)?;
    let member = world.member("h1")?;
    ensure!(member.vtep()?["linkinfo"]["info_kind"] == "vxlan");

    let world =
        World::with_config(r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":7,"Port":4789,"GBP":true,"Learning":true}}"#)?;
    let member = world.member("h1")?;
    let links = member.host.ip_json(&["link", "show", "dev", "flannel.7"])?;
    let data = &links[0]["linkinfo"]["info_data"];
    ensure!(data["id"] == 7 && data["port"] == 4789 && data["learning"] == true && data["gbp"] == true, "{data:#}");
    Ok(())
}

#[test]
fn a_store_that_is_down_at_the_start_is_said_once_and_waited_for() -> Result<()> {
    let mut world = World::new()?;
    world.etcd.kill()?;
    let mut member = world.starting("h1")?;
    member.wait_unready()?;
    member.wait_log(&["WARN", "store"])?;
    member.wait_status("that the store is down", |status| status["store"]["state"] == "down" && status["store"]["error"].is_string())?;
    let said = member.log_lines(&["store"]);
    // Meanwhile it is asked for again and again.
    member.wait_status("for two seconds", |status| status["store"]["since"].as_u64() >= Some(2))?;
    ensure!(member.log_lines(&["store"]) == said, "more than one line a change: {}", member.agent.log());
    world.etcd.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.agent.status_json()?["store"]["state"] == "up");
    Ok(())
}

#[test]
fn the_status_of_an_agent_that_starts_is_served_from_the_first_moment() -> Result<()> {
    let world = World::empty()?;
    let member = world.starting("h1")?;
    let status = wait_for("a status", PATIENCE, || member.agent.status_json())?;
    ensure!(status["ready"] == false && status["lease"]["state"] == "claiming", "{status:#}");
    Ok(())
}

#[test]
fn an_agent_that_waits_for_whatever_ends_at_once_when_it_is_told_to() -> Result<()> {
    let mut world = World::empty()?;
    let mut waits_for_configuration = world.starting("h1")?;
    waits_for_configuration.wait_unready_for(&["network configuration missing"])?;
    ensure!(waits_for_configuration.agent.terminate()?.success());

    world.etcd.put(CONFIG_KEY, CONFIG)?;
    let mut waits_for_interface = Member::on(world.lab.host("h2")?, world.options()?.args(["--iface=wan0"]))?;
    waits_for_interface.wait_unready_for(&["wan0"])?;
    ensure!(waits_for_interface.agent.terminate()?.success());

    world.etcd.pause()?;
    let mut waits_for_store = world.starting("h3")?;
    waits_for_store.wait_unready()?;
    ensure!(waits_for_store.agent.terminate()?.success());
    world.etcd.resume()
}
