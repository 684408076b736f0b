//! `loden cleanup`: removes what is ours from this host, and nothing else: the VTEP with all that hangs on it, other routes and
//! rules, the filter tables and our rules in others' chains, the subnet file, the status socket, the last state, and the CNI plugin with
//! its configuration. The lease stays (`loden release` gives it back), and so does forwarding, which others may need.

use std::fmt::Write;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, bail};
use overlay::{Kernel, Leftover, Op, OurTable};

use super::filters;
use super::vteps::{flannel_devices, is_ours, look};
use crate::agent::take_network;
use crate::cli::Options;
use crate::conflicts::{self, LiveFlanneld};
use crate::install;
use crate::status;

/// Removes all that is ours and says what was done, a line each.
///
/// # Errors
/// While an agent or a flanneld of the network runs here; when it cannot be told which device is ours; when the kernel refuses.
pub fn cleanup(options: &Options) -> anyhow::Result<String> {
    super::refuse_beside_an_agent(options)?;
    if let Err(LiveFlanneld { pid, why }) = conflicts::refuse_beside(&conflicts::flannelds(), options) {
        bail!(
            "flanneld is running here (process {pid}), {why}: this would take its device away. Stop it first, or remove with --handover what is not its own"
        );
    }
    super::run(async {
        let _network = take_network(&options.store)?;
        let mut out = String::new();
        let mut filters = filters::candidates(options, &flannel_devices()?).await?;
        for name in flannel_devices()? {
            let (mut kernel, observed) = look(&name).await?;
            match is_ours(&name, &observed, options).await {
                Ok(true) => {
                    let op = Op::DelDevice;
                    if let Some(failure) = kernel.apply(std::slice::from_ref(&op)).await?.into_iter().next() {
                        bail!("{}: {}", op.on(&name), failure.reason);
                    }
                    writeln!(out, "{}", op.on(&name))?;
                }
                Ok(false) => {
                    filters.retain(|table| table.device != name);
                    writeln!(out, "# {name} is left alone: it is not this network's VTEP")?;
                }
                Err(error) => {
                    return Err(error.context(format!("cannot tell whether {name} is ours: delete it by hand with ip link del {name}")));
                }
            }
        }
        remove_routes(options, &mut out).await?;
        filters::remove(&filters, &mut out).await?;
        let socket = status::socket_path(&options.subnet_file);
        for path in [Some(options.subnet_file.clone()), Some(socket), options.state_file.clone()].into_iter().flatten() {
            remove(&path, &mut out)?;
        }
        for line in install::remove(&options.install)? {
            writeln!(out, "{line}")?;
        }
        if out.is_empty() {
            out.push_str("# nothing of ours is here\n");
        }
        Ok(out)
    })
}

/// Removes routes that do not hang on a device of ours (direct ones, blackholes), and the rules to a table of our own; says each.
async fn remove_routes(options: &Options, out: &mut String) -> anyhow::Result<()> {
    let mut anywhere = overlay::leftovers("0.0.0.0/0".parse()?).await?;
    anywhere.extend(overlay::leftovers("::/0".parse()?).await?);
    // Where there is nothing, it need not be known which network is ours.
    let Some(first) = anywhere.first() else { return Ok(()) };
    let networks = super::networks(options)
        .await
        .with_context(|| format!("cannot tell whether this is ours: {}", first.clone().for_good().command))?;
    for network in networks {
        for leftover in overlay::leftovers(network).await?.into_iter().map(Leftover::for_good) {
            leftover.remove().await?;
            writeln!(out, "{}", leftover.command)?;
        }
    }
    Ok(())
}

/// The filters of ours, while the devices stay.
pub(super) async fn our_filters(options: &Options) -> anyhow::Result<Vec<OurTable>> {
    let mut filters = filters::candidates(options, &flannel_devices()?).await?;
    for name in flannel_devices()? {
        if !is_ours(&name, &look(&name).await?.1, options).await? {
            filters.retain(|table| table.device != name);
        }
    }
    Ok(filters)
}

/// Takes from our devices, which stay, what flanneld would not have there: that they have no link-local address.
pub(super) async fn give_back_devices(options: &Options, out: &mut String) -> anyhow::Result<()> {
    for name in flannel_devices()? {
        let (_, observed) = look(&name).await?;
        if is_ours(&name, &observed, options).await?
            && let Some(device) = observed.device.filter(|device| device.no_link_local)
            && overlay::allow_link_local(device.index).await?
        {
            writeln!(out, "ip link set {name} addrgenmode eui64")?;
        }
    }
    Ok(())
}

pub(super) fn remove(path: &Path, out: &mut String) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => writeln!(out, "rm {}", path.display()).map_err(Into::into),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}
