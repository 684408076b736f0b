//! One agent stops and the other starts in its place, with the same flags, under a stream of a packet a millisecond each way.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::StreamReport;
use testkit::world::{CONFIG, PATIENCE};

use crate::belongings::Belongings;
use crate::case::cases;
use crate::families::mesh::whole;
use crate::outside::Knocked;
use crate::peer::Which::{Flanneld, Loden};
use crate::scene::{Party, Scene};
use crate::{Agents, Case, Report};

pub(crate) const TAKEOVER: &[Case] = cases![
    a_takeover_loses_no_packet_and_keeps_subnet_mac_and_subnet_file,
    a_takeover_after_kill_9_under_flannelds_name_loses_no_packet,
    containers_go_outside_by_masquerade_all_through_a_takeover,
];

pub(crate) const ROLLBACK: &[Case] = cases![
    a_rollback_loses_no_packet_and_keeps_subnet_mac_and_subnet_file,
    containers_go_outside_by_masquerade_all_through_a_rollback,
    after_a_handover_nothing_of_lodens_is_left_and_no_packet_is_lost,
];

/// How long packets go on after the change: longer than either agent's first looks at what it has found.
const LINGER: Duration = Duration::from_secs(2);

/// What flanneld's documents have for a host whose containers are Docker's.
const FLAGS: &[&str] = &["-ip-masq"];

fn a_takeover_loses_no_packet_and_keeps_subnet_mac_and_subnet_file(agents: &Agents, report: &mut Report) -> Result<()> {
    let mut play = Play::new(agents, &[Flanneld, Flanneld, Loden])?;
    play.watched("loden in flanneld's place", report, |scene| {
        let options = scene.options(Loden)?;
        scene.first()?.replace(Loden, options)
    })?;
    whole(&play.scene, "then all containers reach all", report);
    Ok(())
}

fn a_takeover_after_kill_9_under_flannelds_name_loses_no_packet(agents: &Agents, report: &mut Report) -> Result<()> {
    let mut play = Play::new(agents, &[Flanneld, Flanneld, Loden])?;
    play.watched("loden called flanneld in flanneld's place", report, |scene| {
        let options = scene.options_as_flanneld()?;
        let party = scene.first()?;
        party.member.agent.kill9()?;
        party.replace(Loden, options)
    })?;
    whole(&play.scene, "then all containers reach all", report);
    Ok(())
}

fn a_rollback_loses_no_packet_and_keeps_subnet_mac_and_subnet_file(agents: &Agents, report: &mut Report) -> Result<()> {
    let mut play = Play::new(agents, &[Loden, Flanneld, Loden])?;
    play.watched("flanneld in loden's place", report, |scene| {
        let options = scene.options(Flanneld)?;
        scene.first()?.replace(Flanneld, options)
    })?;
    whole(&play.scene, "then all containers reach all", report);
    Ok(())
}

fn containers_go_outside_by_masquerade_all_through_a_takeover(agents: &Agents, report: &mut Report) -> Result<()> {
    report.waits_for("the packet filter");
    let mut play = Play::new(agents, &[Flanneld, Loden])?;
    let knocked = play.knocking(|scene| {
        let options = scene.options(Loden)?;
        scene.first()?.replace(Loden, options)
    })?;
    report.gate("every connection from a container is masqueraded, before, while and after", knocked.all_masqueraded(), knocked.shown());
    Ok(())
}

fn containers_go_outside_by_masquerade_all_through_a_rollback(agents: &Agents, report: &mut Report) -> Result<()> {
    report.waits_for("the packet filter");
    let mut play = Play::new(agents, &[Loden, Flanneld])?;
    let knocked = play.knocking(|scene| {
        let options = scene.options(Flanneld)?;
        scene.first()?.replace(Flanneld, options)
    })?;
    report.gate("every connection from a container is masqueraded, before, while and after", knocked.all_masqueraded(), knocked.shown());
    Ok(())
}

fn after_a_handover_nothing_of_lodens_is_left_and_no_packet_is_lost(agents: &Agents, report: &mut Report) -> Result<()> {
    report.waits_for("`loden cleanup --handover`");
    let mut play = Play::new(agents, &[Flanneld, Flanneld, Loden])?;
    let before = Belongings::of(&play.scene.first()?.member.host)?;
    let options = play.scene.options(Loden)?;
    let program = options.program().display().to_string();
    play.scene.first()?.replace(Loden, options)?;
    let options = play.scene.options(Flanneld)?;
    play.scene.first()?.replace(Flanneld, options)?;
    let mut knocked = None;
    play.watched("`loden cleanup --handover` while flanneld runs", report, |scene| {
        let knocks = scene.knock()?;
        scene.first()?.member.host.run(&[&program, "cleanup", "--handover"])?;
        knocked = Some(knocks.finish()?);
        Ok(())
    })?;
    let knocked = knocked.context("nobody knocked")?;
    report.gate("every connection from a container is masqueraded", knocked.all_masqueraded(), knocked.shown());
    let differs = Belongings::of(&play.scene.first()?.member.host)?.differs_from(&before);
    let seen = if differs.is_empty() { "the same".to_owned() } else { differs.join("; ") };
    report.gate("routes, rules, tables and files are what they were before loden came", differs.is_empty(), seen);
    whole(&play.scene, "then all containers reach all", report);
    Ok(())
}

/// Hosts that reach each other, of which the first changes hands.
struct Play {
    scene: Scene,
}

impl Play {
    fn new(agents: &Agents, parties: &[crate::peer::Which]) -> Result<Self> {
        let mut scene = Scene::new(agents, CONFIG, FLAGS)?;
        scene.join_all(parties)?;
        scene.whole(PATIENCE)?;
        Ok(Self { scene })
    }

    /// Does it while packets go between the first container and each other one, both ways; gates for those, and for
    /// what the host is to the others.
    fn watched(&mut self, what: &str, report: &mut Report, act: impl FnOnce(&mut Scene) -> Result<()>) -> Result<()> {
        let before = self.scene.first()?.identity()?;
        let leases = self.scene.leases()?.len();
        let (one, others) = self.scene.parties.split_first().context("no hosts")?;
        let ways = others.iter().flat_map(|other| [(one, other), (other, one)]);
        let start = |(from, to): (&Party, &Party)| {
            let stream = from.container.udp_stream(&to.container, Duration::from_millis(1))?;
            Ok((format!("{} → {}", from.container.name(), to.container.name()), stream))
        };
        let streams: Vec<_> = ways.map(start).collect::<Result<_>>()?;
        act(&mut self.scene)?;
        thread::sleep(LINGER);
        let after = self.scene.first()?.identity()?;
        for (way, stream) in streams {
            let StreamReport { sent, lost, longest_gap, .. } = stream.finish()?;
            let seen = format!("{lost} of {sent} lost, the longest gap {longest_gap:.1?}");
            report.gate(format!("{what}, {way}: no packet is lost"), sent > 0 && lost == 0, seen);
        }
        report.gate("the subnet is the same", after.key == before.key, format!("{} → {}", before.key, after.key));
        report.gate("the device and its MAC are the same", (after.index, &after.mac) == (before.index, &before.mac), &after.mac);
        report.gate(
            "the subnet file is the same, byte for byte",
            after.subnet_file == before.subnet_file,
            format!("{:?}", after.subnet_file),
        );
        report.gate("no lease has come or gone", self.scene.leases()?.len() == leases, format!("{leases} leases"));
        Ok(())
    }

    /// Does it while the first container knocks outside.
    fn knocking(&mut self, act: impl FnOnce(&mut Scene) -> Result<()>) -> Result<Knocked> {
        let knocks = self.scene.knock()?;
        act(&mut self.scene)?;
        thread::sleep(LINGER);
        knocks.finish()
    }
}
