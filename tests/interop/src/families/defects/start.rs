//! What an agent finds at its start.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use testkit::cases;
use testkit::trial::{Case, Report};
use testkit::wait_for;
use testkit::world::{PATIENCE, Peer, SUBNET_FILE};

use super::{Outcome, beside, soon, within};
use crate::Agents;
use crate::peer::Which::Loden;
use crate::scene::Scene;

/// What loden goes on from without a store.
const STATE: &str = "/var/lib/loden/state";
/// A store that answers in this time is waited for.
const BOOT: Duration = Duration::from_secs(8);

pub(crate) const CASES: &[Case<Agents>] =
    cases![a_peer_that_left_while_the_agent_was_down_is_forgotten, a_host_that_boots_while_the_store_is_away_has_its_network];

fn a_peer_that_left_while_the_agent_was_down_is_forgotten(agents: &Agents, report: &mut Report) -> Result<()> {
    let fault = ("S5: a peer leaves while the agent is down", "its entries are gone after the start");
    beside(agents, report, fault, |agents, which| {
        let mut scene = Scene::with(agents, &[which])?;
        let peers = scene.world.peers([201, 202])?;
        let [gone, stays] = peers.as_slice() else { bail!("two peers") };
        let one = &mut scene.parties.first_mut().context("no host")?.member;
        let count = |entries: Vec<String>, peer: &Peer| entries.iter().filter(|entry| entry.contains(&peer.mac)).count();
        wait_for("both to be known", PATIENCE, || {
            let entries = one.entries()?;
            ensure!(count(entries.clone(), gone) == 2 && count(entries.clone(), stays) == 2, "{entries:?}");
            Ok(())
        })?;
        one.agent.terminate()?;
        scene.world.etcd.del(&gone.key())?;
        one.agent.restart()?;
        one.agent.wait_ready(PATIENCE)?;
        Ok(soon("they are gone", || {
            let left = one.entries()?.iter().filter(|entry| entry.contains("10.5.201.") || entry.contains(&gone.mac)).count();
            ensure!(left == 0, "{left} entries of it are left");
            Ok(())
        }))
    })
}

fn a_host_that_boots_while_the_store_is_away_has_its_network(agents: &Agents, report: &mut Report) -> Result<()> {
    let fault = ("S25: a host boots while the store is away", "there is a subnet file and the peers' entries");
    beside(agents, report, fault, |agents, which| {
        let mut scene = Scene::with(agents, &[which])?;
        let peers = scene.world.peers([201])?;
        let Scene { parties, world, .. } = &mut scene;
        let one = &mut parties.first_mut().context("no host")?.member;
        let known = |entries: Vec<String>| peers.iter().all(|peer| entries.iter().any(|entry| entry.contains(&peer.mac)));
        wait_for("the peer to be known", PATIENCE, || {
            ensure!(known(one.entries()?));
            Ok(())
        })?;
        if which == Loden {
            // It is written when nothing has changed for a moment.
            wait_for("the last state", PATIENCE, || {
                ensure!(one.host.read(STATE)?.contains("\npeers 1\n"));
                Ok(())
            })?;
        }
        one.agent.terminate()?;
        one.host.boot()?;
        world.etcd.kill()?;
        one.agent.restart()?;
        let file = within(BOOT, "there is a subnet file", || one.host.read(SUBNET_FILE).map(drop));
        let entries = soon("the peers are there", || {
            ensure!(known(one.entries()?), "the peers are not there");
            Ok(())
        });
        Ok(Outcome::new(file.right && entries.right, format!("{}; {}", file.text, entries.text)))
    })
}
