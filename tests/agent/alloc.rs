//! The alloc backend: a lease and a subnet file, and nothing in the kernel.

use anyhow::{Result, ensure};
use testkit::world::{PATIENCE, SUBNETS, World};
use testkit::{Lab, wait_for};

const ALLOC: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"alloc"}}"#;

#[test]
fn with_alloc_there_is_a_lease_and_a_subnet_file_and_nothing_in_the_kernel() -> Result<()> {
    let world = World::with_config(ALLOC)?;
    let member = world.member("h1")?;
    let env = member.host.subnet_env()?;
    ensure!(env.mtu()? == 1500, "without a tunnel nothing is taken away: {env:?}");
    let lease = member.lease(&world)?;
    ensure!(lease.value.starts_with(r#"{"PublicIP":"192.168.77.1","PublicIPv6":null"#) && !lease.value.contains("Backend"), "{lease:?}");
    let routes = member.host.run(&["ip", "route", "show", "proto", "76"])?;
    ensure!(member.host.run(&["ip", "link", "show", "dev", "flannel.1"]).is_err() && routes.is_empty(), "{routes}");
    Ok(())
}

#[test]
fn a_new_underlay_address_is_told_to_the_others_without_a_data_plane_too() -> Result<()> {
    let world = World::with_config(ALLOC)?;
    let mut member = world.member("h1")?;
    let before = member.lease(&world)?;
    member.host.ip_batch(&format!(
        "addr del 192.168.77.1/24 dev eth0\naddr add 192.168.77.61/24 dev eth0\nroute add default via {}\n",
        Lab::GATEWAY
    ))?;
    let after = wait_for("the record to name the new address", PATIENCE, || {
        let now = member.lease(&world)?;
        ensure!(now.value.contains("\"192.168.77.61\""), "{now:?}");
        Ok(now)
    })?;
    ensure!(after.key == before.key && after.lease == before.lease && after.version == before.version + 1, "{after:?}");
    ensure!(world.etcd.get_prefix(SUBNETS)?.len() == 1);
    member.agent.wait_ready(PATIENCE)
}

#[test]
fn a_host_that_boots_while_the_store_is_away_has_its_subnet_file_again() -> Result<()> {
    let mut world = World::with_config(ALLOC)?;
    let mut member = world.member("h1")?;
    let before = member.host.read("/run/flannel/subnet.env")?;
    wait_for("the last state to be written", PATIENCE, || member.host.read("/var/lib/loden/state").map(drop))?;
    member.agent.kill9()?;
    member.host.run(&["rm", "-r", "/run/flannel"])?;
    world.etcd.kill()?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.host.read("/run/flannel/subnet.env")? == before);
    Ok(())
}
