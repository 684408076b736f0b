//! Masquerade: who arrives as whom, what becomes of the rules when somebody changes them, and coming from flanneld without a gap.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::matrix::{Cell, End, Scene, expected};
use testkit::world::{CONFIG_KEY, Member, PATIENCE, World};
use testkit::{Host, Monitor, wait_for};

const DUAL: &str = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:db8::/48","Backend":{"Type":"vxlan"}}"#;

/// The tables of a dual-stack host.
const TABLES: [&str; 2] = ["table ip loden-net-flannel.1", "table ip6 loden-net-flannel-v6.1"];

fn member(world: &World, name: &str, flags: &[&str]) -> Result<Member> {
    let mut member = Member::on(world.lab.host(name)?, world.options()?.args(flags.iter().copied()))?;
    member.agent.wait_ready(PATIENCE)?;
    Ok(member)
}

fn tables(host: &Host) -> Result<Vec<String>> {
    let mut tables: Vec<String> = host.run(&["nft", "list", "tables"])?.lines().map(str::to_owned).collect();
    tables.sort();
    Ok(tables)
}

fn matrix(flags: &[&str], masquerade: bool) -> Result<()> {
    let world = World::with_config(DUAL)?;
    let (h1, h2) = (member(&world, "h1", flags)?, member(&world, "h2", flags)?);
    let scene = Scene::new(&world.lab, &h1.host, &h2.host)?;
    for v6 in [false, true] {
        wait_for("the containers to meet", PATIENCE, || scene.meet(v6))?;
        let measured = scene.measure(v6)?;
        let mut expected = expected(masquerade);
        if flags.contains(&"--vxlan-peers-only") {
            // The second host lets in what the first vouches for: its containers, and itself.
            let foreign = |cell: &&mut Cell| cell.to == End::PodThere && cell.arrives_as == Some(End::Outside);
            expected.iter_mut().filter(foreign).for_each(|cell| cell.arrives_as = None);
        }
        let wrong: Vec<_> = measured.iter().zip(expected).filter(|(have, want)| *have != want).collect();
        ensure!(wrong.is_empty(), "IPv6 {v6}: {wrong:#?}");
    }
    Ok(())
}

#[test]
fn with_masquerade_everybody_arrives_as_flannels_rules_have_it() -> Result<()> {
    matrix(&["--ip-masq"], true)
}

#[test]
fn without_masquerade_everybody_arrives_as_himself() -> Result<()> {
    matrix(&[], false)
}

#[test]
fn plain_ports_spared_tracking_and_peers_only_change_nobodys_address() -> Result<()> {
    matrix(&["--ip-masq", "--ip-masq-fully-random-disable", "--notrack", "--vxlan-peers-only"], true)
}

#[test]
fn a_dual_stack_host_drops_what_comes_from_no_peer_in_both_families() -> Result<()> {
    let world = World::with_config(DUAL)?;
    let flags = ["--vxlan-peers-only"];
    let (h1, h2) = (member(&world, "h1", &flags)?, member(&world, "h2", &flags)?);
    let (c1, c2) = (h1.host.container("c1")?, h2.host.container("c2")?);
    wait_for("the containers to meet", PATIENCE, || c1.ping(c2.address(), 56, false).and(c1.ping(c2.address_v6(), 56, false)))?;
    let listed = h1.host.run(&["nft", "list", "table", "ip6", "loden-flannel-v6.1"])?;
    let network = c2.address_v6().to_string();
    let subnet = network.trim_end_matches(|digit: char| digit != ':');
    ensure!(listed.contains(&format!("fd77::2 . {subnet}")) && listed.contains("fd77::2 . fd77::2"), "{listed}");
    let drops = |table: &str| -> Result<bool> { Ok(h1.host.run(&["nft", "list", "table", "ip6", table])?.contains("counter packets 0")) };
    ensure!(drops("loden-flannel-v6.1")?, "packets of a peer were dropped");
    // A host that is no peer, over IPv6.
    let rogue = world.lab.host("rogue")?;
    let mac = h1.host.ip_json(&["link", "show", "dev", "flannel-v6.1"])?;
    let mac = mac.pointer("/0/address").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    rogue.ip_batch(&format!(
        "link add vx type vxlan id 1 local fd77::3 dstport 8472 remote fd77::1\nlink set vx up\naddr add fc00:db8:99::1/128 dev vx nodad\n\
         neigh add fc00:db8:98::1 lladdr {mac} dev vx nud permanent\nroute add {}/128 via fc00:db8:98::1 dev vx onlink\n",
        c1.address_v6()
    ))?;
    let _ = rogue.run(&["ping", "-c1", "-W0.25", "-n", &c1.address_v6().to_string()]);
    wait_for("the rogue's packets to be dropped", PATIENCE, || {
        ensure!(!drops("loden-flannel-v6.1")?);
        Ok(())
    })?;
    h1.wait_status("both filters", |status| {
        let (filter, there) = (&status["filter"], "ip loden-flannel.1, ip6 loden-flannel-v6.1");
        filter["table"] == there && filter["in_step"] == true && filter["dropped"].as_u64() > Some(0)
    })?;
    Ok(())
}

#[test]
fn a_restart_writes_nothing_a_flush_is_put_right_at_once_and_cleanup_leaves_nothing() -> Result<()> {
    let world = World::with_config(DUAL)?;
    let mut member = member(&world, "h1", &["--ip-masq"])?;
    assert_eq!(tables(&member.host)?, TABLES);
    let (monitor, handles) = (Monitor::start(&member.host)?, member.host.run(&["nft", "-a", "list", "ruleset"])?);
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.host.run(&["nft", "-a", "list", "ruleset"])? == handles, "the rules were made anew");
    ensure!(monitor.so_far()?.is_empty(), "{:#?}", monitor.so_far()?);
    let listed = || -> Result<Vec<String>> {
        let of_table = |table: &&str| member.host.run(&[&["nft", "-s", "list"], table.split(' ').collect::<Vec<_>>().as_slice()].concat());
        TABLES.iter().map(of_table).collect()
    };
    let rules = listed()?;
    member.host.run(&["nft", "flush", "ruleset"])?;
    wait_for("the rules to be there again", PATIENCE, || {
        ensure!(listed()? == rules);
        Ok(())
    })?;
    member.wait_metric("loden_heals_total{kind=\"packet_filter\"}", 2.0)?;
    member.wait_log(&["packet filter was changed", "nft"])?;
    member.wait_status("both filters in step", |status| {
        let filters = status["packet_filters"].as_array();
        filters.is_some_and(|filters| filters.len() == 2 && filters.iter().all(|filter| filter["in_step"] == true))
    })?;
    member.ensure_ready()?;
    member.agent.terminate()?;
    assert_eq!(tables(&member.host)?, TABLES, "the rules go on without the agent");
    member.host.run(&["nft", "add", "table", "ip", "mine"])?;
    let said = member.agent.ask_with_flags("cleanup")?;
    ensure!(TABLES.iter().all(|table| said.contains(&format!("nft delete {table}"))), "{said}");
    assert_eq!(tables(&member.host)?, ["table ip mine"]);
    Ok(())
}

#[test]
fn another_network_that_waits_for_a_start_changes_no_rule_of_the_one_in_force() -> Result<()> {
    let world = World::new()?;
    let member = member(&world, "h1", &["--ip-masq"])?;
    let rules = member.host.run(&["nft", "-a", "list", "ruleset"])?;
    ensure!(rules.contains("table ip loden-net-flannel.1") && rules.contains("10.5.0.0/16"), "{rules}");
    world.etcd.put(CONFIG_KEY, r#"{"Network":"10.6.0.0/16","Backend":{"Type":"host-gw"}}"#)?;
    member.wait_log(&["network configuration not taken over", "Network from 10.5.0.0/16 to 10.6.0.0/16"])?;
    member.ensure_ready()?;
    ensure!(member.host.run(&["nft", "-a", "list", "ruleset"])? == rules, "the rules were changed");
    Ok(())
}

/// What flanneld v0.28.9 leaves when it stops, in the form it was in.
fn left_by_flanneld(host: &Host, native: bool) -> Result<()> {
    if native {
        let rules = "add table ip flannel-ipv4; add chain ip flannel-ipv4 postrtg { type nat hook postrouting priority srcnat; }; \
             add rule ip flannel-ipv4 postrtg ip saddr 10.5.33.0/24 ip daddr 10.5.0.0/16 return; \
             add rule ip flannel-ipv4 postrtg ip saddr 10.5.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random";
        return host.run(&["nft", rules]).map(drop);
    }
    for rule in [
        "-t nat -N FLANNEL-POSTRTG",
        "-t nat -A POSTROUTING -m comment --comment flanneld_masq -j FLANNEL-POSTRTG",
        "-t nat -A FLANNEL-POSTRTG -s 10.5.33.0/24 -d 10.5.0.0/16 -j RETURN",
        "-t nat -A FLANNEL-POSTRTG -s 10.5.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully",
        "-N FLANNEL-FWD",
        "-A FORWARD -j FLANNEL-FWD",
        "-A FLANNEL-FWD -s 10.5.0.0/16 -j ACCEPT",
        "-A FLANNEL-FWD -d 10.5.0.0/16 -j ACCEPT",
        "-P FORWARD DROP",
    ] {
        host.run(&[&["iptables-nft", "-w"], rule.split(' ').collect::<Vec<_>>().as_slice()].concat())?;
    }
    Ok(())
}

#[test]
fn taking_over_from_flanneld_in_either_form_new_flows_and_old_go_on_and_its_rules_are_gone() -> Result<()> {
    for native in [false, true] {
        let world = World::new()?;
        let mut member = member(&world, "h1", &["--ip-masq"])?;
        let (pod, outside) = (member.host.container("pod")?, world.lab.host("outside")?);
        member.agent.terminate()?;
        member.agent.ask_with_flags("cleanup")?;
        left_by_flanneld(&member.host, native)?;
        // New flows all the time, each from a port of its own: whoever is not masqueraded arrives as himself.
        let to = outside.within(|| Ok(std::net::UdpSocket::bind((outside.address(), 0))?))?;
        to.set_read_timeout(Some(Duration::from_secs(1)))?;
        let (target, stop) = (to.local_addr()?, std::sync::atomic::AtomicBool::new(false));
        let (sent, seen) = std::thread::scope(|scope| -> Result<(u64, Vec<std::net::IpAddr>)> {
            let sender = scope.spawn(|| -> Result<u64> {
                let mut sent = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    pod.udp_socket()?.send_to(&[0], target)?;
                    sent += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(sent)
            });
            let receiver = scope.spawn(|| {
                let mut seen = Vec::new();
                while let Ok((_, from)) = to.recv_from(&mut [0; 8]) {
                    seen.push(from.ip());
                }
                seen
            });
            let taken = member.agent.restart().and_then(|()| member.agent.wait_ready(PATIENCE));
            let gone = wait_for("flanneld's rules to be gone", PATIENCE, || {
                let rules = member.host.run(&["nft", "list", "ruleset"])?;
                ensure!(!rules.contains("FLANNEL") && !rules.contains("flannel-ipv4"), "{rules}");
                Ok(())
            });
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let sent = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
            let seen = receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))?;
            taken.and(gone)?;
            Ok((sent, seen))
        })?;
        ensure!(sent > 10 && u64::try_from(seen.len())? == sent, "{} of {sent} arrived", seen.len());
        let bare = seen.iter().filter(|from| **from != member.host.address()).count();
        ensure!(bare == 0, "{bare} of {sent} were not masqueraded");
    }
    Ok(())
}
