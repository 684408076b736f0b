//! DirectRouting: peers on the same link are reached by a plain route, and by the tunnel while they are not.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::world::{Member, PATIENCE, Peer, SUBNETS, World};
use testkit::{Lab, Monitor, wait_for};

const CONFIG: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}"#;

/// Times that a peer goes out of reach and comes back.
const SWITCHES: u32 = 10;

/// What `ip` says of the routes to a prefix, in all tables.
fn routes(member: &Member, prefix: &str) -> Result<Vec<String>> {
    let told = member.host.run(&["ip", "route", "show", "table", "all", "exact", prefix])?;
    Ok(told.lines().map(|line| line.trim().to_owned()).collect())
}

fn wait_routes(member: &Member, prefix: &str, wanted: &[String]) -> Result<()> {
    wait_for(&format!("the route to {prefix} on {}", member.host.name()), PATIENCE, || {
        let have = routes(member, prefix)?;
        ensure!(have == wanted, "there is {have:#?}, wanted is {wanted:#?}");
        Ok(())
    })
}

/// The direct route of a made-up peer.
fn direct(peer: &Peer) -> String {
    let Peer { number, mac: _, address } = peer;
    format!("10.5.{number}.0/24 via {address} dev eth0 proto 76 metric {}", u32::from(*number) + 1)
}

/// One that is not on the switch.
fn far() -> Peer {
    Peer::new(202).at("192.0.2.7")
}

#[test]
fn who_is_on_the_link_gets_a_route_alone_and_who_is_not_the_tunnel() -> Result<()> {
    let world = World::with_config(CONFIG)?;
    let near = world.put(Peer::new(201))?;
    let far = world.put(far())?;
    let mut member = world.member("h1")?;
    wait_routes(&member, "10.5.201.0/24", &[direct(&near)])?;
    member.wait_peers([&far])?;
    member.wait_status("in step", |status| status["data_plane"]["state"] == "in_step")?;

    // The same again after a restart: nothing is written.
    let monitor = Monitor::start(&member.host)?;
    member.agent.kill9()?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(monitor.so_far()?.is_empty(), "{:#?}", monitor.so_far()?);

    // Who moves changes over, and who leaves leaves nothing.
    let away = world.put(near.at("192.0.2.8"))?;
    member.wait_peers([&away, &far])?;
    let near = world.put(near.at("192.168.77.221"))?;
    wait_routes(&member, "10.5.201.0/24", &[direct(&near)])?;
    member.wait_peers([&far])?;
    world.etcd.del(&near.key())?;
    wait_routes(&member, "10.5.201.0/24", &[])
}

#[test]
fn what_is_done_to_a_direct_route_is_undone() -> Result<()> {
    let world = World::with_config(CONFIG)?;
    let near = world.put(Peer::new(201))?;
    let member = world.member("h1")?;
    let right = [direct(&near)];
    wait_routes(&member, "10.5.201.0/24", &right)?;
    member.host.run(&["ip", "route", "del", "10.5.201.0/24"])?;
    wait_routes(&member, "10.5.201.0/24", &right)?;
    member.host.run(&["ip", "route", "replace", "10.5.201.0/24", "via", Lab::GATEWAY, "proto", "76", "metric", "202"])?;
    wait_routes(&member, "10.5.201.0/24", &right)?;
    // With its link a direct route goes without a word, and comes back with it.
    member.host.ip_batch("link set eth0 down\n")?;
    wait_for("the tunnel to take over", PATIENCE, || {
        let have = routes(&member, "10.5.201.0/24")?;
        ensure!(have.len() == 1 && have.iter().all(|route| route.contains("dev flannel.1")), "{have:?}");
        Ok(())
    })?;
    member.host.ip_batch(&format!("link set eth0 up\nroute add default via {}\n", Lab::GATEWAY))?;
    wait_routes(&member, "10.5.201.0/24", &right)
}

#[test]
fn going_over_between_link_and_tunnel_loses_no_packet() -> Result<()> {
    let world = World::with_config(CONFIG)?;
    let (h1, h2) = (world.member("h1")?, world.member("h2")?);
    // By way of the switch as a router, which is not to tell that there is a shorter one.
    world.lab.switch().run(&[
        "sh",
        "-c",
        "cd /proc/sys/net/ipv4; echo 1 >ip_forward; echo 0 >conf/all/send_redirects; echo 0 >conf/br0/send_redirects",
    ])?;
    let (c1, c2) = (h1.host.container("c1")?, h2.host.container("c2")?);
    wait_for("a ping", PATIENCE, || c1.ping(c2.address(), 100, true))?;
    let subnet = h2.host.subnet_env()?.subnet()?;
    let prefix = format!("{}/{}", subnet.network(), subnet.prefix());
    let leaves_by = |device: &str| {
        wait_for(&format!("{prefix} to be reached by {device}"), PATIENCE, || {
            let have = routes(&h1, &prefix)?;
            ensure!(have.len() == 1 && have.iter().all(|route| route.contains(&format!("dev {device} "))), "{have:?}");
            Ok(())
        })
    };
    leaves_by("eth0")?;
    let stream = c1.udp_stream(&c2, Duration::from_millis(1))?;
    for _ in 0..SWITCHES {
        h1.host.run(&["ip", "route", "add", &format!("{}/32", h2.host.address()), "via", Lab::GATEWAY])?;
        leaves_by("flannel.1")?;
        h1.host.run(&["ip", "route", "del", &format!("{}/32", h2.host.address())])?;
        leaves_by("eth0")?;
    }
    let report = stream.finish()?;
    ensure!(report.lost == 0 && report.sent > 0, "{report:?}");
    Ok(())
}

#[test]
fn with_host_gw_a_peer_behind_a_router_is_named_and_is_not_in_step() -> Result<()> {
    let world = World::with_config(r#"{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}"#)?;
    world.put_raw("10.5.201.0-24", &host_gw("192.168.77.201"))?;
    let member = world.member("h1")?;
    world.put_raw("10.5.202.0-24", &host_gw("192.168.88.3"))?;
    member.wait_unready_for(&["10.5.202.0/24", "192.168.88.3", "not on a link"])?;
    let status = member.agent.status_json()?;
    let state = |number: usize| status.pointer(&format!("/peers/{number}/state")).and_then(serde_json::Value::as_str).unwrap_or_default();
    ensure!(state(0) == "in_step" && state(1) == "converging", "{:#}", status["peers"]);
    let text = member.agent.ask(&["status"]).err().map(|error| error.to_string());
    ensure!(text.is_some(), "status exits with 0");
    world.etcd.del(&format!("{SUBNETS}10.5.202.0-24"))?;
    wait_for("the agent to be ready", PATIENCE, || member.ensure_ready())
}

#[test]
fn what_flanneld_left_is_taken_over_and_what_others_made_stays() -> Result<()> {
    let world = World::with_config(CONFIG)?;
    let peers = world.peers([201, 203])?;
    let far = world.put(far())?;
    let host = world.lab.host("h1")?;
    // flanneld's to two peers, of which one has moved away since; somebody's; a peer's of ours that is gone; another network's.
    host.ip_batch(
        "route add 10.5.201.0/24 via 192.168.77.201\nroute add 10.5.203.0/24 via 192.168.77.99\n\
         route add 10.5.204.0/24 via 192.168.77.204 proto 76 metric 205\nroute add 10.6.7.0/24 via 192.168.77.7 proto 76 metric 8\n\
         route add 192.0.2.7 dev eth0\nroute add 10.5.202.0/24 via 192.0.2.7 dev eth0\nroute del 192.0.2.7\n",
    )?;
    let mut member = Member::on(host, world.options()?)?;
    member.agent.wait_ready(PATIENCE)?;
    wait_routes(&member, "10.5.201.0/24", &peers.first().map(direct).into_iter().collect::<Vec<_>>())?;
    member.wait_peers([&far])?;
    wait_routes(&member, "10.5.202.0/24", &["10.5.202.0/24 via 10.5.202.0 dev flannel.1 proto 76 metric 203 onlink".to_owned()])?;
    wait_routes(&member, "10.5.204.0/24", &[])?;
    let theirs = routes(&member, "10.5.203.0/24")?;
    ensure!(theirs.len() == 2 && theirs.iter().any(|route| route == "10.5.203.0/24 via 192.168.77.99 dev eth0"), "{theirs:?}");
    let status = member.agent.status_json()?;
    ensure!(status["warnings"].to_string().contains("10.5.203.0/24"), "{status:#}");
    wait_routes(&member, "10.6.7.0/24", &["10.6.7.0/24 via 192.168.77.7 dev eth0 proto 76 metric 8".to_owned()])
}

#[test]
fn cleanup_takes_direct_routes_away_and_puts_none_in_their_place() -> Result<()> {
    for (config, flag) in [(CONFIG, "--route-table=501"), (r#"{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}"#, "--v=0")] {
        let world = World::with_config(config)?;
        let record = if config == CONFIG { Peer::new(201).record() } else { host_gw("192.168.77.201") };
        world.put_raw("10.5.201.0-24", &record)?;
        let host = world.lab.host("h1")?;
        let before = host.run(&["ip", "route", "show", "table", "main"])?;
        let mut member = Member::on(host, world.options()?.args([flag]))?;
        member.agent.wait_ready(PATIENCE)?;
        wait_for("the direct route", PATIENCE, || {
            ensure!(routes(&member, "10.5.201.0/24")?.len() == 1);
            Ok(())
        })?;
        member.agent.terminate()?;
        let said = member.agent.ask_with_flags("cleanup")?;
        ensure!(said.contains("ip route del 10.5.201.0/24 proto 76 metric 202") && !said.contains("add"), "{said}");
        ensure!(routes(&member, "10.5.201.0/24")?.is_empty() && member.host.run(&["ip", "route", "show", "table", "main"])? == before);
    }
    Ok(())
}

/// A lease record of a host-gw network.
fn host_gw(address: &str) -> String {
    format!(r#"{{"PublicIP":"{address}","PublicIPv6":null,"BackendType":"host-gw"}}"#)
}
