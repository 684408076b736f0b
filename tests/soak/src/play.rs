//! Harms the first host of a scene, and waits for the repair.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use testkit::{Eye, Hands, Image, KernelEntry, Watch};

use crate::Report;
use crate::harm::{DEADLINE, DEVICE, ENTRY, Harm, OTHER, entries};
use crate::scene::{Dice, Far, Scene, until_right};

/// A scene, somebody else on its first host, and how all was at the beginning.
pub(crate) struct Play {
    pub(crate) hands: Hands,
    pub(crate) eye: Eye,
    pub(crate) right: Image,
    pub(crate) dice: Dice,
    pub(crate) scene: Scene,
    watch: Watch,
    entries: Vec<KernelEntry>,
    own: String,
}

impl Play {
    pub(crate) fn with_peers(peers: u32) -> Result<Self> {
        let scene = Scene::with_peers(peers)?;
        let (hands, eye, watch) = (scene.hands()?, scene.eye()?, Watch::new(&scene.one.host)?);
        let (right, entries) = (eye.look()?, entries(&scene.one)?);
        let own = scene.one.host.subnet_env()?.subnet()?.network().to_string();
        Ok(Self { hands, eye, right, dice: Dice::new(), scene, watch, entries, own })
    }

    /// A made-up peer, any.
    pub(crate) fn any_peer(&mut self) -> Far {
        Far(self.dice.throw(self.scene.peers))
    }

    /// One of these, any.
    pub(crate) fn any_of(&mut self, harms: &[Harm]) -> Result<Harm> {
        let nth = self.dice.throw(u32::try_from(harms.len())?);
        harms.get(usize::try_from(nth)?).copied().context("no harm to choose from")
    }

    /// Any harm at all, and one of the device in so many.
    pub(crate) fn any_harm(&mut self, device_in: u32) -> Result<Harm> {
        match self.dice.throw(device_in) {
            0 => self.any_of(&DEVICE),
            1 => self.any_of(&OTHER),
            _ => self.any_of(&ENTRY),
        }
    }

    /// Does it and looks no further.
    pub(crate) fn harm(&mut self, harm: Harm) -> Result<Instant> {
        let far = self.any_peer();
        harm.on(&mut self.hands, &mut self.scene.one.agent, &self.own, far)
    }

    /// Does it, and reports how long it took to be put right.
    pub(crate) fn single(&mut self, harm: Harm, report: &mut Report) -> Result<()> {
        let far = self.any_peer();
        let Self { hands, eye, right, scene, watch, entries, own, .. } = self;
        let took = if let Some(entry) = harm.entry(entries, far) {
            // An entry's return is told by the kernel, to the microsecond.
            watch.undone(entry, DEADLINE, || harm.on(hands, &mut scene.one.agent, own, far).map(drop)).ok()
        } else {
            let start = harm.on(hands, &mut scene.one.agent, own, far)?;
            let took = until_right(eye, right, start, DEADLINE)?;
            // A device that was made anew has another index.
            *entries = crate::harm::entries(&scene.one)?;
            took
        };
        report.fault(harm.name(), took);
        Ok(())
    }

    /// Does all of these one right after the other, and reports how long it took until all was right.
    pub(crate) fn several(&mut self, harms: &[Harm], name: &str, deadline: Duration, report: &mut Report) -> Result<()> {
        let start = Instant::now();
        for harm in harms {
            self.harm(*harm)?;
        }
        let took = until_right(&self.eye, &self.right, start, deadline)?;
        if took.is_none() {
            let amiss = self.eye.look()?.differs_from(&self.right);
            report.gate(format!("{name}: all is right in the end"), false, format!("after {harms:?}: {amiss}"));
        }
        report.fault(name, took);
        self.entries = entries(&self.scene.one)?;
        Ok(())
    }
}
