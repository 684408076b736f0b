//! Both families over one etcd, and IPv6 alone: each has a VTEP of its own, and heals and changes on its own.

use anyhow::{Context, Result, ensure};
use testkit::world::{CONFIG, CONFIG_KEY, Member, PATIENCE, SUBNETS, World};
use testkit::{Container, Mesh, wait_for};

const DUAL: &str = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:db8::/48","Backend":{"Type":"vxlan"}}"#;
const V6_ONLY: &str = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00:db8::/48","Backend":{"Type":"vxlan"}}"#;
const VTEP_V6: &str = "flannel-v6.1";

fn members(world: &World, names: &[&str]) -> Result<Vec<Member>> {
    names.iter().map(|name| world.member(name)).collect()
}

fn containers(members: &[Member]) -> Result<Vec<Container>> {
    members.iter().map(|member| member.host.container(&format!("c-{}", member.host.name()))).collect()
}

/// The one container's pings of the largest size that need not be cut, to the other.
fn full_size(from: &Container, to: &Container, v4: bool) -> Result<()> {
    if v4 {
        from.ping(to.address(), from.full_payload(), true)?;
    }
    from.ping(to.address_v6(), from.full_payload_v6(), true)
}

/// What `ip` and `bridge` tell of the IPv6 VTEP.
fn entries_v6(member: &Member) -> Result<Vec<String>> {
    let lists: [&[&str]; 3] = [
        &["ip", "-6", "route", "show", "dev", VTEP_V6, "proto", "76"],
        &["ip", "-6", "neigh", "show", "dev", VTEP_V6, "nud", "permanent"],
        &["bridge", "fdb", "show", "dev", VTEP_V6],
    ];
    let mut entries = Vec::new();
    for list in lists {
        entries.extend(member.host.run(list)?.lines().map(|line| line.trim().to_owned()));
    }
    Ok(entries)
}

#[test]
fn containers_meet_in_both_families_at_full_size_and_the_smaller_mtu_is_announced() -> Result<()> {
    let world = World::with_config(DUAL)?;
    let members = members(&world, &["h1", "h2", "h3"])?;
    let containers = containers(&members)?;
    Mesh::new(&containers)?.wait_whole(PATIENCE)?;
    Mesh::v6(&containers)?.wait_whole(PATIENCE)?;
    let [first, second, ..] = containers.as_slice() else { unreachable!() };
    full_size(first, second, true)?;
    for member in &members {
        let env = member.host.read("/run/flannel/subnet.env")?;
        ensure!(env.contains("FLANNEL_MTU=1430"), "the IPv6 VTEP takes no more: {env}");
        let names: Vec<&str> = env.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        let wanted = ["FLANNEL_NETWORK", "FLANNEL_SUBNET", "FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET", "FLANNEL_MTU", "FLANNEL_IPMASQ"];
        ensure!(names == wanted, "{env}");
        let links = member.host.ip_json(&["link", "show", "dev", VTEP_V6])?;
        ensure!(links.pointer("/0/mtu").is_some_and(|mtu| mtu == 1430), "{links}");
    }
    Ok(())
}

#[test]
fn a_dual_stack_lease_is_written_as_flanneld_writes_it() -> Result<()> {
    let world = World::with_config(DUAL)?;
    let member = world.member("h1")?;
    let leases = world.etcd.get_prefix(SUBNETS)?;
    let [lease] = leases.as_slice() else { anyhow::bail!("not one lease: {leases:?}") };
    let env = member.host.subnet_env()?;
    let name = |line: &str| -> Result<String> {
        let subnet = env.network(line)?.with_context(|| format!("no {line}"))?;
        Ok(format!("{}-{}", subnet.network(), subnet.prefix()))
    };
    ensure!(lease.key == format!("{SUBNETS}{}&{}", name("FLANNEL_SUBNET")?, name("FLANNEL_IPV6_SUBNET")?), "{lease:?}");
    let mac = |device: &str| -> Result<String> {
        let links = member.host.ip_json(&["link", "show", "dev", device])?;
        Ok(links.pointer("/0/address").and_then(serde_json::Value::as_str).context("no MAC")?.to_owned())
    };
    let (v4, v6) = (mac("flannel.1")?, mac(VTEP_V6)?);
    let begins = format!(
        r#"{{"PublicIP":"192.168.77.1","PublicIPv6":"fd77::1","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{v4}"}},"BackendV6Data":{{"VNI":1,"VtepMAC":"{v6}"}}"#
    );
    ensure!(lease.value.starts_with(&begins), "{} does not begin with {begins}", lease.value);
    ensure!(v4 != v6, "each VTEP has a MAC of its own");
    Ok(())
}

#[test]
fn each_family_heals_on_its_own() -> Result<()> {
    let world = World::with_config(DUAL)?;
    let members = members(&world, &["h1", "h2"])?;
    let containers = containers(&members)?;
    let (mut v4, mut v6) = (Mesh::new(&containers)?, Mesh::v6(&containers)?);
    v4.wait_whole(PATIENCE)?;
    v6.wait_whole(PATIENCE)?;
    let [first, second] = containers.as_slice() else { unreachable!() };
    let [member, _] = members.as_slice() else { unreachable!() };
    for (harmed, device) in [("v4", "flannel.1"), ("v6", VTEP_V6)] {
        let stream = if harmed == "v4" {
            first.udp_stream_v6(second, std::time::Duration::from_millis(1))?
        } else {
            first.udp_stream(second, std::time::Duration::from_millis(1))?
        };
        member.host.run(&["ip", "link", "del", device])?;
        v4.wait_whole(PATIENCE)?;
        v6.wait_whole(PATIENCE)?;
        let report = stream.finish()?;
        ensure!(report.lost == 0, "{} packets of the other family were lost while {device} was gone", report.lost);
    }
    member.agent.status_json().map(|status| assert_eq!(status["vteps"].as_array().map(Vec::len), Some(2)))
}

#[test]
fn where_ipv6_is_switched_off_that_is_said_and_no_right_is_asked_for() -> Result<()> {
    let world = World::with_config(DUAL)?;
    let members = members(&world, &["h1", "h2"])?;
    let [member, _] = members.as_slice() else { unreachable!() };
    member.set_sysctl(&format!("net/ipv6/conf/{VTEP_V6}/disable_ipv6"), "1")?;
    let why = member.wait_unready_for(&["IPv6 is disabled"])?;
    ensure!(!why.contains("CAP_NET_ADMIN") && !member.agent.log_contains("CAP_NET_ADMIN"), "{why}\n{}", member.agent.log());
    member.set_sysctl(&format!("net/ipv6/conf/{VTEP_V6}/disable_ipv6"), "0")?;
    wait_for("the agent to be ready", PATIENCE, || member.ensure_ready())
}

#[test]
fn a_peer_that_changes_in_one_family_changes_in_that_alone() -> Result<()> {
    let world = World::with_config(DUAL)?;
    let member = world.member("h1")?;
    let put = |v4: &str, v6: &str, mac_v4: u8, mac_v6: u8| {
        world.put_raw(
            "10.5.201.0-24&fc00:db8:0:c9::-64",
            &format!(
                r#"{{"PublicIP":"{v4}","PublicIPv6":"{v6}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:00:{mac_v4:02x}"}},"BackendV6Data":{{"VNI":1,"VtepMAC":"02:00:00:00:06:{mac_v6:02x}"}}}}"#
            ),
        )
    };
    let wanted_v4 = |address: &str, mac: u8| {
        let mac = format!("02:00:00:00:00:{mac:02x}");
        let mut wanted = [
            "10.5.201.0/24 via 10.5.201.0 proto 76 metric 202 onlink".to_owned(),
            format!("10.5.201.0 lladdr {mac} PERMANENT"),
            format!("{mac} dst {address} self permanent"),
        ];
        wanted.sort();
        wanted
    };
    let has_v6 = |address: &str, mac: u8| {
        let mac = format!("02:00:00:00:06:{mac:02x}");
        wait_for("the IPv6 entries", PATIENCE, || {
            let have = entries_v6(&member)?;
            let wanted = [
                "fc00:db8:0:c9::/64 via fc00:db8:0:c9:: metric 202 onlink pref medium".to_owned(),
                format!("fc00:db8:0:c9:: lladdr {mac} PERMANENT"),
                format!("{mac} dst {address} self permanent"),
            ];
            ensure!(have == wanted, "there is {have:#?}");
            Ok(())
        })
    };
    put("192.168.77.201", "fd77::c9", 1, 1)?;
    member.wait_entries(&wanted_v4("192.168.77.201", 1))?;
    has_v6("fd77::c9", 1)?;
    // The IPv6 address and MAC alone, then the IPv4 ones alone.
    put("192.168.77.201", "fd77::d9", 1, 2)?;
    has_v6("fd77::d9", 2)?;
    member.wait_entries(&wanted_v4("192.168.77.201", 1))?;
    put("192.168.77.211", "fd77::d9", 3, 2)?;
    member.wait_entries(&wanted_v4("192.168.77.211", 3))?;
    has_v6("fd77::d9", 2)?;
    // One family's part turns bad: its last good one stays, the other follows.
    put("192.168.77.221", "fd77::zz", 3, 2).and_then(|()| member.wait_log(&["lease rejected"]))?;
    member.wait_entries(&wanted_v4("192.168.77.211", 3))?;
    has_v6("fd77::d9", 2)?;
    world.etcd.del(&format!("{SUBNETS}10.5.201.0-24&fc00:db8:0:c9::-64"))?;
    member.wait_entries(&[])?;
    wait_for("the IPv6 entries to go", PATIENCE, || {
        let have = entries_v6(&member)?;
        ensure!(have.is_empty(), "{have:?}");
        Ok(())
    })
}

#[test]
fn ipv6_alone_works_over_etcd_and_each_host_has_a_lease_of_its_own() -> Result<()> {
    let world = World::with_config(V6_ONLY)?;
    let members = members(&world, &["h1", "h2", "h3"])?;
    let leases = world.etcd.get_prefix(SUBNETS)?;
    ensure!(leases.len() == 3, "three hosts, {} leases: {leases:?}", leases.len());
    ensure!(leases.iter().all(|lease| lease.key.starts_with(&format!("{SUBNETS}0.0.0.0-0&fc00:db8:")) && lease.value.contains(r#""PublicIP":"0.0.0.0""#)), "{leases:?}");
    let containers = containers(&members)?;
    Mesh::v6(&containers)?.wait_whole(PATIENCE)?;
    let [first, second, ..] = containers.as_slice() else { unreachable!() };
    full_size(first, second, false)?;
    let env = members.first().context("no host")?.host.read("/run/flannel/subnet.env")?;
    ensure!(!env.contains("FLANNEL_NETWORK") && env.contains("FLANNEL_MTU=1430"), "{env}");
    Ok(())
}

#[test]
fn a_restart_keeps_both_subnets_writes_nothing_and_loses_no_packet() -> Result<()> {
    let world = World::with_config(DUAL)?;
    let mut members = members(&world, &["h1", "h2"])?;
    let containers = containers(&members)?;
    Mesh::v6(&containers)?.wait_whole(PATIENCE)?;
    let [first, second] = containers.as_slice() else { unreachable!() };
    let before = world.etcd.get_prefix(SUBNETS)?;
    let (v4, v6) =
        (first.udp_stream(second, std::time::Duration::from_millis(1))?, first.udp_stream_v6(second, std::time::Duration::from_millis(1))?);
    for member in &mut members {
        member.agent.restart()?;
        member.agent.wait_ready(PATIENCE)?;
    }
    for (report, family) in [(v4.finish()?, "IPv4"), (v6.finish()?, "IPv6")] {
        ensure!(report.lost == 0, "{} of {} {family} packets lost", report.lost, report.sent);
    }
    let after = world.etcd.get_prefix(SUBNETS)?;
    ensure!(
        before.iter().zip(&after).all(|(a, b)| (&a.key, &a.value, a.mod_revision) == (&b.key, &b.value, b.mod_revision)),
        "{before:?} {after:?}"
    );
    Ok(())
}

#[test]
fn an_underlay_without_an_ipv6_address_is_named_and_waited_for() -> Result<()> {
    let world = World::with_config(DUAL)?;
    let host = world.lab.host("h1")?;
    host.run(&["ip", "-6", "address", "flush", "dev", "eth0"])?;
    let mut member = Member::on(host, world.options()?.args(["--iface=eth0"]))?;
    member.wait_unready_for(&["eth0 has no usable IPv6 address"])?;
    member.host.run(&["ip", "address", "add", "fd77::1/64", "dev", "eth0", "nodad"])?;
    member.agent.wait_ready(PATIENCE)
}

#[test]
fn an_agent_that_waits_for_an_ipv6_address_goes_on_when_the_network_needs_none() -> Result<()> {
    let world = World::with_config(DUAL)?;
    let host = world.lab.host("h1")?;
    host.run(&["ip", "-6", "address", "flush", "dev", "eth0"])?;
    let mut member = Member::on(host, world.options()?.args(["--iface=eth0"]))?;
    member.wait_unready_for(&["eth0 has no usable IPv6 address"])?;
    world.etcd.put(CONFIG_KEY, CONFIG)?;
    member.agent.wait_ready(PATIENCE)
}

#[test]
fn a_host_that_boots_while_the_store_is_away_has_both_families_from_its_last_state() -> Result<()> {
    let mut world = World::with_config(DUAL)?;
    let mut members = members(&world, &["h1", "h2"])?;
    let containers = containers(&members)?;
    Mesh::v6(&containers)?.wait_whole(PATIENCE)?;
    let [booted, _] = members.as_mut_slice() else { unreachable!() };
    wait_for("the last state to name the other host twice", PATIENCE, || {
        let text = booted.host.read("/var/lib/loden/state")?;
        ensure!(text.ends_with("\npeers 2\n"), "it says {text}");
        Ok(())
    })?;
    let before = booted.host.read("/run/flannel/subnet.env")?;
    world.etcd.kill()?;
    booted.agent.kill9()?;
    booted.host.run(&["ip", "link", "del", VTEP_V6])?;
    booted.host.boot()?;
    booted.agent.restart()?;
    booted.agent.wait_ready(PATIENCE)?;
    ensure!(booted.host.read("/run/flannel/subnet.env")? == before);
    Mesh::new(&containers)?.wait_whole(PATIENCE)?;
    Mesh::v6(&containers)?.wait_whole(PATIENCE).map(drop)
}

#[test]
fn plan_and_status_speak_of_both_families() -> Result<()> {
    let world = World::with_config(DUAL)?;
    let mut member = world.member("h1")?;
    let status = member.agent.ask(&["status"])?;
    for words in ["flannel.1 (", "flannel-v6.1 (", "10.5.", "fc00:db8:", "192.168.77.1 and fd77::1"] {
        ensure!(status.contains(words), "{words:?} is not in\n{status}");
    }
    ensure!(member.agent.ask_with_flags("plan")?.contains("nothing to change"));
    member.agent.terminate()?;
    member.host.run(&["ip", "link", "del", VTEP_V6])?;
    let plan = member.agent.ask_with_flags("plan")?;
    ensure!(plan.contains("ip link add flannel-v6.1") && !plan.contains("ip link add flannel.1"), "{plan}");
    Ok(())
}

#[test]
fn an_underlay_too_small_for_ipv6_or_without_an_ipv6_address_keeps_neither_family_from_being_healed() -> Result<()> {
    let world = World::with_config(DUAL)?;
    let members = members(&world, &["h1", "h2"])?;
    let containers = containers(&members)?;
    let (mut v4, mut v6) = (Mesh::new(&containers)?, Mesh::v6(&containers)?);
    v4.wait_whole(PATIENCE)?;
    v6.wait_whole(PATIENCE)?;
    let member = members.first().context("no host")?;
    let before = world.etcd.get_prefix(SUBNETS)?;
    member.host.run(&["ip", "link", "set", "eth0", "mtu", "1340"])?;
    member.wait_log(&["WARN", "underlay not usable at the moment", "1340"])?;
    member.host.run(&["ip", "route", "flush", "dev", "flannel.1", "proto", "76"])?;
    v4.wait_whole(PATIENCE)?;
    member.host.run(&["ip", "link", "set", "eth0", "mtu", "1500"])?;
    // The kernel leaves a link-local address: nobody could be told to send there.
    member.host.run(&["ip", "address", "del", "fd77::1/64", "dev", "eth0"])?;
    member.wait_log(&["WARN", "underlay not usable at the moment", "no usable IPv6 address"])?;
    member.host.run(&["ip", "route", "flush", "dev", "flannel.1", "proto", "76"])?;
    v4.wait_whole(PATIENCE)?;
    member.host.run(&["ip", "address", "add", "fd77::1/64", "dev", "eth0", "nodad"])?;
    v6.wait_whole(PATIENCE)?;
    let leases = world.etcd.get_prefix(SUBNETS)?;
    ensure!(before.iter().zip(&leases).all(|(a, b)| a.value == b.value), "{before:?} {leases:?}");
    Ok(())
}
