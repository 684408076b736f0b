//! One agent stops and the other starts in its place, with the same flags, under a stream of a packet a millisecond each way.

use anyhow::{Context, Result};
use testkit::cases;
use testkit::trial::{Case, Report};
use testkit::world::CONFIG;

use crate::Agents;
use crate::belongings::Belongings;
use crate::changeover::{Changeover, hand_over, hand_to, hand_to_loden_as_flanneld};
use crate::families::filter::NFTABLES;
use crate::families::mesh::whole;
use crate::outside::Knocked;
use crate::peer::Which::{Flanneld, Loden};

pub(crate) const TAKEOVER: &[Case<Agents>] = cases![
    a_takeover_loses_no_packet_and_keeps_subnet_mac_and_subnet_file,
    a_takeover_after_kill_9_under_flannelds_name_loses_no_packet,
    containers_go_outside_by_masquerade_all_through_a_takeover,
];

pub(crate) const ROLLBACK: &[Case<Agents>] = cases![
    a_rollback_loses_no_packet_and_keeps_subnet_mac_and_subnet_file,
    containers_go_outside_by_masquerade_all_through_a_rollback,
    after_a_handover_nothing_of_lodens_is_left_and_no_packet_is_lost,
];

/// What flanneld's documents have for a host whose containers are Docker's.
const FLAGS: &[&str] = &["-ip-masq"];

/// The two forms of flanneld's rules.
const FORMS: [(&str, &str); 2] = [("iptables form", CONFIG), ("nftables form", NFTABLES)];

fn a_takeover_loses_no_packet_and_keeps_subnet_mac_and_subnet_file(agents: &Agents, report: &mut Report) -> Result<()> {
    let mut play = Changeover::new(agents, CONFIG, FLAGS, &[Flanneld, Flanneld, Loden])?;
    play.watched("loden in flanneld's place", report, |scene| hand_to(scene, Loden))?;
    whole(&play.scene, "then all containers reach all", report);
    Ok(())
}

fn a_takeover_after_kill_9_under_flannelds_name_loses_no_packet(agents: &Agents, report: &mut Report) -> Result<()> {
    let mut play = Changeover::new(agents, CONFIG, FLAGS, &[Flanneld, Flanneld, Loden])?;
    play.watched("loden called flanneld in flanneld's place", report, hand_to_loden_as_flanneld)?;
    whole(&play.scene, "then all containers reach all", report);
    Ok(())
}

fn a_rollback_loses_no_packet_and_keeps_subnet_mac_and_subnet_file(agents: &Agents, report: &mut Report) -> Result<()> {
    let mut play = Changeover::new(agents, CONFIG, FLAGS, &[Loden, Flanneld, Loden])?;
    play.watched("flanneld in loden's place", report, |scene| hand_to(scene, Flanneld))?;
    whole(&play.scene, "then all containers reach all", report);
    Ok(())
}

fn containers_go_outside_by_masquerade_all_through_a_takeover(agents: &Agents, report: &mut Report) -> Result<()> {
    for (form, config) in FORMS {
        let mut play = Changeover::new(agents, config, FLAGS, &[Flanneld, Loden])?;
        let knocked = play.knocking(|scene| hand_to(scene, Loden))?;
        masqueraded(form, knocked, report);
        let rules = play.scene.first()?.member.host.run(&["sh", "-c", "iptables-save; nft list tables"])?;
        let left: Vec<_> = rules.lines().filter(|line| line.contains("FLANNEL-") || line.contains("flannel-ipv")).collect();
        report.gate(format!("{form}: flanneld's rules are gone"), left.is_empty(), format!("{left:?}"));
    }
    Ok(())
}

fn containers_go_outside_by_masquerade_all_through_a_rollback(agents: &Agents, report: &mut Report) -> Result<()> {
    for (form, config) in FORMS {
        let mut play = Changeover::new(agents, config, FLAGS, &[Loden, Flanneld])?;
        let knocked = play.knocking(|scene| hand_to(scene, Flanneld))?;
        masqueraded(form, knocked, report);
    }
    Ok(())
}

fn after_a_handover_nothing_of_lodens_is_left_and_no_packet_is_lost(agents: &Agents, report: &mut Report) -> Result<()> {
    let mut play = Changeover::new(agents, CONFIG, FLAGS, &[Flanneld, Flanneld, Loden])?;
    let before = Belongings::of(&play.scene.first()?.member.host)?;
    hand_to(&mut play.scene, Loden)?;
    hand_to(&mut play.scene, Flanneld)?;
    let mut knocked = None;
    play.watched("`loden cleanup --handover` while flanneld runs", report, |scene| {
        let knocks = scene.knock()?;
        let done = hand_over(scene);
        knocked = Some(knocks.finish()?);
        done
    })?;
    masqueraded("iptables form", knocked.context("nobody knocked")?, report);
    before.are_back(play.scene.first()?, report)?;
    whole(&play.scene, "then all containers reach all", report);
    Ok(())
}

fn masqueraded(form: &str, knocked: Knocked, report: &mut Report) {
    report.gate(
        format!("{form}: every connection from a container is masqueraded, all the time"),
        knocked.all_masqueraded(),
        knocked.shown(),
    );
}
