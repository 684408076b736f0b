//! Who else is on the host: other VXLAN devices, programs on the port, flanneld, another agent. Found at the start and explained.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Stdio};

use anyhow::{Result, ensure};
use testkit::{Host, wait_for};

use testkit::world::{CONFIG, Member, PATIENCE, SUBNETS, VTEP, World};

/// A program called flanneld that does nothing, with these variables. Killed when it is dropped.
pub(crate) struct Flanneld(Child);

impl Flanneld {
    pub(crate) fn on(host: &Host, variables: &[(&str, &str)]) -> Result<Self> {
        let program = host.files().join("flanneld");
        // By a program of its own: while we had it open to write, none of our children could run it.
        host.run(&["cp", "/bin/cat", &program.display().to_string()])?;
        let mut command = host.command(&program);
        command.envs(variables.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::null());
        let child = command.spawn()?;
        let comm = format!("/proc/{}/comm", child.id());
        wait_for("flanneld to run", PATIENCE, || {
            ensure!(std::fs::read_to_string(&comm)? == "flanneld\n");
            Ok(())
        })?;
        Ok(Self(child))
    }
}

impl Drop for Flanneld {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs an agent on the host to its end: it is refused, with these words.
fn ensure_refused(world: &World, host: &Host, args: &[&str], words: &[&str]) -> Result<()> {
    let agent = ["agent", "--etcd-endpoints", world.etcd.endpoint()];
    let output = host.command(world.options()?.program()).args(agent).args(args).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && words.iter().all(|word| said.contains(word)), "{}: {said}", output.status);
    Ok(())
}

#[test]
fn a_vxlan_device_that_would_not_get_on_with_ours_is_named_with_the_remedy_before_anything_is_written() -> Result<()> {
    let world = World::new()?;
    for (number, (device, words)) in [
        ("link add cilium_vxlan type vxlan external dstport 8472", ["cilium_vxlan", "external mode", "8472"]),
        ("link add cilium_vxlan up type vxlan external dstport 8472", ["cilium_vxlan", "external mode", "Backend.Port"]),
        ("link add vx9 type vxlan id 1 local 192.168.77.1 dstport 8472", ["vx9", "VNI 1", "Backend.VNI"]),
        ("link add vx9 up type vxlan id 9 gbp local 192.168.77.1 dstport 8472", ["vx9", "with GBP", "Backend.Port"]),
    ]
    .into_iter()
    .enumerate()
    {
        let host = world.lab.host(&format!("h{number}"))?;
        host.ip_batch(&format!("{device}\n"))?;
        let mut member = Member::on(host, world.options()?)?;
        member.wait_unready_for(&words)?;
        member.wait_log(&["ERROR", words[0], words[2]])?;
        ensure!(world.etcd.get_prefix(SUBNETS)?.len() == number && member.vtep().is_err(), "it has written something");
        ensure!(member.agent.status_json()?["not_ready_because"].to_string().contains(words[0]));
        // Once it is gone, there is room.
        member.host.ip_batch(&format!("link del {}\n", words[0]))?;
        member.agent.wait_ready(PATIENCE)?;
        ensure!(member.log_lines(&["ERROR", "no room"]) == 1, "{}", member.agent.log());
    }
    Ok(())
}

#[test]
fn a_program_on_the_port_is_told_of_and_waited_for() -> Result<()> {
    let world = World::new()?;
    let host = world.lab.host("h1")?;
    let program = host.within(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 8472))?))?;
    let mut member = Member::on(host, world.options()?)?;
    member.wait_unready_for(&["UDP port 8472", "Backend.Port", "ss -lunp"])?;
    ensure!(member.vtep().is_err() && world.etcd.get_prefix(SUBNETS)?.is_empty());
    drop(program);
    member.agent.wait_ready(PATIENCE)
}

#[test]
fn another_vni_on_the_port_and_what_comes_later_are_no_reason_to_stop() -> Result<()> {
    let world = World::new()?;
    let host = world.lab.host("h1")?;
    host.ip_batch("link add vx9 up type vxlan id 9 local 192.168.77.1 dstport 8472\n")?;
    let mut member = Member::on(host, world.options()?)?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.agent.status_json()?["warnings"] == serde_json::json!([]));
    // The kernel has decided for ours.
    member.host.ip_batch("link add cilium_vxlan type vxlan external dstport 8472\n")?;
    ensure!(member.host.ip_batch("link set cilium_vxlan up\n").is_err());
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_status("that the other cannot receive", |status| status["warnings"].to_string().contains("cilium_vxlan"))?;
    Ok(())
}

#[test]
fn beside_a_live_flanneld_of_the_same_network_an_agent_is_refused_with_its_process() -> Result<()> {
    let world = World::new()?;
    let host = world.lab.host("h1")?;
    let elsewhere = world.lab.host("h2")?;
    let same_file = Flanneld::on(&host, &[])?;
    let pid = same_file.0.id().to_string();
    ensure_refused(&world, &host, &[], &["flanneld is running", &pid, "/run/flannel/subnet.env", "systemctl stop flanneld"])?;
    ensure!(world.etcd.get_prefix(SUBNETS)?.is_empty() && host.read("/run/flannel/subnet.sock").is_err(), "it has written something");
    // In another network namespace it is on another host.
    let mut member = Member::on(elsewhere, world.options()?)?;
    member.agent.wait_ready(PATIENCE)?;
    // Nor is a device taken away from under it.
    host.ip_batch("link add flannel.1 type vxlan id 1 local 192.168.77.1 dstport 8472\n")?;
    let cleanup = host.command(world.options()?.program()).args(["cleanup", "--etcd-endpoints", world.etcd.endpoint()]).output()?;
    let said = String::from_utf8_lossy(&cleanup.stderr).into_owned();
    ensure!(cleanup.status.code() == Some(1) && said.contains(&pid) && said.contains("--handover"), "{said}");
    host.ip_json(&["link", "show", "dev", VTEP])?;
    drop(same_file);

    let variables = [("FLANNELD_SUBNET_FILE", "/run/flannel/two.env"), ("FLANNELD_ETCD_ENDPOINTS", world.etcd.endpoint())];
    let same_keys = Flanneld::on(&host, &variables)?;
    ensure_refused(&world, &host, &[], &["flanneld is running", &same_keys.0.id().to_string(), "/coreos.com/network"])?;
    drop(same_keys);
    let mut member = Member::on(host, world.options()?)?;
    member.agent.wait_ready(PATIENCE)
}

#[test]
fn a_live_flanneld_of_another_network_is_left_alone_with_its_device() -> Result<()> {
    let world = World::new()?;
    let host = world.lab.host("h1")?;
    let flanneld = Flanneld::on(&host, &[("FLANNELD_SUBNET_FILE", "/run/flannel/two.env"), ("FLANNELD_ETCD_PREFIX", "/two")])?;
    let device = "link add flannel.1 up type vxlan id 1 local 192.168.77.1 dstport 8472\naddr add 10.9.3.0/32 dev flannel.1\n";
    host.ip_batch(device)?;
    let mut member = Member::on(host, world.options()?)?;
    member.wait_unready_for(&["flannel.1", "10.9.3.0", "10.5.0.0/16", &flanneld.0.id().to_string(), "Backend.VNI"])?;
    let addresses = member.host.run(&["ip", "-4", "-o", "address", "show", "dev", VTEP])?;
    ensure!(addresses.contains("10.9.3.0/32") && addresses.lines().count() == 1, "{addresses}");
    // What a dead one has left is taken over.
    drop(flanneld);
    member.agent.wait_ready(PATIENCE)
}

#[test]
fn a_second_agent_for_the_same_keys_is_refused_with_the_first_ones_process_wherever_its_subnet_file_is() -> Result<()> {
    let world = World::new()?;
    let mut member = world.member("h1")?;
    let pid = member.agent.pid().to_string();
    let second = ["--subnet-file=/run/two/subnet.env"];
    ensure_refused(&world, &member.host, &second, &["another agent", &pid, "/coreos.com/network", "--etcd-prefix"])?;
    member.ensure_ready()?;
    // However often, and however the first ends.
    member.agent.kill9()?;
    let mut second = Member::on(member.host.clone(), world.options()?.beside(8481, "/run/two/subnet.env"))?;
    second.agent.wait_ready(PATIENCE)?;
    ensure_refused(&world, &member.host, &[], &["another agent", &second.agent.pid().to_string()])
}

#[test]
fn commands_take_nothing_from_under_an_agent_of_the_same_keys_wherever_its_subnet_file_is() -> Result<()> {
    let world = World::new()?;
    let mut member = Member::on(world.lab.host("h1")?, world.options()?.beside(8481, "/run/two/subnet.env"))?;
    member.agent.wait_ready(PATIENCE)?;
    let (identity, leases) = (member.vtep_identity()?, world.etcd.get_prefix(SUBNETS)?);
    for command in [&["cleanup"][..], &["cleanup", "--handover"], &["release"]] {
        let output =
            member.host.command(world.options()?.program()).args(command).args(["--etcd-endpoints", world.etcd.endpoint()]).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let words = ["another agent", &member.agent.pid().to_string(), "/coreos.com/network"].map(str::to_owned);
        ensure!(output.status.code() == Some(1) && words.iter().all(|word| said.contains(word)), "{command:?}: {said}");
    }
    ensure!(member.vtep_identity()? == identity && world.etcd.get_prefix(SUBNETS)? == leases);
    member.ensure_ready()
}

#[test]
fn a_second_agent_for_the_same_device_waits_with_the_first_ones_process_and_takes_nothing() -> Result<()> {
    let world = World::new()?;
    world.etcd.put("/two/config", &CONFIG.replace("10.5.", "10.6."))?;
    let mut first = world.member("h1")?;
    let options = world.options()?.beside(8481, "/run/flannel/two.env").args(["--etcd-prefix=/two"]);
    let mut second = Member::on(first.host.clone(), options)?;
    second.wait_unready_for(&["flannel.1", &first.agent.pid().to_string(), "Backend.VNI"])?;
    ensure!(world.etcd.get_prefix("/two/subnets/")?.is_empty());
    first.ensure_ready()?;
    let before = first.host.run(&["ip", "-o", "address", "show", "dev", VTEP])?;
    ensure!(before.contains("10.5."), "{before}");
    // A network with a device of its own has room.
    world.etcd.put("/two/config", r#"{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan","VNI":2}}"#)?;
    second.agent.wait_ready(PATIENCE)?;
    first.ensure_ready()?;
    // The second one's restart is none of the first one's business.
    let identity = first.vtep_identity()?;
    second.agent.restart()?;
    second.agent.wait_ready(PATIENCE)?;
    first.agent.restart()?;
    first.agent.wait_ready(PATIENCE)?;
    ensure!(first.vtep_identity()? == identity);
    Ok(())
}
