//! `--vxlan-peers-only`: what comes out of a tunnel that should not reaches no container, and all else does.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::world::{Member, PATIENCE, Peer, World};
use testkit::{Container, FILTER_TABLE, Monitor, Reached, Rogue, filter_drops, filter_table, forge, wait_for};

const FLAG: &str = "--vxlan-peers-only";

fn guarded(world: &World, name: &str) -> Result<Member> {
    let mut member = Member::on(world.lab.host(name)?, world.options()?.args([FLAG]))?;
    member.agent.wait_ready(PATIENCE)?;
    Ok(member)
}

fn pair(a: &Member, b: &Member) -> Result<(Container, Container)> {
    let pair = (a.host.container("c1")?, b.host.container("c2")?);
    wait_for("the containers to meet", PATIENCE, || pair.0.ping(pair.1.address(), 56, false))?;
    Ok(pair)
}

/// An address of a member's subnet that no container has.
fn of_subnet(member: &Member, last: u8) -> Result<Ipv4Addr> {
    let network = member.host.subnet_env()?.subnet()?.network().to_string();
    let (front, _) = network.rsplit_once('.').context("not IPv4")?;
    Ok(format!("{front}.{last}").parse()?)
}

/// The elements that these peers call for, beside those of others.
fn wait_elements(member: &Member, peers: &[Peer]) -> Result<()> {
    wait_for("the filter's elements", PATIENCE, || {
        let table = filter_table(&member.host)?.context("no table")?;
        for Peer { number, mac: _, address } in peers {
            let wanted = [format!("{address} . 10.5.{number}.0"), format!("{address} . {address}")];
            ensure!(wanted.iter().all(|wanted| table.contains(wanted)), "{table:#?} has not {wanted:?}");
        }
        let all = table.iter().filter(|word| word.contains(" . ") && !word.contains("ipv4_addr") && !word.contains('@')).count();
        ensure!(all == peers.len() * 2, "{all} elements: {table:#?}");
        Ok(())
    })
}

#[test]
fn a_rogue_reaches_no_container_and_neither_does_a_peer_that_forges_and_without_the_flag_both_do() -> Result<()> {
    let world = World::new()?;
    let (mut h1, h2) = (guarded(&world, "h1")?, world.member("h2")?);
    let third = world.put(Peer::new(203))?;
    let (c1, c2) = pair(&h1, &h2)?;
    let rogue = Rogue::new(&world.lab, 1, h1.host.address(), &h1.vtep_identity()?.1)?;
    wait_for("the third peer's element", PATIENCE, || {
        let table = filter_table(&h1.host)?.context("no table")?;
        ensure!(table.contains(&format!("{} . 10.5.203.0", third.address)), "{table:#?}");
        Ok(())
    })?;
    let sources = [of_subnet(&h2, 77)?, of_subnet(&h1, 77)?, "10.5.203.7".parse()?, "10.99.0.1".parse()?];
    let before = filter_drops(&h1.host)?;
    for source in sources.into_iter().chain([rogue.host().address()]) {
        ensure!(forge(rogue.host(), source, &c1)? == Reached::NOTHING, "the rogue gets in as {source}");
    }
    let by_rogue = filter_drops(&h1.host)?;
    ensure!(by_rogue >= before + 20, "{by_rogue} drops, {before} before: the packets did not come this far");
    // A peer may send from behind itself and from its own address, and from nowhere else.
    for source in &sources[1..] {
        ensure!(forge(&h2.host, *source, &c1)? == Reached::NOTHING, "a peer gets in as {source}");
    }
    ensure!(filter_drops(&h1.host)? > by_rogue);
    ensure!(forge(&h2.host, h2.host.address(), &c1)? == Reached::BOTH);
    ensure!(forge(&h2.host, of_subnet(&h2, 77)?, &c1)? == Reached::BOTH);
    c1.ping(c2.address(), c1.full_payload(), true)?;
    let status = h1.agent.status_json()?;
    ensure!(status["filter"]["in_step"] == true && status["filter"]["dropped"].as_u64() > Some(by_rogue), "{:#}", status["filter"]);

    // The same without the flag: the table goes, and the packets come.
    h1.agent.options_mut().clone_from(&world.options()?);
    h1.agent.restart()?;
    h1.agent.wait_ready(PATIENCE)?;
    ensure!(filter_table(&h1.host)?.is_none(), "the table is still there");
    for source in sources {
        ensure!(forge(rogue.host(), source, &c1)? == Reached::BOTH, "the rogue does not get in as {source}");
    }
    ensure!(forge(&h2.host, sources[2], &c1)? == Reached::BOTH);
    Ok(())
}

#[test]
fn what_is_no_ipv4_within_a_tunnel_is_dropped_and_another_vni_is_left_to_others() -> Result<()> {
    let world = World::new()?;
    let h1 = guarded(&world, "h1")?;
    let c1 = h1.host.container("c1")?;
    // Somebody else's overlay on the same host and port.
    h1.host.ip_batch("link add other type vxlan id 7 dstport 8472\nlink set other up\naddr add 172.30.0.1/24 dev other\n")?;
    let other = Rogue::new(&world.lab, 7, h1.host.address(), "02:00:00:00:00:07")?;
    other.host().ip_batch("addr add 172.30.0.2/24 dev vx\n")?;
    h1.host.run(&["bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "other", "dst", &other.host().address().to_string()])?;
    other.host().run(&["ping", "-c1", "-W5", "-n", "172.30.0.1"])?;
    // ARP and IPv6 for ours.
    let rogue = Rogue::new(&world.lab, 1, h1.host.address(), &h1.vtep_identity()?.1);
    ensure!(rogue.is_err(), "two hosts of one name");
    let before = filter_drops(&h1.host)?;
    other.host().ip_batch(&format!(
        "link del vx\nlink add vx type vxlan id 1 local {} dstport 8472 remote {}\nlink set vx up\naddr add 172.31.0.2/24 dev vx\n",
        other.host().address(),
        h1.host.address()
    ))?;
    let _ = other.host().run(&["ping", "-c1", "-W0.25", "-n", "172.31.0.9"]);
    wait_for("ARP to be dropped", PATIENCE, || {
        ensure!(filter_drops(&h1.host)? > before);
        Ok(())
    })?;
    ensure!(!c1.run(&["cat", "/proc/net/arp"])?.contains("172.31"));
    Ok(())
}

#[test]
fn peers_come_and_go_under_a_stream_that_loses_nothing() -> Result<()> {
    let world = World::new()?;
    let (h1, h2) = (guarded(&world, "h1")?, guarded(&world, "h2")?);
    let (c1, c2) = pair(&h1, &h2)?;
    let stream = c1.udp_stream(&c2, Duration::from_millis(1))?;
    for round in 0..5 {
        let peers = world.peers(201..=210)?;
        wait_for("the peers' elements", PATIENCE, || {
            let table = filter_table(&h2.host)?.context("no table")?;
            ensure!(table.contains(&format!("{} . 10.5.210.0", peers[9].address)), "round {round}: {table:#?}");
            Ok(())
        })?;
        for peer in peers {
            world.etcd.del(&peer.key())?;
        }
    }
    let report = stream.finish()?;
    ensure!(report.lost == 0 && report.sent > 100, "{report:?}");
    Ok(())
}

#[test]
fn the_table_follows_the_peers_and_a_restart_writes_nothing_and_cleanup_takes_it_away() -> Result<()> {
    let world = World::new()?;
    let mut peers = world.peers([201, 202])?;
    let mut member = guarded(&world, "h1")?;
    wait_elements(&member, &peers)?;
    // Others' tables are none of our business.
    member.host.run(&["nft", "add table ip loden-other; add table inet filter; add chain inet filter input"])?;
    peers.push(world.put(Peer::new(203))?);
    wait_elements(&member, &peers)?;
    world.etcd.del(&peers.remove(0).key())?;
    wait_elements(&member, &peers)?;
    let moved = world.put(peers[0].at("192.168.77.99"))?;
    peers[0] = moved;
    wait_elements(&member, &peers)?;
    // A subnet that is smaller than the others.
    world.put_raw("10.5.220.64-26", &testkit::world::record("192.168.77.120", "02:00:00:00:00:78"))?;
    wait_for("the smaller subnet's element", PATIENCE, || {
        let table = filter_table(&member.host)?.context("no table")?;
        ensure!(
            table.iter().any(|word| word == "192.168.77.120 . 10.5.220.64") && table.iter().any(|word| word.contains("@pass26")),
            "{table:#?}"
        );
        Ok(())
    })?;
    let (monitor, handle) = (Monitor::start(&member.host)?, member.host.run(&["nft", "-a", "list", "tables"])?);
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.host.run(&["nft", "-a", "list", "tables"])? == handle, "the table was made anew");
    ensure!(monitor.so_far()?.is_empty(), "{:#?}", monitor.so_far()?);
    member.agent.terminate()?;
    let said = member.agent.ask_with_flags("cleanup")?;
    ensure!(said.contains(&format!("nft delete table ip {FILTER_TABLE}")), "{said}");
    ensure!(member.host.run(&["nft", "list", "tables"])?.trim() == "table ip loden-other\ntable inet filter");
    Ok(())
}

#[test]
fn whatever_somebody_does_to_the_table_is_put_right_and_told() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201, 202])?;
    let member = guarded(&world, "h1")?;
    wait_elements(&member, &peers)?;
    member.wait_peers(&peers)?;
    let right = filter_table(&member.host)?;
    for (heals, vandalism) in (1..).zip([
        "delete element ip loden-flannel.1 pass24 { 192.168.77.201 . 10.5.201.0 }",
        "add element ip loden-flannel.1 pass24 { 192.168.77.66 . 10.5.201.0 }",
        "flush chain ip loden-flannel.1 vxlan",
        "insert rule ip loden-flannel.1 input accept",
        "add table ip loden-flannel.1 { flags dormant; }",
        "delete table ip loden-flannel.1",
    ]) {
        member.host.run(&["nft", vandalism])?;
        wait_for("the table to be right again", PATIENCE, || {
            let have = filter_table(&member.host)?;
            ensure!(have == right, "after {vandalism}: {have:#?}");
            Ok(())
        })?;
        member.wait_metric("loden_heals_total{kind=\"filter\"}", f64::from(heals))?;
    }
    member.wait_log(&["filter table was changed", "nft"])?;
    member.host.run(&["nft", "flush set ip loden-flannel.1 pass32"])?;
    wait_for("the table to be right again", PATIENCE, || {
        ensure!(filter_table(&member.host)? == right);
        Ok(())
    })?;
    member.ensure_ready()?;
    Ok(())
}
