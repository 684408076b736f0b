//! IPv6 beside IPv4, and alone.

use std::net::Ipv6Addr;

use anyhow::{Context, Result, bail, ensure};
use ipnetwork::IpNetwork;
use serde_json::Value;
use testkit::wait_for;
use testkit::world::PATIENCE;

use super::defects::{Outcome, beside, soon};
use super::mesh::whole;
use crate::case::cases;
use crate::peer::Which::{self, Flanneld, Loden};
use crate::scene::{Party, Scene};
use crate::{Agents, Case, Report};

pub(crate) const CASES: &[Case] = cases![
    in_a_dual_stack_network_hosts_of_both_kinds_reach_each_other_by_both_families,
    a_takeover_in_a_dual_stack_network_keeps_both_subnets_and_devices,
    in_a_dual_stack_network_the_subnet_file_announces_what_both_devices_carry,
    in_an_ipv6_only_network_each_host_has_a_lease_of_its_own,
];

const DUAL: &str = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:db8::/48","Backend":{"Type":"vxlan"}}"#;
const IPV6_ONLY: &str = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00:db8::/48","Backend":{"Type":"vxlan"}}"#;

/// What an IPv6 packet through the tunnel may have on an underlay of 1500: 40 of IPv6, 8 of UDP, 8 of VXLAN, 14 of Ethernet less.
const INNER: u16 = 1500 - 70;

fn in_a_dual_stack_network_hosts_of_both_kinds_reach_each_other_by_both_families(agents: &Agents, report: &mut Report) -> Result<()> {
    report.waits_for("dual-stack");
    let mut scene = Scene::new(agents, DUAL, &[])?;
    scene.join_all(&[Flanneld, Loden, Flanneld, Loden])?;
    let addresses = six(&scene)?;
    reach(&scene, &addresses, report);
    let small = scene.whole(PATIENCE);
    report.gate(
        "all containers reach all by IPv4",
        small.is_ok(),
        small.map_or_else(|error| format!("{error:#}"), |took| format!("{took:.1?}")),
    );
    Ok(())
}

fn a_takeover_in_a_dual_stack_network_keeps_both_subnets_and_devices(agents: &Agents, report: &mut Report) -> Result<()> {
    report.waits_for("dual-stack");
    let mut scene = Scene::new(agents, DUAL, &[])?;
    scene.join_all(&[Flanneld, Loden])?;
    let addresses = six(&scene)?;
    let links = |scene: &mut Scene| scene.first()?.member.host.run(&["sh", "-c", "ip -o link show type vxlan | sed 's/mtu [0-9]*//'"]);
    let (before, key) = (links(&mut scene)?, scene.leases()?.iter().map(|lease| lease.key.clone()).collect::<Vec<_>>());
    for which in [Loden, Flanneld] {
        let options = scene.options(which)?;
        scene.first()?.replace(which, options)?;
        let after = links(&mut scene)?;
        report.gate(format!("{which} in the other's place: both devices are as they were"), after == before, after);
        let keys: Vec<_> = scene.leases()?.iter().map(|lease| lease.key.clone()).collect();
        report.gate("the leases too", keys == key, format!("{keys:?}"));
        reach(&scene, &addresses, report);
        whole(&scene, "all containers reach all by IPv4", report);
    }
    Ok(())
}

fn in_a_dual_stack_network_the_subnet_file_announces_what_both_devices_carry(agents: &Agents, report: &mut Report) -> Result<()> {
    report.waits_for("dual-stack");
    let fault = ("S17: IPv6 under the tunnel takes 70 bytes, not 50", "the subnet file announces 1430");
    beside(agents, report, fault, |agents, which| {
        let mut scene = Scene::new(agents, DUAL, &[])?;
        let member = &scene.join(which)?.member;
        Ok(soon("device and subnet file say 1430", || {
            let links = member.host.ip_json(&["link", "show", "dev", "flannel-v6.1"])?;
            let (device, file) = (links.pointer("/0/mtu").and_then(Value::as_u64), member.host.subnet_env()?.mtu()?);
            ensure!(device == Some(INNER.into()) && file == INNER, "flannel-v6.1 has {device:?}, the subnet file announces {file}");
            Ok(())
        }))
    })
}

fn in_an_ipv6_only_network_each_host_has_a_lease_of_its_own(agents: &Agents, report: &mut Report) -> Result<()> {
    report.waits_for("IPv6-only");
    let fault = ("S24: two hosts in an IPv6-only network", "two leases, and each host has the other's route");
    beside(agents, report, fault, two_of_ipv6_only)
}

fn two_of_ipv6_only(agents: &Agents, which: Which) -> Result<Outcome> {
    let scene = Scene::new(agents, IPV6_ONLY, &[])?;
    let mut hosts = Vec::new();
    for name in ["h1", "h2"] {
        let host = scene.world.lab.host(name)?;
        let agent = host.agent(scene.options(which)?)?;
        wait_for("the subnet file", PATIENCE, || host.read(testkit::world::SUBNET_FILE).map(drop))?;
        hosts.push((host, agent));
    }
    let outcome = soon("each has the other's route", || {
        for (host, _) in &hosts {
            let routes = host.run(&["ip", "-6", "route", "show", "dev", "flannel-v6.1"])?;
            let peers = routes.lines().filter(|line| line.contains(" via ")).count();
            ensure!(peers == 1, "{} has routes to {peers} peers", host.name());
        }
        Ok(())
    });
    let leases = scene.leases()?;
    let text = format!("{} leases for two hosts; {}", leases.len(), outcome.text);
    Ok(Outcome::new(outcome.right && leases.len() == 2, text))
}

/// Gives the hosts' bridges and containers addresses of the leased IPv6 subnets; the containers' ones.
fn six(scene: &Scene) -> Result<Vec<Ipv6Addr>> {
    let one = |Party { container, member, .. }: &Party| {
        let text = member.host.subnet_env()?.get("FLANNEL_IPV6_SUBNET").context("no FLANNEL_IPV6_SUBNET in the subnet file")?.to_owned();
        let IpNetwork::V6(bridge) = text.parse()? else { bail!("FLANNEL_IPV6_SUBNET is {text}") };
        let (gateway, len) = (bridge.ip(), bridge.prefix());
        let address = Ipv6Addr::from_bits(gateway.to_bits() + 1);
        member.host.ip_batch(&format!("addr add {gateway}/{len} dev cni0 nodad\n"))?;
        container.ip_batch(&format!("addr add {address}/{len} dev eth0 nodad\nroute add default via {gateway}\n"))?;
        Ok(address)
    };
    scene.parties.iter().map(one).collect()
}

/// Gates for a small ping from each container to each of these addresses, and for the largest that the tunnel carries.
fn reach(scene: &Scene, addresses: &[Ipv6Addr], report: &mut Report) {
    for (party, own) in scene.parties.iter().zip(addresses) {
        for to in addresses.iter().filter(|to| *to != own) {
            // 40 of IPv6 and 8 of ICMPv6.
            for payload in [56, INNER - 48] {
                let wanted = format!("{} reaches {to} with {} bytes", party.container.name(), payload + 48);
                // The bridges' addresses are known to the neighbours a moment after they are given.
                let came = wait_for("an answer", PATIENCE / 4, || party.container.ping(*to, payload, true));
                report.gate(wanted, came.is_ok(), came.map_or_else(|error| format!("{error:#}"), |()| "an answer".to_owned()));
            }
        }
    }
}
