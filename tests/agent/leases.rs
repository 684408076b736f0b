//! How a host comes by its subnet, keeps it, and what happens when somebody else wants it too.

use anyhow::{Context, Result, ensure};
use testkit::{Host, wait_for};

use testkit::Monitor;
use testkit::world::{CONFIG, CONFIG_KEY, Member, PATIENCE, Peer, SUBNET_FILE, SUBNETS, World, record, write};

/// A network with one subnet for a host.
const POOL_OF_ONE: &str = r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.9.0","SubnetMax":"10.5.9.0","Backend":{"Type":"vxlan"}}"#;
/// The lease of that one.
const THE_ONE: &str = "10.5.9.0-24";

/// Another host's record, that of a loden agent.
fn of_another() -> String {
    let flanneld = record("192.168.77.99", "02:00:00:00:00:99");
    format!(r#"{},"Owner":"00112233445566778899aabbccddeeff"}}"#, flanneld.strip_suffix('}').unwrap_or(&flanneld))
}

#[test]
fn a_deleted_or_revoked_lease_is_claimed_again_with_the_same_subnet_and_mac_and_nothing_else_changes() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201, 202])?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let (before, monitor) = (member.lease(&world)?, Monitor::start(&member.host)?);
    world.etcd.del(&before.key)?;
    let again = wait_for("the lease to be back", PATIENCE, || world.etcd.get(&before.key)?.context("it is not there"))?;
    ensure!(again.value == before.value && again.lease != before.lease, "{again:?}");
    world.etcd.lease_revoke(again.lease)?;
    let third = wait_for("the lease to be back", PATIENCE, || world.etcd.get(&before.key)?.context("it is not there"))?;
    ensure!(third.value == before.value && third.lease != again.lease && world.etcd.lease_left(third.lease)?.is_some());
    member.agent.wait_ready(PATIENCE)?;
    ensure!(monitor.so_far()?.is_empty(), "the kernel was touched: {:#?}", monitor.so_far()?);
    ensure!(world.etcd.get_prefix(SUBNETS)?.len() == 3);
    Ok(())
}

#[test]
fn a_subnet_that_another_host_has_taken_is_lost_and_not_stolen_and_taken_again_when_free() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201])?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let (before, monitor) = (member.lease(&world)?, Monitor::start(&member.host)?);
    world.etcd.put(&before.key, &of_another())?;
    member.wait_unready_for(&["192.168.77.99", "lease lost"])?;
    let status = member.agent.status_json()?;
    ensure!(status["lease"]["state"] == "lost" && status["lease"]["reason"].to_string().contains("192.168.77.99"), "{:#}", status["lease"]);
    ensure!(member.agent.get("/healthz")?.0 == 200);
    let there = world.etcd.get(&before.key)?.context("it is gone")?;
    ensure!(there.value == of_another() && there.version == before.version + 1, "{there:?}");
    ensure!(monitor.so_far()?.is_empty(), "the kernel was touched: {:#?}", monitor.so_far()?);
    world.etcd.del(&before.key)?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.lease(&world)?.value == before.value);
    Ok(())
}

#[test]
fn a_reservation_is_taken_and_stays_without_an_etcd_lease() -> Result<()> {
    let world = World::new()?;
    world.put_raw("10.5.150.0-24", r#"{"PublicIP":"192.168.77.1"}"#)?;
    let mut member = world.member("h1")?;
    for _ in 0..2 {
        ensure!(member.host.read(SUBNET_FILE)?.contains("FLANNEL_SUBNET=10.5.150.1/24"));
        let lease = member.lease(&world)?;
        ensure!(lease.lease == 0 && lease.value.contains("\"VtepMAC\"") && lease.value.contains("\"Owner\""), "{lease:?}");
        let status = member.agent.status_json()?;
        ensure!(status["lease"]["expires_in"].is_null() && status["lease"]["state"] == "held", "{:#}", status["lease"]);
        ensure!(member.agent.metric("loden_lease_remaining_seconds")?.is_infinite());
        ensure!(world.etcd.get_prefix(SUBNETS)?.len() == 1);
        member.agent.restart()?;
        member.agent.wait_ready(PATIENCE)?;
    }
    Ok(())
}

#[test]
fn the_subnet_in_the_subnet_file_is_kept_when_the_store_has_forgotten_everything() -> Result<()> {
    let mut world = World::new()?;
    let mut member = world.member("h1")?;
    let before = (member.host.read(SUBNET_FILE)?, member.vtep_identity()?);
    member.agent.terminate()?;
    world.etcd.restart_empty()?;
    world.etcd.put(CONFIG_KEY, CONFIG)?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!((member.host.read(SUBNET_FILE)?, member.vtep_identity()?) == before);
    ensure!(member.lease(&world)?.lease != 0);
    Ok(())
}

#[test]
fn a_host_that_boots_anew_has_the_subnet_and_mac_of_its_lease_again() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201])?;
    let mut member = world.member("h1")?;
    let (before, mac, lease) = (member.host.read(SUBNET_FILE)?, member.vtep_identity()?.1, member.lease(&world)?);
    member.agent.kill9()?;
    member.host.ip_batch("link del flannel.1\n")?;
    member.host.run(&["rm", "-r", "/run/flannel"])?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.host.read(SUBNET_FILE)? == before && member.vtep_identity()?.1 == mac && member.lease(&world)? == lease);
    member.wait_peers(&peers)
}

#[test]
fn a_subnet_file_that_names_a_subnet_which_is_taken_or_does_not_fit_is_no_hindrance() -> Result<()> {
    let world = World::new()?;
    world.peers([201])?;
    for (name, subnet) in [("h1", "10.5.201.1/24"), ("h2", "10.7.3.1/24"), ("h3", "rubbish")] {
        let host = world.lab.host(name)?;
        write(
            &host,
            SUBNET_FILE,
            &format!("FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET={subnet}\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"),
        )?;
        let mut member = Member::on(host, world.options()?)?;
        member.agent.wait_ready(PATIENCE)?;
        ensure!(!member.host.read(SUBNET_FILE)?.contains(subnet));
        ensure!(world.etcd.get(&Peer::new(201).key())?.is_some_and(|entry| entry.version == 1));
    }
    Ok(())
}

#[test]
fn of_two_agents_that_race_for_one_subnet_exactly_one_has_it_and_the_other_says_why_not_until_it_is_free() -> Result<()> {
    let world = World::with_config(POOL_OF_ONE)?;
    let mut members = [world.starting("h1")?, world.starting("h2")?];
    let ready = |member: &Member| member.agent.get("/readyz").is_ok_and(|(code, _)| code == 200);
    let winner = wait_for("one to be ready", PATIENCE, || members.iter().position(ready).context("none is"))?;
    let [first, second] = &mut members;
    let (winner, loser) = if winner == 0 { (first, second) } else { (second, first) };
    loser.wait_unready_for(&["no lease", "10.5.9.0"])?;
    ensure!(loser.host.subnet_env().is_err() && loser.vtep().is_err(), "the loser acts as if it had a subnet");
    let lease = winner.lease(&world)?;
    ensure!(lease.key.ends_with(THE_ONE) && lease.version == 1 && world.etcd.get_prefix(SUBNETS)?.len() == 1, "{lease:?}");
    loser.wait_log(&["ERROR", "no lease", "10.5.9.0"])?;
    ensure!(loser.log_lines(&["ERROR"]) == 1, "{}", loser.agent.log());
    // It is free again.
    winner.agent.terminate()?;
    winner.agent.ask_with_flags("release")?;
    loser.agent.wait_ready(PATIENCE * 4)?;
    ensure!(loser.lease(&world)?.version == 1);
    Ok(())
}

#[test]
fn an_agent_without_a_lease_takes_one_as_soon_as_the_network_is_widened() -> Result<()> {
    let world = World::with_config(POOL_OF_ONE)?;
    let mut other = world.member("h1")?;
    let mut waiting = world.starting("h2")?;
    waiting.wait_unready_for(&["no lease", "10.5.9.0"])?;
    world.etcd.put(CONFIG_KEY, &POOL_OF_ONE.replace(r#""SubnetMax":"10.5.9.0""#, r#""SubnetMax":"10.5.10.0""#))?;
    waiting.agent.wait_ready(PATIENCE)?;
    ensure!(waiting.key()?.ends_with("10.5.10.0-24"), "{}", waiting.key()?);
    other.agent.wait_ready(PATIENCE)
}

#[test]
fn an_agent_that_cannot_make_a_vtep_takes_no_lease_and_says_so_once() -> Result<()> {
    let world = World::with_config(r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":10000000}}"#)?;
    let mut member = world.starting("h1")?;
    member.wait_unready_for(&["VNI 10000000 is too large"])?;
    // As long as a look at the underlay takes, and more.
    world.etcd.put(CONFIG_KEY, r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":10000001}}"#)?;
    member.wait_unready_for(&["VNI 10000001 is too large"])?;
    ensure!(member.log_lines(&["ERROR"]) == 2 && world.etcd.get_prefix(SUBNETS)?.is_empty(), "{}", member.agent.log());
    world.etcd.put(CONFIG_KEY, r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#)?;
    member.agent.wait_ready(PATIENCE)
}

#[test]
fn many_agents_that_start_at_once_have_a_subnet_each() -> Result<()> {
    let world =
        World::with_config(r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.10.0","SubnetMax":"10.5.15.0","Backend":{"Type":"vxlan"}}"#)?;
    let mut members = (1..=6).map(|n| world.starting(&format!("h{n}"))).collect::<Result<Vec<_>>>()?;
    for member in &mut members {
        member.agent.wait_ready(PATIENCE)?;
    }
    let mut keys = members.iter().map(Member::key).collect::<Result<Vec<_>>>()?;
    keys.sort();
    keys.dedup();
    let entries = world.etcd.get_prefix(SUBNETS)?;
    ensure!(keys.len() == 6 && entries.len() == 6 && entries.iter().all(|entry| entry.version == 1), "{entries:#?}");
    for member in &members {
        member.wait_metric("loden_peers", 5.0)?;
    }
    Ok(())
}

#[test]
fn another_hosts_lease_that_names_our_address_is_reported_and_left_alone() -> Result<()> {
    let world = World::new()?;
    let clone = of_another().replace("192.168.77.99", "192.168.77.1");
    world.put_raw("10.5.150.0-24", &clone)?;
    let member = world.member("h1")?;
    ensure!(!member.key()?.ends_with("10.5.150.0-24"));
    ensure!(world.etcd.get(&format!("{SUBNETS}10.5.150.0-24"))?.is_some_and(|entry| entry.value == clone && entry.version == 1));
    let status = member.agent.status_json()?;
    ensure!(status["warnings"].to_string().contains("10.5.150.0"), "{:#}", status["warnings"]);
    ensure!(status["rejected"].to_string().contains("our own"), "{:#}", status["rejected"]);
    Ok(())
}

#[test]
fn a_lease_of_ours_that_no_longer_fits_the_network_is_given_back() -> Result<()> {
    let world = World::new()?;
    let mut member = world.member("h1")?;
    let old = member.key()?;
    member.agent.terminate()?;
    world.etcd.put(CONFIG_KEY, r#"{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan"}}"#)?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.key()?.contains("/10.6.") && world.etcd.get(&old)?.is_none());
    let addresses = member.host.run(&["ip", "-o", "address", "show", "dev", "flannel.1"])?;
    ensure!(addresses.contains("10.6."), "{addresses}");
    Ok(())
}

/// A host booted apart from the others, as a machine of its own is: in here all share one kernel, which has booted once.
fn booted_apart(world: &World, name: &str, boot: u8) -> Result<Host> {
    let host = world.lab.host(name)?;
    let id = host.files().join("boot_id");
    std::fs::write(&id, format!("{boot:08x}-0000-4000-8000-000000000000\n"))?;
    host.run(&["mount", "--bind", &id.display().to_string(), "/proc/sys/kernel/random/boot_id"])?;
    Ok(host)
}

#[test]
fn a_clone_with_another_card_has_a_subnet_of_its_own_and_is_told_of() -> Result<()> {
    let world = World::new()?;
    let behind_one = world.options()?.args(["--public-ip", "192.168.77.100"]);
    let mut first = Member::on(booted_apart(&world, "h1", 1)?, behind_one.clone())?;
    first.agent.wait_ready(PATIENCE)?;
    let clone = booted_apart(&world, "clone", 2)?;
    std::fs::write(clone.files().join("machine-id"), first.host.read("/etc/machine-id")?)?;
    let mut clone = Member::on(clone, behind_one)?;
    clone.agent.wait_ready(PATIENCE)?;
    ensure!(clone.key()? != first.key()? && world.etcd.get_prefix(SUBNETS)?.len() == 2);
    clone.wait_status("that another lease has its address", |status| status["warnings"].to_string().contains("names our address"))?;
    ensure!(first.lease(&world)?.version == 1 && clone.lease(&world)?.version == 1);
    first.ensure_ready()
}

#[test]
fn of_two_live_clones_with_one_identity_the_first_says_so_and_does_not_fight() -> Result<()> {
    let world = World::new()?;
    let mut first = Member::on(booted_apart(&world, "h1", 1)?, world.options()?)?;
    first.agent.wait_ready(PATIENCE)?;
    // The same boot writes nothing when it starts again.
    first.agent.restart()?;
    first.agent.wait_ready(PATIENCE)?;
    ensure!(first.lease(&world)?.version == 1);
    let clone = booted_apart(&world, "clone", 2)?;
    std::fs::write(clone.files().join("machine-id"), first.host.read("/etc/machine-id")?)?;
    let mac = first.host.ip_json(&["link", "show", "dev", "eth0"])?[0]["address"].as_str().context("no address")?.to_owned();
    // It has the card's address from now on, while the first one is cut off: one switch cannot tell the two apart.
    first.host.unplug()?;
    clone.ip_batch(&format!("link set eth0 address {mac}\n"))?;
    let mut clone = Member::on(clone, world.options()?)?;
    clone.agent.wait_ready(PATIENCE)?;
    ensure!(clone.key()? == first.key()? && clone.lease(&world)?.version == 2);
    clone.host.unplug()?;
    first.host.plug()?;
    first.wait_unready_for(&["clone", "192.168.77.2"])?;
    ensure!(first.log_lines(&["ERROR"]) == 1, "{}", first.agent.log());
    let after = world.etcd.get_prefix(SUBNETS)?;
    ensure!(after.len() == 1 && after[0].version == 2, "{after:?}");
    // The clone is gone, and so is its lease: the first takes its subnet again.
    world.etcd.del(&first.key()?)?;
    first.agent.wait_ready(PATIENCE)?;
    ensure!(first.lease(&world)?.value.contains("192.168.77.1\""));
    Ok(())
}

#[test]
fn a_host_that_booted_anew_writes_its_lease_once_and_has_its_subnet() -> Result<()> {
    let world = World::new()?;
    let mut member = Member::on(booted_apart(&world, "h1", 1)?, world.options()?)?;
    member.agent.wait_ready(PATIENCE)?;
    let (before, key) = (member.lease(&world)?, member.key()?);
    member.agent.kill9()?;
    std::fs::write(member.host.files().join("boot_id"), "00000009-0000-4000-8000-000000000000\n")?;
    for _ in 0..2 {
        member.agent.restart()?;
        member.agent.wait_ready(PATIENCE)?;
        let after = member.lease(&world)?;
        ensure!(member.key()? == key && after.version == 2 && after.lease == before.lease && after.value != before.value, "{after:?}");
    }
    Ok(())
}

#[test]
fn our_own_record_with_another_mac_is_gone_by_once_since_the_others_go_by_it() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201])?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let (lease, (_, mac)) = (member.lease(&world)?, member.vtep_identity()?);
    world.etcd.put(&lease.key, &lease.value.replace(&mac, "02:aa:00:00:00:01"))?;
    wait_for("the device to have the lease's MAC", PATIENCE, || {
        ensure!(member.vtep_identity()?.1 == "02:aa:00:00:00:01", "{}", member.vtep_identity()?.1);
        Ok(())
    })?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_peers(&peers)?;
    ensure!(member.log_lines(&["beginning again"]) == 1, "{}", member.agent.log());
    Ok(())
}

#[test]
fn a_lease_that_somebody_keeps_deleting_is_claimed_again_ever_more_slowly() -> Result<()> {
    let world = World::new()?;
    let mut member = world.member("h1")?;
    let lease = member.lease(&world)?;
    let start = std::time::Instant::now();
    while start.elapsed() < std::time::Duration::from_secs(3) {
        world.etcd.del(&lease.key)?;
    }
    let claims = member.log_lines(&["lease held"]);
    ensure!((2..=10).contains(&claims), "{claims} claims within 3 s:\n{}", member.agent.log());
    member.agent.wait_ready(PATIENCE)
}
