//! Faults of entries, and of records of peers.

use anyhow::{Context, Result, ensure};
use testkit::cases;
use testkit::trial::{Case, Report};
use testkit::wait_for;
use testkit::world::{PATIENCE, Peer, VTEP};

use super::device::{ready, three};
use super::{Outcome, beside, soon};
use crate::Agents;
use crate::scene::Scene;

pub(crate) const CASES: &[Case<Agents>] = cases![
    a_deleted_route_neighbour_and_fdb_entry_are_put_back_within_milliseconds,
    a_peers_new_mac_leaves_nothing_of_the_old_one,
    an_unreadable_key_costs_nobody_a_peer,
];

fn a_deleted_route_neighbour_and_fdb_entry_are_put_back_within_milliseconds(agents: &Agents, report: &mut Report) -> Result<()> {
    let fault = ("S6: a route, a neighbour and an FDB entry deleted", "all three are back");
    beside(agents, report, fault, |agents, which| {
        let mut scene = three(agents, which)?;
        let [one, _, three] = scene.parties()?;
        let ((_, mac), prefix) = (three.member.vtep_identity()?, three.prefix()?);
        let before = one.member.entries()?;
        let host = &one.member.host;
        host.run(&["ip", "route", "del", &format!("{prefix}.0/24"), "dev", VTEP])?;
        host.run(&["ip", "neigh", "del", &format!("{prefix}.0"), "dev", VTEP])?;
        host.run(&["bridge", "fdb", "del", &mac, "dev", VTEP])?;
        let outcome = soon("all three are back", || {
            let now = one.member.entries()?;
            ensure!(now == before, "{} of {} entries are there", now.len(), before.len());
            Ok(())
        });
        Ok(if outcome.right { outcome } else { Outcome::new(false, format!("{}; {}", outcome.text, ready(&one.member))) })
    })
}

fn a_peers_new_mac_leaves_nothing_of_the_old_one(agents: &Agents, report: &mut Report) -> Result<()> {
    let fault = ("S4: a peer's record names a new MAC", "the old MAC's FDB entry is gone");
    beside(agents, report, fault, |agents, which| {
        let mut scene = Scene::with(agents, &[which])?;
        let peer = scene.world.put(Peer::new(201))?;
        let known = |scene: &mut Scene, mac: &str| {
            wait_for("the peer to be known", PATIENCE, || {
                let entries = scene.first()?.member.entries()?;
                ensure!(entries.iter().filter(|entry| entry.contains(mac)).count() == 2, "{entries:?}");
                Ok(())
            })
        };
        known(&mut scene, &peer.mac)?;
        let new = scene.world.put(peer.with_mac("02:aa:00:00:00:01"))?;
        known(&mut scene, &new.mac)?;
        let one = scene.first()?;
        Ok(soon("nothing of it is left", || {
            let left: Vec<_> = one.member.entries()?.into_iter().filter(|entry| entry.contains(&peer.mac)).collect();
            ensure!(left.is_empty(), "left is {}", left.join(", "));
            Ok(())
        }))
    })
}

fn an_unreadable_key_costs_nobody_a_peer(agents: &Agents, report: &mut Report) -> Result<()> {
    let fault = ("S10: `etcdctl put /coreos.com/network/subnets/test x`", "no entry is lost, and a later peer is known");
    beside(agents, report, fault, |agents, which| {
        let mut scene = three(agents, which)?;
        let before = scene.first()?.member.entries()?;
        scene.world.put_raw("test", "x")?;
        // What comes after it is heard after it.
        let later = scene.world.put(Peer::new(201))?;
        let heard = soon("a later peer is known", || {
            let entries = scene.first()?.member.entries()?;
            ensure!(entries.iter().any(|entry| entry.contains(&later.mac)), "a peer that came later is not known");
            Ok(())
        });
        let one = scene.parties.first_mut().context("no host")?;
        let now = one.member.entries()?;
        let left = before.iter().filter(|entry| now.contains(entry)).count();
        let text = format!("{left} of {} entries are left; {}", before.len(), heard.text);
        let running = one.member.agent.ended()?.is_none();
        Ok(Outcome::new(heard.right && left == before.len() && running, text))
    })
}
