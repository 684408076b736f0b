//! Faults of the device.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testkit::cases;
use testkit::trial::{Case, Report};
use testkit::world::{CONFIG_KEY, Member, PATIENCE, VTEP};

use super::{Outcome, beside, soon};
use crate::Agents;
use crate::peer::Which::{self, Flanneld, Loden};
use crate::scene::{Party, Scene};

pub(crate) const CASES: &[Case<Agents>] = cases![
    a_deleted_device_is_back_with_its_peers_and_the_mac_that_they_know,
    a_device_that_went_down_and_up_has_its_peers_again,
    a_changed_mtu_reaches_the_device_that_is_there,
];

fn a_deleted_device_is_back_with_its_peers_and_the_mac_that_they_know(agents: &Agents, report: &mut Report) -> Result<()> {
    let fault = ("S1, S2: `ip link del flannel.1`", "device, MAC and entries are back, and all reach all");
    beside(agents, report, fault, |agents, which| {
        let mut scene = three(agents, which)?;
        let one = scene.first()?;
        let (before, (_, mac)) = (one.member.entries()?.len(), one.member.vtep_identity()?);
        one.member.host.ip_batch(&format!("link del {VTEP}\n"))?;
        let outcome = soon("all is back", || {
            let one = scene.first()?;
            ensure!(one.member.vtep_identity()?.1 == mac, "the device has another MAC, and the lease names the old one");
            let now = one.member.entries()?.len();
            ensure!(now == before, "the device has {now} of {before} entries");
            scene.whole(std::time::Duration::ZERO).map(drop)
        });
        let one = scene.first()?;
        Ok(if outcome.right { outcome } else { Outcome::new(false, format!("{}; {}, {}", outcome.text, device(one), ready(&one.member))) })
    })
}

fn a_device_that_went_down_and_up_has_its_peers_again(agents: &Agents, report: &mut Report) -> Result<()> {
    let fault = ("S6: `ip link set flannel.1 down; ip link set flannel.1 up`", "the entries are back");
    beside(agents, report, fault, |agents, which| {
        let mut scene = three(agents, which)?;
        let one = scene.first()?;
        let before = one.member.entries()?;
        one.member.host.ip_batch(&format!("link set {VTEP} down\nlink set {VTEP} up\n"))?;
        let outcome = soon("all entries are back", || {
            let now = one.member.entries()?;
            ensure!(now == before, "{} of {} entries are there", now.len(), before.len());
            Ok(())
        });
        Ok(if outcome.right { outcome } else { Outcome::new(false, format!("{}; {}", outcome.text, ready(&one.member))) })
    })
}

fn a_changed_mtu_reaches_the_device_that_is_there(agents: &Agents, report: &mut Report) -> Result<()> {
    let fault = ("S15: `Backend.MTU` set to 1400, agent restarted", "device and subnet file say 1350");
    beside(agents, report, fault, |agents, which| {
        let mut scene = Scene::with(agents, &[which])?;
        scene.world.etcd.put(CONFIG_KEY, &json!({"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "MTU": 1400}}).to_string())?;
        let one = scene.first()?;
        one.member.agent.terminate()?;
        one.member.agent.restart()?;
        one.member.agent.wait_ready(PATIENCE)?;
        let told = || Ok::<_, anyhow::Error>((one.member.vtep()?.get("mtu").and_then(Value::as_u64), one.member.host.subnet_env()?.mtu()?));
        let outcome = soon("both say 1350", || {
            let (device, file) = told()?;
            ensure!((device, file) == (Some(1350), 1350), "the device has {}, the subnet file announces {file}", device.unwrap_or(0));
            Ok(())
        });
        Ok(outcome)
    })
}

/// The host under test, and one of each kind beside it.
pub(super) fn three(agents: &Agents, which: Which) -> Result<Scene> {
    let scene = Scene::with(agents, &[which, Flanneld, Loden])?;
    scene.whole(PATIENCE)?;
    Ok(scene)
}

fn device(party: &Party) -> &'static str {
    if party.member.vtep().is_ok() { "the device is there" } else { "there is no device" }
}

/// What the agent says of itself meanwhile.
pub(super) fn ready(member: &Member) -> String {
    member.agent.get("/readyz").map_or_else(|_| "it does not answer".to_owned(), |(code, _)| format!("/readyz says {code}"))
}
