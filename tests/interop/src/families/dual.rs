//! IPv6 beside IPv4, and alone.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use serde_json::Value;
use testkit::cases;
use testkit::trial::{Case, Report};
use testkit::wait_for;
use testkit::world::{PATIENCE, SUBNET_FILE};

use super::defects::{Outcome, beside, soon};
use crate::Agents;
use crate::changeover::{Changeover, hand_to};
use crate::peer::Which::{self, Flanneld, Loden};
use crate::scene::Scene;

pub(crate) const CASES: &[Case<Agents>] = cases![
    in_a_dual_stack_network_hosts_of_both_kinds_reach_each_other_by_both_families,
    a_takeover_and_a_rollback_in_a_dual_stack_network_lose_no_packet_of_either_family,
    in_a_dual_stack_network_the_subnet_file_announces_what_both_devices_carry,
    in_an_ipv6_only_network_each_host_has_a_lease_of_its_own,
];

const DUAL: &str = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:db8::/48","Backend":{"Type":"vxlan"}}"#;
const IPV6_ONLY: &str = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00:db8::/48","Backend":{"Type":"vxlan"}}"#;

/// What an IPv6 packet through the tunnel may have on an underlay of 1500: 40 of IPv6, 8 of UDP, 8 of VXLAN, 14 of Ethernet less.
const INNER: u16 = 1500 - 70;

fn in_a_dual_stack_network_hosts_of_both_kinds_reach_each_other_by_both_families(agents: &Agents, report: &mut Report) -> Result<()> {
    let mut scene = Scene::new(agents, DUAL, &[])?;
    scene.join_all(&[Flanneld, Loden, Flanneld, Loden])?;
    reached(&scene, "all containers reach all", report);
    Ok(())
}

fn a_takeover_and_a_rollback_in_a_dual_stack_network_lose_no_packet_of_either_family(agents: &Agents, report: &mut Report) -> Result<()> {
    let mut play = Changeover::new(agents, DUAL, &[], &[Flanneld, Flanneld, Loden])?;
    reached(&play.scene, "all containers reach all", report);
    for (which, what, mtu) in [(Loden, "loden in flanneld's place", (1450, 1430)), (Flanneld, "flanneld in loden's place", (1430, 1450))] {
        let (old, new) = play.streamed(what, report, |scene| hand_to(scene, which))?;
        // flanneld announces more than flannel-v6.1 carries.
        let right = new == old.replace(&format!("MTU={}", mtu.0), &format!("MTU={}", mtu.1));
        report.gate("the subnet file is the same but for FLANNEL_MTU", right && old != new, format!("{old:?} → {new:?}"));
    }
    reached(&play.scene, "then all containers reach all", report);
    Ok(())
}

fn in_a_dual_stack_network_the_subnet_file_announces_what_both_devices_carry(agents: &Agents, report: &mut Report) -> Result<()> {
    let fault = ("S17: IPv6 under the tunnel takes 70 bytes, not 50", "device and subnet file say 1430");
    beside(agents, report, fault, |agents, which| {
        let mut scene = Scene::new(agents, DUAL, &[])?;
        let member = &scene.join(which)?.member;
        Ok(soon("both say 1430", || {
            let links = member.host.ip_json(&["link", "show", "dev", "flannel-v6.1"])?;
            let device = links.pointer("/0/mtu").and_then(Value::as_u64).unwrap_or(0);
            let file = member.host.subnet_env()?.mtu()?;
            ensure!(device == u64::from(INNER) && file == INNER, "the device has {device}, the subnet file announces {file}");
            Ok(())
        }))
    })
}

fn in_an_ipv6_only_network_each_host_has_a_lease_of_its_own(agents: &Agents, report: &mut Report) -> Result<()> {
    let fault = ("S24: two hosts in an IPv6-only network", "two leases, and each host has the other's route");
    beside(agents, report, fault, two_of_ipv6_only)
}

fn two_of_ipv6_only(agents: &Agents, which: Which) -> Result<Outcome> {
    let scene = Scene::new(agents, IPV6_ONLY, &[])?;
    let mut hosts = Vec::new();
    for name in ["h1", "h2"] {
        let host = scene.world.lab.host(name)?;
        let agent = host.agent(scene.options(which)?)?;
        wait_for("the subnet file", PATIENCE, || host.read(SUBNET_FILE).map(drop))?;
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
    let text = format!("{} for two hosts; {}", leases.iter().map(|lease| name(&lease.key)).collect::<Vec<_>>().join(" "), outcome.text);
    Ok(Outcome::new(outcome.right && leases.len() == 2, text))
}

/// The gate that each container reaches each other one by both families: small, and as large as the smaller tunnel carries.
fn reached(scene: &Scene, wanted: &str, report: &mut Report) {
    let pings = pings(scene);
    let seen = pings.as_ref().map_or_else(|error| format!("{error:#}"), |pings| format!("{pings} pings"));
    report.gate(format!("{wanted} by both families, small and with {INNER} bytes in one piece"), pings.is_ok(), seen);
}

/// So many.
fn pings(scene: &Scene) -> Result<usize> {
    let mut pings = 0;
    for from in &scene.parties {
        for to in scene.parties.iter().filter(|to| to.name() != from.name()).map(|to| &to.container) {
            // The IP header's bytes, and 8 of ICMP.
            for (address, header) in [(IpAddr::from(to.address()), 20), (IpAddr::from(to.address_v6()), 40)] {
                for payload in [56, INNER - header - 8] {
                    wait_for("an answer", PATIENCE / 4, || from.container.ping(address, payload, true))?;
                    pings += 1;
                }
            }
        }
    }
    Ok(pings)
}

/// The last part of a key.
fn name(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}
