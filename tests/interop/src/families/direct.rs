//! Routes without a tunnel: DirectRouting, and the backend host-gw.

use anyhow::{Result, ensure};
use testkit::Lab;
use testkit::cases;
use testkit::trial::{Case, Report};
use testkit::wait_for;
use testkit::world::{PATIENCE, VTEP};

use super::defects::{beside, soon};
use super::mesh::whole;
use crate::Agents;
use crate::belongings::Belongings;
use crate::changeover::{Changeover, hand_over, hand_to};
use crate::peer::Which::{Flanneld, Loden};
use crate::scene::{Party, Scene};

pub(crate) const CASES: &[Case<Agents>] = cases![
    with_direct_routing_hosts_of_both_kinds_reach_each_other_without_a_tunnel,
    with_host_gw_hosts_of_both_kinds_reach_each_other,
    a_takeover_and_a_rollback_without_a_tunnel_lose_no_packet_and_leave_one_route_a_peer,
    a_peer_that_is_no_longer_on_the_link_is_reached_through_the_tunnel,
];

const DIRECT: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}"#;
const HOST_GW: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}"#;

fn with_direct_routing_hosts_of_both_kinds_reach_each_other_without_a_tunnel(agents: &Agents, report: &mut Report) -> Result<()> {
    mesh(agents, DIRECT, report)
}

fn with_host_gw_hosts_of_both_kinds_reach_each_other(agents: &Agents, report: &mut Report) -> Result<()> {
    mesh(agents, HOST_GW, report)
}

fn mesh(agents: &Agents, config: &str, report: &mut Report) -> Result<()> {
    let mut scene = Scene::new(agents, config, &[])?;
    scene.join_all(&[Flanneld, Loden, Flanneld, Loden])?;
    whole(&scene, "all containers reach all", report);
    for party in &scene.parties {
        let routes = routes(party)?;
        let direct = routes.iter().filter(|route| route.contains(" via 192.168.77.") && !route.contains(VTEP)).count();
        report.gate(format!("{} has a direct route to each peer", party.name()), (direct, routes.len()) == (3, 3), routes.join(", "));
    }
    Ok(())
}

fn a_takeover_and_a_rollback_without_a_tunnel_lose_no_packet_and_leave_one_route_a_peer(
    agents: &Agents,
    report: &mut Report,
) -> Result<()> {
    for (name, config) in [("DirectRouting", DIRECT), ("host-gw", HOST_GW)] {
        let mut play = Changeover::new(agents, config, &[], &[Flanneld, Flanneld, Loden])?;
        let before = Belongings::of(&play.scene.first()?.member.host)?;
        play.watched(&format!("{name}: loden in flanneld's place"), report, |scene| hand_to(scene, Loden))?;
        let tidy = wait_for("one route a peer", PATIENCE, || {
            let routes = routes(play.scene.first()?)?;
            ensure!(routes.len() == 2 && routes.iter().all(|route| route.contains("proto 76")), "there is {routes:?}");
            Ok(routes)
        });
        let seen = tidy.as_ref().map_or_else(|error| format!("{error:#}"), |routes| routes.join(", "));
        report.gate(format!("{name}: flanneld's routes have given way to loden's"), tidy.is_ok(), seen);
        play.watched(&format!("{name}: flanneld in loden's place"), report, |scene| hand_to(scene, Flanneld))?;
        play.watched(&format!("{name}: `loden cleanup --handover`"), report, hand_over)?;
        before.are_back(play.scene.first()?, report)?;
    }
    Ok(())
}

fn a_peer_that_is_no_longer_on_the_link_is_reached_through_the_tunnel(agents: &Agents, report: &mut Report) -> Result<()> {
    let fault = ("S16: with DirectRouting, a peer is behind a gateway from now on", "its route goes through the tunnel");
    beside(agents, report, fault, |agents, which| {
        let mut scene = Scene::new(agents, DIRECT, &[])?;
        scene.join_all(&[which, Loden])?;
        scene.whole(PATIENCE)?;
        let [one, two] = scene.parties()?;
        let (host, prefix) = (one.member.host.clone(), two.prefix()?);
        host.run(&["ip", "route", "add", &format!("{}/32", two.member.host.address()), "via", Lab::GATEWAY])?;
        Ok(soon("the route goes through the tunnel", || {
            let route = host.run(&["ip", "route", "show", &format!("{prefix}.0/24")])?;
            ensure!(route.contains(VTEP), "the route is {}", route.trim());
            Ok(())
        }))
    })
}

/// The routes to other hosts' subnets.
fn routes(party: &Party) -> Result<Vec<String>> {
    let own = format!("{}.", party.prefix()?);
    let text = party.member.host.run(&["ip", "route", "show"])?;
    Ok(text.lines().filter(|line| line.starts_with("10.5.") && !line.starts_with(&own)).map(|line| line.trim().to_owned()).collect())
}
