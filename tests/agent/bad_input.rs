//! Flags, files, rights and configurations that cannot be used: what is said, and that the agent goes on when they can.

use std::fs;
use std::process::Output;

use anyhow::{Result, ensure};
use testkit::{Host, wait_for};

use testkit::world::{CONFIG, CONFIG_KEY, Member, PATIENCE, SUBNET_FILE, World};

/// Runs the agent's program on a host to its end.
fn run(world: &World, host: &Host, args: &[&str]) -> Result<Output> {
    Ok(host.command(world.options()?.program()).args(args).output()?)
}

#[test]
fn a_configuration_that_breaks_a_rule_is_named_with_the_rule_and_the_next_one_is_taken() -> Result<()> {
    let world = World::empty()?;
    let mut member = world.starting("h1")?;
    for (config, word) in [
        ("{", "unusable"),
        ("[]", "unusable"),
        ("{}", "Network"),
        (r#"{"Network":"10.5.0.0/30"}"#, "/28"),
        (r#"{"Network":"10.5.0.0/16","SubnetLen":31}"#, "SubnetLen"),
        (r#"{"Network":"10.5.0.0/16","SubnetLen":17}"#, "SubnetLen"),
        (r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.7"}"#, "SubnetMin"),
        (r#"{"Network":"10.5.0.0/16","SubnetMax":"10.6.1.0"}"#, "SubnetMax"),
        (r#"{"Network":"10.5.0.0/16","Backend":{"Type":"carrier-pigeon"}}"#, "carrier-pigeon"),
        (r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":16777216}}"#, "VNI"),
        (r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","Port":70000}}"#, "Port"),
    ] {
        world.etcd.put(CONFIG_KEY, config)?;
        member.wait_unready_for(&[CONFIG_KEY, word])?;
        member.wait_log(&["ERROR", word])?;
    }
    ensure!(member.host.subnet_env().is_err() && member.vtep().is_err());
    world.etcd.put(CONFIG_KEY, CONFIG)?;
    member.agent.wait_ready(PATIENCE)
}

#[test]
fn pem_files_that_are_none_are_named_at_the_start() -> Result<()> {
    let world = World::new()?;
    let host = world.lab.host("h1")?;
    let (garbage, missing) = (host.files().join("garbage.pem"), host.files().join("missing.pem"));
    fs::write(&garbage, "this is no certificate\n")?;
    let (garbage, missing) = (garbage.display().to_string(), missing.display().to_string());
    for (flags, name) in [
        (vec!["--etcd-cafile", &garbage], &garbage),
        (vec!["--etcd-cafile", &missing], &missing),
        (vec!["--etcd-certfile", &garbage, "--etcd-keyfile", &garbage], &garbage),
    ] {
        let args = [vec!["agent", "--etcd-endpoints", "https://192.168.77.254:2379"], flags].concat();
        let output = run(&world, &host, &args)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains(name.as_str()), "{}: {said}", output.status);
    }
    Ok(())
}

#[test]
fn a_health_address_that_is_taken_is_named_with_the_flag() -> Result<()> {
    let world = World::new()?;
    let member = world.member("h1")?;
    let output = run(
        &world,
        &member.host,
        &["agent", "--etcd-endpoints", world.etcd.endpoint(), "--healthz-port=8471", "--subnet-file=/run/other/subnet.env"],
    )?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && said.contains("--healthz-port") && said.contains("8471"), "{}: {said}", output.status);
    member.ensure_ready()
}

#[test]
fn a_second_agent_with_the_same_subnet_file_is_refused_and_told_of_the_first() -> Result<()> {
    let world = World::new()?;
    let member = world.member("h1")?;
    let output = run(&world, &member.host, &["agent", "--etcd-endpoints", world.etcd.endpoint()])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    ensure!(said.contains(&member.agent.pid().to_string()), "the first is process {}: {said}", member.agent.pid());
    member.ensure_ready()?;
    ensure!(member.agent.status_json()?["pid"] == member.agent.pid());
    Ok(())
}

#[test]
fn a_subnet_file_that_cannot_be_written_is_named_and_written_as_soon_as_it_can_be() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201])?;
    let host = world.lab.host("h1")?;
    // A file system with no room at all: one page, and that is taken.
    host.run(&[
        "sh",
        "-c",
        "mkdir /run/flannel && mount -t tmpfs -o size=4k,nr_inodes=8 tmpfs /run/flannel && head -c 4096 /dev/zero >/run/flannel/full",
    ])?;
    let mut member = Member::on(host, world.options()?)?;
    member.wait_unready_for(&[SUBNET_FILE, "No space left"])?;
    member.wait_log(&["ERROR", "subnet file cannot be written", "No space left"])?;
    member.wait_peers(&peers)?;
    let status = member.agent.status_json()?;
    ensure!(status["warnings"].to_string().contains(SUBNET_FILE), "{:#}", status["warnings"]);
    member.host.run(&["rm", "/run/flannel/full"])?;
    member.agent.wait_ready(PATIENCE * 2)?;
    ensure!(member.host.subnet_env()?.mtu()? == 1450);
    ensure!(!member.host.run(&["ls", "-a", "/run/flannel"])?.contains("tmp"), "something is left over");

    // Read-only, while it runs.
    member.host.run(&["mount", "-o", "remount,ro", "/run/flannel"])?;
    member.ensure_ready()?;
    member.host.run(&["mount", "-o", "remount,rw", "/run/flannel"])?;
    member.host.run(&["rm", SUBNET_FILE])?;
    wait_for("the file to be back", PATIENCE, || member.host.subnet_env().map(drop))
}

#[test]
fn flags_without_effect_are_named_in_one_warning_and_variables_count_as_flags_do() -> Result<()> {
    let world = World::new()?;
    let host = world.lab.host("h1")?;
    let options =
        world.options()?.args(["-kube-api-url=https://192.0.2.1"]).env("FLANNELD_IP_MASQ", "true").env("FLANNELD_KUBECONFIG_FILE", "/none");
    let mut member = Member::on(host, options)?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.log_lines(&["WARN", "flags without effect"]) == 1, "{}", member.agent.log());
    ensure!(member.log_lines(&["WARN", "kube-api-url", "kubeconfig-file"]) == 1, "{}", member.agent.log());
    ensure!(member.host.read(SUBNET_FILE)?.contains("FLANNEL_IPMASQ=true"));
    Ok(())
}
