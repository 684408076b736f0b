//! `loden plan`: what the agent would change here, as commands; changes nothing, here or in the store.

use std::fmt::Write;
use std::time::Instant;

use anyhow::Context;
use lease::claim::{self, Foreseen};
use lease::store::Snapshot;
use lease::{Event, LeaseStore, Rng};
use overlay::{Desired, Direct, Ground, Guard, IfIndex, Kernel, Local, Netlink, Notice, Peers, Scope};

use crate::agent::{Store, Usable, Wanted, claim_for, find_place, reached_at, usable, wanted};
use crate::cli::Options;
use crate::subnet_env::{Remembered, SubnetEnv};

/// The plan as lines that a shell could run; what is no command is a comment.
///
/// # Errors
/// When the underlay, the store or the kernel cannot be read, or the configuration cannot be used.
pub fn plan(options: &Options) -> anyhow::Result<String> {
    super::run(async {
        let store = Store::of(&options.store)?;
        let text = store.config().await?;
        let Usable { config, text: _ } = usable(text.as_deref(), &store.config_key())?;
        let interface = reached_at(&options.interface, store.own_addresses().await?);
        let options = &Options { interface, ..options.clone() };
        let place = find_place(options, &config.families().collect::<Vec<_>>()).await?;
        let remembered = Remembered::read(&options.subnet_file).key();
        let claim = claim_for(&place, &config, remembered).await?;
        let snapshot = store.list().await?;
        let Foreseen { entry, write } = claim::foresee(&claim, &store.assigned().await?, &snapshot, &mut Rng::from_entropy())?;
        let Wanted { planes, mtu } = wanted(&place, &config, &entry, &options.routes)?;
        let content = SubnetEnv::of(&config, entry.key, mtu, options.ip_masq).render();
        let mut out = String::new();
        if let Some(write) = write {
            writeln!(out, "# the lease {} would be {write}", entry.key)?;
        }
        for (ground, local) in planes {
            plane(&mut out, ground, local, options.guard, place.underlay.index, &snapshot).await?;
        }
        if std::fs::read_to_string(&options.subnet_file).ok().as_ref() != Some(&content) {
            writeln!(out, "# {} would be written:", options.subnet_file.display())?;
            content.lines().try_for_each(|line| writeln!(out, "#   {line}"))?;
        }
        if out.is_empty() {
            out.push_str("# nothing to change\n");
        }
        anyhow::Ok(out)
    })
    .context("cannot tell what the agent would change")
}

/// What would be changed for one family.
async fn plane(out: &mut String, ground: Ground, local: Local, guard: Guard, underlay: IfIndex, snapshot: &Snapshot) -> anyhow::Result<()> {
    let device = ground.vtep.as_ref().map_or_else(String::new, |spec| spec.name.clone());
    let direct = ground.direct;
    let mut kernel = Netlink::open(Scope::of(&ground, Some(underlay)))?;
    let observed = kernel.dump().await?;
    let mut desired = Desired::new(ground);
    let mut peers = Peers::new(local, guard);
    peers.inherit(observed.peers(), &mut desired, &mut |_| ());
    let events = [Event::Init].into_iter().chain(snapshot.entries.iter().cloned().map(Event::InitApply));
    for event in events.chain([Event::InitDone(snapshot.revision)]) {
        peers.fold(&event, &mut desired, Instant::now(), &mut |_| ());
    }
    for notice in peers.take_notices() {
        match notice {
            Notice::Rejected(key, reason) => writeln!(out, "# lease {key} is rejected: {reason}")?,
            Notice::Held { missing, of, until: _ } => {
                writeln!(out, "# {missing} of {of} peers are in no lease: they would be kept for now")?
            }
            Notice::Recovered(_) | Notice::OtherBackend(..) | Notice::Stray(_) | Notice::HoldOver(_) => {}
        }
    }
    if direct != Direct::Never {
        let addresses: Vec<_> = desired.peers().map(|peer| peer.dst).collect();
        let near = kernel.near(&addresses).await?;
        desired.set_near(addresses.into_iter().zip(near), &mut |_| ());
    }
    let plan = overlay::plan::plan_all(&desired, &observed);
    for op in plan.ops() {
        writeln!(out, "{}", op.on(&device))?;
    }
    for (key, blocked) in &plan.blocked {
        writeln!(out, "# {key} cannot be put right: {blocked}")?;
    }
    Ok(())
}
