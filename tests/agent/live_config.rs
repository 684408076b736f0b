//! A network configuration that changes while agents run: followed, or reported as waiting for a start; never by half.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use testkit::{Monitor, wait_for};

use testkit::world::{CONFIG, CONFIG_KEY, Member, PATIENCE, SUBNET_FILE, VTEP, World};

/// The names of the fields in one of the status' lists of changes.
fn fields<'a>(status: &'a Value, list: &str) -> Vec<&'a str> {
    let changes = status["config_changes"].get(list).and_then(Value::as_array);
    changes.into_iter().flatten().filter_map(|change| change["field"].as_str()).collect()
}

fn wait_followed(member: &Member, wanted: &[&str]) -> Result<()> {
    member.wait_status(&format!("that {wanted:?} were followed"), |status| fields(status, "followed") == wanted).map(drop)
}

#[test]
fn changes_that_are_followed_cost_no_packet_and_the_subnet_file_says_what_the_device_has() -> Result<()> {
    let world = World::with_config(r#"{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0","Backend":{"Type":"vxlan"}}"#)?;
    let (one, two) = (world.member("h1")?, world.member("h2")?);
    let (c1, c2) = (one.host.container("c1")?, two.host.container("c2")?);
    wait_for("the containers to reach each other", PATIENCE, || c1.ping(c2.address(), 56, false))?;
    let (identity, subnet) = (one.vtep_identity()?, one.host.subnet_env()?.subnet()?);
    let stream = c1.udp_stream(&c2, Duration::from_millis(1))?;
    for (config, changed, mtu) in [
        (r#"{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0","Backend":{"Type":"vxlan","MTU":1400}}"#, "Backend.MTU", 1350),
        (
            r#"{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0","Backend":{"Type":"vxlan","MTU":1400,"Learning":true}}"#,
            "Backend.Learning",
            1350,
        ),
        (r#"{"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0","Backend":{"Type":"vxlan","MTU":1400,"Learning":true}}"#, "SubnetMax", 1350),
        (
            r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.0.0","SubnetMax":"10.5.199.0","Backend":{"Type":"vxlan","MTU":1400,"Learning":true}}"#,
            "SubnetMin",
            1350,
        ),
        (
            r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.0.0","SubnetMax":"10.5.199.0","Backend":{"Type":"vxlan","MTU":1400,"Learning":true,"DirectRouting":true}}"#,
            "Backend.DirectRouting",
            1350,
        ),
        (
            r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.0.0","SubnetMax":"10.5.199.0","EnableNFTables":true,"Backend":{"Type":"vxlan","MTU":1400,"Learning":true,"DirectRouting":true}}"#,
            "EnableNFTables",
            1350,
        ),
    ] {
        world.etcd.put(CONFIG_KEY, config)?;
        for member in [&one, &two] {
            wait_followed(member, &[changed])?;
            wait_for("device and subnet file to agree", PATIENCE, || {
                ensure!(member.vtep()?["mtu"] == mtu && member.host.subnet_env()?.mtu()? == mtu);
                Ok(())
            })?;
            ensure!(member.log_lines(&["INFO", "followed", changed]) == 1, "{}", member.agent.log());
        }
    }
    // Everything back at once, MTU and all.
    world.etcd.put(CONFIG_KEY, r#"{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0","Backend":{"Type":"vxlan"}}"#)?;
    for member in [&one, &two] {
        wait_followed(member, &["SubnetMin", "SubnetMax", "EnableNFTables", "Backend.MTU", "Backend.Learning", "Backend.DirectRouting"])?;
        wait_for("the MTU to be back", PATIENCE, || {
            ensure!(member.vtep()?["mtu"] == 1450 && member.vtep()?["linkinfo"]["info_data"]["learning"] == false);
            Ok(())
        })?;
        wait_for("the agent to be ready", PATIENCE, || member.ensure_ready())?;
    }
    let report = stream.finish()?;
    ensure!(report.lost == 0 && report.received > 0, "{report:?}");
    ensure!(one.vtep_identity()? == identity && one.host.subnet_env()?.subnet()? == subnet);
    Ok(())
}

#[test]
fn changes_that_wait_for_a_start_are_listed_with_what_came_with_them_and_touch_nothing_until_then() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201])?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let (file, monitor) = (member.host.read(SUBNET_FILE)?, Monitor::start(&member.host)?);
    let number: u8 = member.key()?.rsplit('/').next().and_then(|name| name.split('.').nth(2)?.parse().ok()).unwrap_or_default();
    let (above, below) = (number + 1, 200);
    for (config, waits) in [
        (r#"{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan"}}"#.to_owned(), &["Network", "SubnetMin", "SubnetMax"][..]),
        (r#"{"Network":"10.5.0.0/16","SubnetLen":25,"Backend":{"Type":"vxlan"}}"#.to_owned(), &["SubnetLen", "SubnetMin", "SubnetMax"]),
        (format!(r#"{{"Network":"10.5.0.0/16","SubnetMin":"10.5.{above}.0"}}"#), &["SubnetMin"]),
        (format!(r#"{{"Network":"10.5.0.0/16","SubnetMin":"10.5.{below}.0","SubnetMax":"10.5.210.0"}}"#), &["SubnetMin", "SubnetMax"]),
        (r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","Port":4789}}"#.to_owned(), &["Backend.Port"]),
        (r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","GBP":true}}"#.to_owned(), &["Backend.GBP"]),
        (r#"{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}"#.to_owned(), &["Backend.Type"]),
        (r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00::/48"}"#.to_owned(), &["EnableIPv6"]),
        (r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/48"}"#.to_owned(), &["EnableIPv4", "EnableIPv6"]),
        (r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":2,"MTU":1400}}"#.to_owned(), &["Backend.VNI", "Backend.MTU"]),
    ] {
        world.etcd.put(CONFIG_KEY, &config)?;
        let status = member.wait_status(&format!("that {waits:?} wait"), |status| fields(status, "waiting") == waits)?;
        ensure!(status["warnings"].to_string().contains("when the agent is started again"), "{:#}", status["warnings"]);
        member.wait_log(&["ERROR", "not taken over", waits[0]])?;
    }
    member.ensure_ready()?;
    let touched = monitor.so_far()?;
    ensure!(touched.is_empty() && member.host.read(SUBNET_FILE)? == file, "{touched:#?}");

    // Nor does it slip in with something else.
    member.host.ip_batch("link set eth0 mtu 1400\n")?;
    wait_for("the underlay's MTU to be followed", PATIENCE, || {
        ensure!(member.vtep()?["mtu"] == 1350 && member.host.subnet_env()?.mtu()? == 1350);
        Ok(())
    })?;
    member.wait_status("that the VNI waits still", |status| fields(status, "waiting") == ["Backend.VNI", "Backend.MTU"])?;
    member.wait_peers(&peers)?;
    ensure!(member.host.ip_json(&["link", "show", "dev", "flannel.2"]).is_err(), "a device of the new VNI");

    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    let vtep = member.host.ip_json(&["link", "show", "dev", "flannel.2"])?;
    ensure!(vtep[0]["linkinfo"]["info_data"]["id"] == 2 && vtep[0]["mtu"] == 1350, "{vtep:#}");
    Ok(())
}

#[test]
fn a_configuration_that_is_put_back_leaves_no_complaint() -> Result<()> {
    let world = World::new()?;
    let member = world.member("h1")?;
    for bad in ["{", r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","MTU":100}}"#, r#"{"Network":"10.7.0.0/16"}"#] {
        world.etcd.put(CONFIG_KEY, bad)?;
        member.wait_status("that it is not taken over", |status| status["warnings"].to_string().contains(CONFIG_KEY))?;
        world.etcd.put(CONFIG_KEY, CONFIG)?;
        member.wait_status("nothing of it", |status| {
            !status["warnings"].to_string().contains(CONFIG_KEY) && fields(status, "waiting").is_empty()
        })?;
    }
    member.ensure_ready()?;
    ensure!(member.host.ip_json(&["link", "show", "dev", VTEP])?[0]["mtu"] == 1450);
    Ok(())
}
