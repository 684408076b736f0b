//! Back to flanneld: `loden cleanup --handover`, with `ip` in flanneld's place.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::{Host, wait_for};

use testkit::world::{Member, PATIENCE, Peer, SUBNET_FILE, World};

/// Runs the handover on the agent's host; returns whether all is handed over, and what it said.
fn hand_over(member: &Member, args: &[&str]) -> Result<(bool, String)> {
    let mut command = member.host.command(member.agent.options().program());
    let output = command.args(["cleanup", "--handover"]).args(args).output()?;
    let (said, error) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(error.is_empty(), "{error}");
    Ok((output.status.code() == Some(0), said))
}

/// The route that flanneld puts for a subnet 10.5.N.0/24.
fn flannelds_route(number: u8) -> String {
    format!("route add 10.5.{number}.0/24 via 10.5.{number}.0 dev flannel.1 onlink\n")
}

/// All routes within the overlay, whatever their table, and all rules for it.
fn ours(host: &Host) -> Result<Vec<String>> {
    let (routes, rules) = (host.run(&["ip", "route", "show", "table", "all", "proto", "76"])?, host.run(&["ip", "rule", "show"])?);
    Ok(routes.lines().chain(rules.lines().filter(|rule| rule.contains("10."))).map(|line| line.trim().to_owned()).collect())
}

#[test]
fn each_route_goes_once_flannelds_is_there_and_the_rest_is_left_with_the_reason() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201, 202, 203])?;
    let mut member = Member::on(world.lab.host("h1")?, world.options()?.args(["--vxlan-peers-only"]))?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_peers(&peers)?;
    wait_for("the last state", PATIENCE, || member.host.read("/var/lib/loden/state").map(drop))?;
    let refused = hand_over(&member, &[]).unwrap_err().to_string();
    ensure!(refused.contains("an agent is running here"), "{refused}");
    member.agent.terminate()?;

    // Not flanneld's: a route with a metric, one of another network's agent, and one of nobody's business.
    member.host.ip_batch(
        "route add 10.5.202.0/24 via 192.168.77.254 dev eth0 metric 5000\n\
         route add 10.6.1.0/24 via 192.168.77.254 dev eth0 proto 76 metric 2\n\
         route add 10.99.0.0/16 via 192.168.77.254 dev eth0\n",
    )?;
    member.host.ip_batch(&flannelds_route(201))?;
    let (whole, said) = hand_over(&member, &[])?;
    ensure!(!whole && said.contains("ip route del 10.5.201.0/24 proto 76 metric 202\n"), "{said}");
    ensure!(
        said.contains("# left, as flanneld has no route to 10.5.202.0/24 yet: ip route del 10.5.202.0/24 proto 76 metric 203"),
        "{said}"
    );
    ensure!(said.contains("nft delete table ip loden-flannel.1\n") && said.contains("rm /var/lib/loden/state\n"), "{said}");
    ensure!(member.host.read("/var/lib/loden/state").is_err() && member.host.read(SUBNET_FILE).is_ok());
    let left = ours(&member.host)?;
    ensure!(left.iter().filter(|route| route.starts_with("10.5.")).count() == 2, "{left:#?}");

    member.host.ip_batch(&format!("{}{}", flannelds_route(202), flannelds_route(203)))?;
    let (whole, said) = hand_over(&member, &[])?;
    ensure!(whole && said.lines().count() == 2, "{said}");
    ensure!(ours(&member.host)? == ["10.6.1.0/24 via 192.168.77.254 dev eth0 metric 2"], "{:#?}", ours(&member.host)?);
    let routes = member.host.run(&["ip", "route", "show"])?;
    ensure!(routes.contains("10.5.202.0/24 via 192.168.77.254 dev eth0 metric 5000") && routes.contains("10.99.0.0/16 via"), "{routes}");
    ensure!(member.vtep()?["inet6_addr_gen_mode"] == "eui64", "{:#}", member.vtep()?);
    // Device, neighbours and FDB are flanneld's by now.
    let kept = member.entries()?;
    for Peer { mac, address, number } in &peers {
        ensure!(kept.contains(&format!("10.5.{number}.0 lladdr {mac} PERMANENT")), "{kept:#?}");
        ensure!(kept.contains(&format!("{mac} dst {address} self permanent")), "{kept:#?}");
        ensure!(kept.contains(&format!("10.5.{number}.0/24 via 10.5.{number}.0 onlink")), "{kept:#?}");
    }
    let (whole, said) = hand_over(&member, &[])?;
    ensure!(whole && said.starts_with("# nothing of ours is here"), "{said}");
    Ok(())
}

#[test]
fn a_table_of_our_own_goes_before_the_rule_to_it_in_both_families() -> Result<()> {
    let world = World::new()?;
    let mut member = world.member("h1")?;
    member.agent.terminate()?;
    let (ours4, ours6) =
        ("10.5.201.0/24 via 10.5.201.0 dev flannel.1 onlink", "fc00:db8:0:c9::/64 via fc00:db8:0:c9:: dev flannel.1 onlink");
    member.host.ip_batch(&format!(
        "link set flannel.1 addrgenmode eui64\naddr add fc00:db8:0:1::/128 dev flannel.1 nodad\n\
         rule add to 10.5.0.0/16 lookup 300 priority 32000 protocol 76\nroute add {ours4} proto 76 metric 202 table 300\n\
         route add blackhole 10.5.1.0/24 proto 76 metric 4294967295 table 300\n\
         rule add to 10.5.1.0/24 lookup main suppress_prefixlength 23 priority 31999 protocol 76\n\
         rule add to 10.6.0.0/16 lookup 301 priority 32001 protocol 76\n"
    ))?;
    member.host.ip_batch(&format!("route add {ours6} proto 76 metric 202 table 300\n"))?;
    let rule = ["ip", "-6", "rule", "add", "to", "fc00:db8::/48", "lookup", "300", "priority", "32000", "protocol", "76"];
    member.host.run(&rule)?;
    let file = member
        .host
        .read(SUBNET_FILE)?
        .replace("FLANNEL_MTU", "FLANNEL_IPV6_NETWORK=fc00:db8::/48\nFLANNEL_IPV6_SUBNET=fc00:db8:0:1::1/64\nFLANNEL_MTU");
    testkit::world::write(&member.host, SUBNET_FILE, &file)?;
    let (whole, said) = hand_over(&member, &[])?;
    ensure!(!whole, "{said}");
    for line in [
        "ip route del blackhole 10.5.1.0/24 proto 76 metric 4294967295 table 300",
        "ip rule del to 10.5.1.0/24 lookup 254 priority 31999 protocol 76",
        "# left, as flanneld has no route to 10.5.201.0/24 yet: ip route del 10.5.201.0/24 proto 76 metric 202 table 300",
        "# left, as table 300 still has such routes: ip rule del to 10.5.0.0/16 lookup 300 priority 32000 protocol 76",
        "# left, as flanneld has no route to fc00:db8:0:c9::/64 yet: ip -6 route del fc00:db8:0:c9::/64 proto 76 metric 202 table 300",
    ] {
        ensure!(said.lines().any(|have| have == line), "no {line:?} in\n{said}");
    }
    // It waits for flanneld, as long as it is told to.
    let program = member.agent.options().program().to_owned();
    let mut waiting = member.host.command(program).args(["cleanup", "--handover", "--wait=20"]).stdout(Stdio::null()).spawn()?;
    member.host.ip_batch(&format!("route add {ours4}\nroute add {ours6}\n"))?;
    ensure!(waiting.wait()?.success());
    let rules = format!("{}{}", member.host.run(&["ip", "rule"])?, member.host.run(&["ip", "-6", "rule"])?);
    ensure!(!rules.contains("lookup 300") && rules.contains("to 10.6.0.0/16 lookup 301"), "{rules}");
    let routes = member.host.run(&["ip", "route", "show", "table", "all", "proto", "76"])?;
    let routes6 = member.host.run(&["ip", "-6", "route", "show", "table", "all", "proto", "76"])?;
    ensure!(routes.is_empty() && routes6.is_empty(), "{routes}{routes6}");
    ensure!(member.host.run(&["ip", "-6", "route", "show", "dev", "flannel.1"])?.contains("fc00:db8:0:c9::/64 via"));
    Ok(())
}

#[test]
fn no_packet_is_lost_between_an_agent_its_end_flanneld_and_the_handover() -> Result<()> {
    let world = World::new()?;
    let (mut one, two) = (world.member("h1")?, world.member("h2")?);
    let (c1, c2) = (one.host.container("c1")?, two.host.container("c2")?);
    wait_for("the containers to reach each other", PATIENCE, || c1.ping(c2.address(), 56, false))?;
    let stream = c1.udp_stream(&c2, Duration::from_millis(1))?;
    one.agent.terminate()?;
    let number = two.key()?.rsplit('/').next().and_then(|name| name.split('.').nth(2)?.parse().ok()).context("no number")?;
    one.host.ip_batch(&flannelds_route(number))?;
    let (whole, said) = hand_over(&one, &["--wait=1"])?;
    ensure!(whole && ours(&one.host)?.is_empty(), "{said}");
    let report = stream.finish()?;
    ensure!(report.lost == 0 && report.received > 0, "{report:?}");
    // And to loden again, which takes flanneld's route away once its own is in.
    let stream = c1.udp_stream(&c2, Duration::from_millis(1))?;
    one.agent.restart()?;
    one.agent.wait_ready(PATIENCE)?;
    wait_for("flanneld's route to be gone", PATIENCE, || {
        let routes = one.host.run(&["ip", "route", "show", "dev", "flannel.1"])?;
        ensure!(routes.lines().count() == 1 && routes.contains("proto 76"), "{routes}");
        Ok(())
    })?;
    ensure!(stream.finish()?.lost == 0);
    Ok(())
}

#[test]
fn without_a_tunnel_each_route_is_replaced_on_the_spot_also_beside_another_networks_tunnel() -> Result<()> {
    let world = World::with_config(r#"{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}"#)?;
    let (mut one, two) = (world.member("h1")?, world.member("h2")?);
    one.host.ip_batch("link add flannel.2 up type vxlan id 2 local 192.168.77.1 dstport 8475\naddr add 10.6.1.0/32 dev flannel.2\n")?;
    let (c1, c2) = (one.host.container("c1")?, two.host.container("c2")?);
    wait_for("the containers to reach each other", PATIENCE, || c1.ping(c2.address(), 56, false))?;
    let stream = c1.udp_stream(&c2, Duration::from_millis(1))?;
    one.agent.terminate()?;
    let (whole, said) = hand_over(&one, &[])?;
    ensure!(whole && ours(&one.host)?.is_empty(), "{said}");
    let routes = one.host.run(&["ip", "route", "show", "proto", "boot"])?;
    ensure!(routes.contains(&format!("via {} dev eth0", two.host.address())), "{routes}");
    ensure!(stream.finish()?.lost == 0);
    one.host.ip_json(&["link", "show", "dev", "flannel.2"]).map(drop)
}

#[test]
fn without_a_tunnel_a_network_is_handed_over_beside_one_that_has_one() -> Result<()> {
    let world = World::new()?;
    world.etcd.put("/two/config", r#"{"Network":"10.6.0.0/16","Backend":{"Type":"host-gw"}}"#)?;
    let far = r#"{"PublicIP":"192.168.77.201","PublicIPv6":null,"BackendType":"host-gw"}"#;
    world.etcd.put("/two/subnets/10.6.201.0-24", far)?;
    let first = world.member("h1")?;
    let second = world.options()?.beside(8481, "/run/flannel/two.env").args(["--etcd-prefix=/two"]);
    let mut second = Member::on(first.host.clone(), second)?;
    second.agent.wait_ready(PATIENCE)?;
    let route = || first.host.run(&["ip", "route", "show", "10.6.201.0/24"]);
    wait_for("the route", PATIENCE, || {
        ensure!(route()?.contains("proto 76"));
        Ok(())
    })?;
    second.agent.terminate()?;
    // flanneld has rules of its own only where it is asked to masquerade, and takes our route for its own.
    let (_, said) = hand_over(&second, &["--subnet-file=/run/flannel/two.env"])?;
    ensure!(said.contains("ip route add 10.6.201.0/24 via 192.168.77.201; ip route del 10.6.201.0/24 proto 76"), "{said}");
    ensure!(!route()?.contains("proto 76") && route()?.contains("via 192.168.77.201 dev eth0"), "{}", route()?);
    first.ensure_ready()
}
