//! Others' FORWARD that drops, beside a running agent: iptables-nft, iptables-legacy, a table of somebody's.

use anyhow::{Result, ensure};
use serde_json::Value;
use testkit::world::{Member, PATIENCE, World};
use testkit::{Container, wait_for};

/// Two members and a container on each, that meet.
fn pair(world: &World, flags: &[&str]) -> Result<[(Member, Container); 2]> {
    let one = |host: &str, name: &str| -> Result<(Member, Container)> {
        let mut member = Member::on(world.lab.host(host)?, world.options()?.args(flags.iter().copied()))?;
        member.agent.wait_ready(PATIENCE)?;
        let container = member.host.container(name)?;
        Ok((member, container))
    };
    let pair = [one("h1", "c1")?, one("h2", "c2")?];
    wait_for("the containers to meet", PATIENCE, || meet(&pair))?;
    Ok(pair)
}

fn meet([(_, c1), (_, c2)]: &[(Member, Container); 2]) -> Result<()> {
    c1.ping(c2.address(), c1.full_payload(), true)
}

/// What somebody does on the first host, and whether the containers meet again, or never cease to.
fn with(commands: &[&[&str]], place: &str) -> Result<()> {
    let world = World::new()?;
    let pair = pair(&world, &["--iptables-resync", "1"])?;
    let member = &pair[0].0;
    for command in commands {
        member.host.run(command)?;
    }
    wait_for("the containers to meet all the same", PATIENCE, || meet(&pair))?;
    member.wait_status("where ours are", |status| {
        status
            .pointer("/packet_filters/0/accepts_in")
            .and_then(Value::as_array)
            .is_some_and(|places| places.iter().any(|named| named == place))
    })?;
    member.wait_log(&["INFO", place, "rules of ours in others' forward chains are as they are needed"])?;
    ensure!(!member.agent.log_contains("PUT_RIGHT"), "a constant's name in the log");
    member.ensure_ready()?;
    Ok(())
}

#[test]
fn a_policy_of_iptables_nft_that_drops_is_overruled() -> Result<()> {
    with(&[&["iptables-nft", "-P", "FORWARD", "DROP"]], "ip filter FORWARD")
}

/// Needs ip_tables in the kernel (CONFIG_IP_NF_IPTABLES_LEGACY). The agent's child has what rights it needs.
#[test]
fn a_policy_of_iptables_legacy_that_drops_is_overruled() -> Result<()> {
    with(&[&["iptables-legacy", "-P", "FORWARD", "DROP"]], "iptables-legacy filter FORWARD")
}

#[test]
fn where_iptables_legacy_has_rules_and_no_program_the_package_is_named_and_nothing_else_suffers() -> Result<()> {
    let world = World::new()?;
    let host = world.lab.host("h1")?;
    host.run(&["iptables-legacy", "-P", "FORWARD", "DROP"])?;
    host.run(&["sh", "-ec", "for folder in /usr/local/sbin /usr/sbin; do mount -t tmpfs tmpfs $folder; done"])?;
    let mut member = Member::on(host, world.options()?)?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_status("what to install", |status| status["warnings"].to_string().contains("is not there: install iptables"))?;
    member.ensure_ready()
}

#[test]
fn a_table_of_somebodys_that_rejects_everything_is_overruled() -> Result<()> {
    let table =
        "add table inet wall; add chain inet wall pass { type filter hook forward priority 10; }; add rule inet wall pass counter reject";
    with(&[&["nft", table]], "inet wall pass")
}

#[test]
fn without_forward_rules_what_drops_drops() -> Result<()> {
    let world = World::new()?;
    let pair = pair(&world, &["--iptables-forward-rules=false"])?;
    pair[0].0.host.run(&["iptables-nft", "-P", "FORWARD", "DROP"])?;
    // The agent has seen it once it puts right what is done after it.
    pair[0].0.host.run(&["nft", "delete", "table", "ip", "loden-net-flannel.1"])?;
    pair[0].0.wait_metric("loden_heals_total{kind=\"packet_filter\"}", 1.0)?;
    ensure!(meet(&pair).is_err(), "they meet");
    Ok(())
}

#[test]
fn docker_starts_and_starts_again_under_a_stream_and_cleanup_takes_ours_out_of_its_chains() -> Result<()> {
    let world = World::new()?;
    let mut pair = pair(&world, &[])?;
    let docker = "*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n-F FORWARD\n-A FORWARD -j DOCKER-USER\n-A FORWARD -i docker0 -j ACCEPT\n-A DOCKER-USER -j RETURN\nCOMMIT\n";
    let reload = format!("printf '%s' '{docker}' | iptables-nft-restore --noflush");
    let listed = |member: &Member| member.host.run(&["iptables-nft", "-S", "FORWARD"]);
    for round in 1..=3 {
        pair[0].0.host.run(&["sh", "-ec", &reload])?;
        wait_for("ours to be in its chain", PATIENCE, || {
            let rules = listed(&pair[0].0)?;
            ensure!(rules.matches("loden-net-flannel.1").count() == 2, "round {round}: {rules}");
            Ok(())
        })?;
        wait_for("the containers to meet", PATIENCE, || meet(&pair))?;
    }
    pair[0].0.wait_metric("loden_heals_total{kind=\"packet_filter\"}", 2.0)?;
    pair[0].0.agent.terminate()?;
    let said = pair[0].0.agent.ask_with_flags("cleanup")?;
    let rules = listed(&pair[0].0)?;
    ensure!(said.contains("ip filter FORWARD") && !rules.contains("loden") && rules.contains("DOCKER-USER"), "{said}\n{rules}");
    Ok(())
}
