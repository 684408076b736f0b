//! Several networks on one host: an agent each, with keys, VNI, port, subnet file and socket of its own.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use testkit::{Container, Host, wait_for};

use testkit::world::{Member, PATIENCE, VTEP, World};

const CONFIG: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
const SECOND_CONFIG: &str = r#"{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan","VNI":2,"Port":8475}}"#;
const SECOND_FILE: &str = "/run/flannel/two.env";
const SECOND_PORT: u16 = 8481;
const SECOND_VTEP: &str = "flannel.2";

fn world() -> Result<World> {
    let world = World::with_config(CONFIG)?;
    world.etcd.put("/two/config", SECOND_CONFIG)?;
    Ok(world)
}

/// A host's agents, one for each network, both ready.
fn agents(world: &World, host: &Host) -> Result<(Member, Member)> {
    let mut first = Member::on(host.clone(), world.options()?)?;
    let second = world.options()?.beside(SECOND_PORT, SECOND_FILE).args(["--etcd-prefix=/two"]);
    let mut second = Member::on(host.clone(), second)?;
    first.agent.wait_ready(PATIENCE)?;
    second.agent.wait_ready(PATIENCE)?;
    Ok((first, second))
}

/// A container with an interface in each network, and its address in the second.
fn container(host: &Host, name: &str) -> Result<(Container, Ipv4Addr)> {
    let container = host.container(name)?;
    let env = host.subnet_env_at(SECOND_FILE)?;
    let (IpAddr::V4(bridge), len, mtu) = (env.subnet()?.ip(), env.subnet()?.prefix(), env.mtu()?) else {
        bail!("no IPv4 in {SECOND_FILE}")
    };
    let address = Ipv4Addr::from_bits(bridge.to_bits() + 1);
    host.ip_batch(&format!(
        "link add cni1 mtu {mtu} type bridge\naddr add {bridge}/{len} dev cni1\nlink set cni1 up\n\
         link add vethtwo mtu {mtu} type veth peer name eth1 mtu {mtu} netns {}\nlink set vethtwo master cni1 up\n",
        container.pid()
    ))?;
    container.ip_batch(&format!("addr add {address}/{len} dev eth1\nlink set eth1 up\nroute add 10.6.0.0/16 via {bridge}\n"))?;
    Ok((container, address))
}

/// What `ip` and `bridge` tell of a device and what hangs on it.
fn image(host: &Host, device: &str) -> Result<Vec<String>> {
    let lists: [&[&str]; 4] = [
        &["ip", "-d", "-o", "link", "show", "dev", device],
        &["ip", "route", "show", "dev", device],
        &["ip", "neigh", "show", "dev", device],
        &["bridge", "fdb", "show", "dev", device],
    ];
    lists.iter().map(|list| host.run(list)).collect()
}

#[test]
fn two_networks_on_the_same_hosts_carry_traffic_side_by_side_and_stay_out_of_each_others_way() -> Result<()> {
    let world = world()?;
    let (h1, h2) = (world.lab.host("h1")?, world.lab.host("h2")?);
    let (mut first, mut second) = agents(&world, &h1)?;
    let (_first2, _second2) = agents(&world, &h2)?;
    let ((c1, _), (c2, c2_in_two)) = (container(&h1, "c1")?, container(&h2, "c2")?);
    for to in [c2.address(), c2_in_two] {
        wait_for(&format!("{to} to be reached"), PATIENCE, || c1.ping(to, 56, false))?;
        c1.ping(to, c1.full_payload(), true)?;
    }
    let first_stream = c1.udp_stream(&c2, Duration::from_millis(1))?;

    // Either one restarts, and is gone for good, without the other.
    let (before, file) = (image(&h1, VTEP)?, h1.read("/run/flannel/subnet.env")?);
    second.agent.restart()?;
    second.agent.wait_ready(PATIENCE)?;
    first.agent.restart()?;
    first.agent.wait_ready(PATIENCE)?;
    second.agent.terminate()?;
    let status = first.agent.status_json()?;
    ensure!(status["ready"] == true && status["warnings"] == serde_json::json!([]), "{status:#}");
    let said = second.agent.ask_with_flags("cleanup")?;
    ensure!(said.contains(&format!("ip link del {SECOND_VTEP}\n")) && said.contains(&format!("# {VTEP} is left alone")), "{said}");
    ensure!(h1.ip_json(&["link", "show", "dev", SECOND_VTEP]).is_err() && h1.read(SECOND_FILE).is_err());
    ensure!(image(&h1, VTEP)? == before && h1.read("/run/flannel/subnet.env")? == file);
    first.ensure_ready()?;
    ensure!(first_stream.finish()?.lost == 0);
    c1.ping(c2.address(), 56, false)?;

    // From nothing the second comes back, and the first can go as well.
    second.agent.restart()?;
    second.agent.wait_ready(PATIENCE)?;
    wait_for("the second network to carry traffic again", PATIENCE, || c1.ping(c2_in_two, 56, false))?;
    first.agent.terminate()?;
    let said = first.agent.ask_with_flags("cleanup")?;
    ensure!(said.contains(&format!("ip link del {VTEP}\n")) && said.contains(&format!("# {SECOND_VTEP} is left alone")), "{said}");
    second.ensure_ready()?;
    c1.ping(c2_in_two, 56, false)
}

#[test]
fn with_route_tables_the_networks_are_kept_apart_by_tables_and_rules_and_the_main_table_stays_untouched() -> Result<()> {
    let world = world()?;
    let (h1, h2) = (world.lab.host("h1")?, world.lab.host("h2")?);
    let main = h1.run(&["ip", "route", "show", "table", "main"])?;
    let tables = |host: &Host| -> Result<(Member, Member)> {
        let mut first = Member::on(host.clone(), world.options()?.args(["--route-table=501", "--ip-blackhole-route"]))?;
        let second = world.options()?.beside(SECOND_PORT, SECOND_FILE).args(["--etcd-prefix=/two"]);
        let mut second = Member::on(host.clone(), second.args(["--route-table=502", "--route-rule-priority=31000"]))?;
        first.agent.wait_ready(PATIENCE)?;
        second.agent.wait_ready(PATIENCE)?;
        Ok((first, second))
    };
    let (mut first, mut second) = tables(&h1)?;
    let (_first2, _second2) = tables(&h2)?;
    wait_for("routes to the other host in both tables", PATIENCE, || {
        for (table, device) in [("501", VTEP), ("502", SECOND_VTEP)] {
            let routes = h1.run(&["ip", "route", "show", "table", table])?;
            ensure!(routes.contains(&format!("dev {device} proto 76")), "table {table}: {routes}");
        }
        Ok(())
    })?;
    ensure!(h1.run(&["ip", "route", "show", "table", "main"])? == main);
    let rules = h1.run(&["ip", "rule", "show"])?;
    for rule in ["31000:\tfrom all to 10.6.0.0/16 lookup 502", "32000:\tfrom all to 10.5.0.0/16 lookup 501"] {
        ensure!(rules.contains(rule), "{rules}");
    }
    let ((c1, _), (c2, c2_in_two)) = (container(&h1, "c1")?, container(&h2, "c2")?);
    for to in [c2.address(), c2_in_two] {
        wait_for(&format!("{to} to be reached"), PATIENCE, || c1.ping(to, 56, false))?;
    }

    let stream = c1.udp_stream(&c2, Duration::from_millis(1))?;
    second.agent.terminate()?;
    let said = second.agent.ask_with_flags("cleanup")?;
    ensure!(said.contains("ip rule del to 10.6.0.0/16 lookup 502 priority 31000 protocol 76\n") && !said.contains("10.5."), "{said}");
    let rules = h1.run(&["ip", "rule", "show"])?;
    ensure!(!rules.contains("10.6.") && rules.contains("to 10.5.0.0/16 lookup 501"), "{rules}");
    ensure!(stream.finish()?.lost == 0);
    first.ensure_ready()?;
    first.agent.terminate()?;
    let said = first.agent.ask_with_flags("cleanup")?;
    ensure!(said.contains("blackhole"), "{said}");
    let (rules, routes) = (h1.run(&["ip", "rule", "show"])?, h1.run(&["ip", "route", "show", "table", "all", "proto", "76"])?);
    ensure!(!rules.contains("10.5.") && routes.is_empty(), "{rules}{routes}");
    Ok(())
}

#[test]
fn routes_move_to_a_table_to_another_and_back_without_a_lost_packet() -> Result<()> {
    let world = world()?;
    let (mut one, two) = (world.member("h1")?, world.member("h2")?);
    let (c1, c2) = (one.host.container("c1")?, two.host.container("c2")?);
    wait_for("the containers to reach each other", PATIENCE, || c1.ping(c2.address(), 56, false))?;
    let stream = c1.udp_stream(&c2, Duration::from_millis(1))?;
    let moves =
        [vec!["--route-table=501"], vec!["--route-table=777", "--route-rule-priority=99"], vec![], vec!["--route-table=501"], vec![]];
    for flags in moves {
        one.agent.terminate()?;
        *one.agent.options_mut() = world.options()?.args(flags.clone());
        one.agent.restart()?;
        one.agent.wait_ready(PATIENCE)?;
        let table = flags.first().and_then(|flag| flag.strip_prefix("--route-table=")).unwrap_or("main");
        wait_for(&format!("all routes to be in table {table} alone"), PATIENCE, || {
            let all = one.host.run(&["ip", "route", "show", "table", "all", "proto", "76"])?;
            let here = one.host.run(&["ip", "route", "show", "table", table, "proto", "76"])?;
            ensure!(all.lines().count() == 1 && here.lines().count() == 1, "{all}");
            let rules = one.host.run(&["ip", "rule", "show"])?;
            let ours: Vec<&str> = rules.lines().filter(|rule| rule.contains("10.5.")).collect();
            ensure!(ours.len() == usize::from(table != "main") && ours.iter().all(|rule| rule.contains(table)), "{ours:?}");
            Ok(())
        })?;
    }
    let report = stream.finish()?;
    ensure!(report.lost == 0 && report.received > 0, "{report:?}");
    Ok(())
}

#[test]
fn each_network_has_its_own_status_socket_and_state() -> Result<()> {
    let world = world()?;
    let host = world.lab.host("h1")?;
    let (first, second) = agents(&world, &host)?;
    for (member, vtep, network) in [(&first, VTEP, "10.5."), (&second, SECOND_VTEP, "10.6.")] {
        let status = member.agent.status_json()?;
        ensure!(status["pid"] == member.agent.pid() && status["vteps"][0]["name"] == vtep, "{status:#}");
        ensure!(status["lease"]["subnet"].as_str().context("no subnet")?.starts_with(network), "{status:#}");
    }
    wait_for("a state file of each", PATIENCE, || {
        let files = host.run(&["ls", "/var/lib/loden"])?;
        ensure!(files.lines().eq(["state", "state.run-flannel-two.env"]), "{files}");
        Ok(())
    })
}

#[test]
fn cleanup_of_an_agent_that_never_had_a_device_leaves_that_of_the_one_in_its_way() -> Result<()> {
    let world = world()?;
    world.etcd.put("/two/config", r#"{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan","Port":8475}}"#)?;
    let mut first = world.member("h1")?;
    let second = world.options()?.beside(SECOND_PORT, SECOND_FILE).args(["--etcd-prefix=/two"]);
    let mut second = Member::on(first.host.clone(), second)?;
    second.wait_unready_for(&[VTEP, "another agent's"])?;
    second.agent.terminate()?;
    let (before, table) = (image(&first.host, VTEP)?, first.host.run(&["nft", "list", "table", "ip", "loden-net-flannel.1"])?);
    // While that agent runs, and when it has stopped.
    for _ in 0..2 {
        let said = second.agent.ask_with_flags("cleanup")?;
        ensure!(said.contains(&format!("# {VTEP} is left alone")) && !said.contains("del"), "{said}");
        ensure!(image(&first.host, VTEP)? == before, "{VTEP} is another");
        ensure!(first.host.run(&["nft", "list", "table", "ip", "loden-net-flannel.1"])? == table);
        first.agent.terminate()?;
    }
    Ok(())
}

#[test]
fn a_second_network_that_overlaps_the_first_waits_and_takes_none_of_its_routes() -> Result<()> {
    let world = World::with_config(CONFIG)?;
    for (config, port) in [
        (r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":2,"Port":8475}}"#, 8481),
        (r#"{"Network":"10.0.0.0/8","Backend":{"Type":"host-gw"}}"#, 8482),
    ] {
        world.etcd.put(&format!("/p{port}/config"), config)?;
    }
    let peers = world.peers([201, 202])?;
    let first = world.member("h1")?;
    first.wait_peers(&peers)?;
    for port in [8481, 8482] {
        let options = world.options()?.beside(port, &format!("/run/flannel/{port}.env")).args([format!("--etcd-prefix=/p{port}")]);
        let second = Member::on(first.host.clone(), options)?;
        second.wait_log(&["ERROR", "no room", "10.5.0.0/16", "have addresses in common", &first.agent.pid().to_string()])?;
    }
    first.wait_peers(&peers)?;
    first.ensure_ready()?;
    ensure!(first.agent.status_json()?["heals"].as_array().is_some_and(Vec::is_empty), "{}", first.agent.log_tail());
    ensure!(world.etcd.get_prefix("/p8481/subnets/")?.is_empty() && world.etcd.get_prefix("/p8482/subnets/")?.is_empty());
    Ok(())
}
