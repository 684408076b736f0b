//! Hosts of which the first changes hands, while packets go between its container and every other one, both ways, in each family.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::StreamReport;
use testkit::trial::Report;
use testkit::world::PATIENCE;

use crate::Agents;
use crate::outside::Knocked;
use crate::peer::Which;
use crate::scene::{Party, Scene};

/// How long packets go on after the change: longer than either agent's first looks at what it has found.
const LINGER: Duration = Duration::from_secs(2);

/// One packet each.
const INTERVAL: Duration = Duration::from_millis(1);

/// Hosts that reach each other.
pub(crate) struct Changeover {
    pub(crate) scene: Scene,
}

impl Changeover {
    /// With these hosts, this configuration, and these flags for all agents.
    pub(crate) fn new(agents: &Agents, config: &str, flags: &[&'static str], parties: &[Which]) -> Result<Self> {
        let mut scene = Scene::new(agents, config, flags)?;
        scene.join_all(parties)?;
        scene.whole(PATIENCE)?;
        Ok(Self { scene })
    }

    /// Does it under the streams; gates for those, and for what the host is to the others and to its containers.
    pub(crate) fn watched(&mut self, what: &str, report: &mut Report, act: impl FnOnce(&mut Scene) -> Result<()>) -> Result<()> {
        let (old, new) = self.streamed(what, report, act)?;
        report.gate("the subnet file is the same, byte for byte", old == new, format!("{old:?} → {new:?}"));
        Ok(())
    }

    /// The same, but for the subnet file: what it said before, and what it says now.
    pub(crate) fn streamed(
        &mut self,
        what: &str,
        report: &mut Report,
        act: impl FnOnce(&mut Scene) -> Result<()>,
    ) -> Result<(String, String)> {
        let (before, leases) = (self.scene.first()?.identity()?, self.keys()?);
        let streams = self.streams()?;
        act(&mut self.scene)?;
        thread::sleep(LINGER);
        let after = self.scene.first()?.identity()?;
        for (way, stream) in streams {
            let StreamReport { sent, lost, longest_gap, .. } = stream.finish()?;
            let seen = format!("{lost} of {sent} lost, the longest gap {longest_gap:.1?}");
            report.gate(format!("{what}, {way}: no packet is lost"), sent > 0 && lost == 0, seen);
        }
        report.gate("the devices and their MACs are the same", after.devices == before.devices, after.devices.trim());
        let now = self.keys()?;
        report.gate("the leases' keys are the same", now == leases, now.join(" "));
        Ok((before.subnet_file, after.subnet_file))
    }

    /// Does it while the first container knocks outside.
    pub(crate) fn knocking(&mut self, act: impl FnOnce(&mut Scene) -> Result<()>) -> Result<Knocked> {
        let knocks = self.scene.knock()?;
        act(&mut self.scene)?;
        thread::sleep(LINGER);
        knocks.finish()
    }

    fn keys(&self) -> Result<Vec<String>> {
        let name = |key: &str| key.rsplit('/').next().unwrap_or(key).to_owned();
        Ok(self.scene.leases()?.iter().map(|lease| name(&lease.key)).collect())
    }

    fn streams(&self) -> Result<Vec<(String, testkit::Stream)>> {
        let (one, others) = self.scene.parties.split_first().context("no hosts")?;
        let mut streams = Vec::new();
        for (from, to) in others.iter().flat_map(|other| [(one, other), (other, one)]) {
            let (from, to) = (&from.container, &to.container);
            let way = format!("{} → {}", from.name(), to.name());
            if !from.address_v6().is_unspecified() {
                streams.push((format!("{way} by IPv6"), from.udp_stream_v6(to, INTERVAL)?));
            }
            streams.push((way, from.udp_stream(to, INTERVAL)?));
        }
        Ok(streams)
    }
}

/// The agent on the first host gives way to another with the same flags.
pub(crate) fn hand_to(scene: &mut Scene, which: Which) -> Result<()> {
    let options = scene.options(which)?;
    scene.first()?.replace(which, options)
}

/// The same, under flanneld's name, and the one that was there has no last words.
pub(crate) fn hand_to_loden_as_flanneld(scene: &mut Scene) -> Result<()> {
    let options = scene.options_as_flanneld()?;
    let party: &mut Party = scene.first()?;
    party.member.agent.kill9()?;
    party.replace(Which::Loden, options)
}

/// `loden cleanup --handover` while flanneld runs.
pub(crate) fn hand_over(scene: &mut Scene) -> Result<()> {
    let program = scene.options(Which::Loden)?.program().display().to_string();
    scene.first()?.member.host.run(&[&program, "cleanup", "--handover"]).map(drop)
}
