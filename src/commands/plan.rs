//! `loden plan`: what the agent would change here, as commands; changes nothing, here or in the store.

use std::fmt::Write;
use std::time::Instant;

use anyhow::Context;
use lease::claim::{self, Foreseen};
use lease::{Event, LeaseStore, Rng};
use overlay::{Desired, Direct, Ground, Kernel, Netlink, Notice, Peers};

use crate::agent::{Usable, claim_for, find_place, store_of, usable, wanted};
use crate::cli::Options;
use crate::subnet_env::{Remembered, SubnetEnv};

/// The plan as lines that a shell could run; what is no command is a comment.
///
/// # Errors
/// When the underlay, the store or the kernel cannot be read, or the configuration cannot be used.
pub fn plan(options: &Options) -> anyhow::Result<String> {
    super::run(async {
        let place = find_place(&options.interface).await?;
        let store = store_of(&options.etcd)?;
        let text = store.config().await?;
        let Usable { config, vxlan, text: _ } = usable(text.as_deref(), &store.config_key())?;
        let remembered = Remembered::read(&options.subnet_file).key();
        let claim = claim_for(&place, &config, vxlan, remembered).await?;
        let snapshot = store.list().await?;
        let Foreseen { entry, write } = claim::foresee(&claim, &snapshot, &mut Rng::from_entropy())?;
        let (spec, local) = wanted(&place, &config, vxlan, &entry)?;
        let mut out = String::new();
        if let Some(write) = write {
            writeln!(out, "# the lease {} would be {write}", entry.key)?;
        }

        let content = SubnetEnv::of_ipv4(spec.network, local.subnet, spec.mtu, options.ip_masq).render();
        let device = spec.name.clone();
        let direct = if vxlan.direct_routing { Direct::WhereReachable } else { Direct::Never };
        let ground = Ground { direct, ..Ground::tunnel(spec, local.subnet) };
        let mut kernel = Netlink::open(ground.scope(Some(place.underlay.index)))?;
        let observed = kernel.dump().await?;
        let mut desired = Desired::new(ground);
        let mut peers = Peers::new(local, options.guard);
        peers.inherit(observed.peers(), &mut desired, &mut |_| ());
        let events = [Event::Init].into_iter().chain(snapshot.entries.into_iter().map(Event::InitApply));
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
