//! `loden cleanup`: removes what is ours from this host, and nothing else: the VTEP with all that hangs on it, other routes and
//! rules, the filter tables and our rules in others' chains, the subnet file, the status socket and the last state. The lease stays (`loden release` gives it back), and so does
//! forwarding, which others may need.

use std::fmt::Write;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, bail};
use lease::{Backend, Family, LeaseStore, Subnet};
use overlay::{Kernel, Kind, Leftover, Netlink, Observed, Op, OurTable, Scope};

use super::filters;
use crate::agent::{lock_name, store_of, usable};
use crate::cli::Options;
use crate::conflicts::{self, LiveFlanneld};
use crate::lock::{Lock, LockError};
use crate::status;
use crate::subnet_env::Remembered;

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

/// The names of the devices that are named as VTEPs are.
fn flannel_devices() -> anyhow::Result<Vec<String>> {
    let interfaces = nix::net::if_::if_nameindex().context("cannot list the interfaces")?;
    let names = interfaces.iter().map(|interface| interface.name().to_string_lossy().into_owned());
    Ok(names.filter(|name| vni_of(name).is_some()).collect())
}

/// The VNI in a VTEP's name.
pub(super) fn vni_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("flannel.").or_else(|| name.strip_prefix("flannel-v6."))?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

async fn look(name: &str) -> anyhow::Result<(Netlink, Observed)> {
    // Whatever the family: of interest are the device and its addresses.
    let network: Subnet = "0.0.0.0/0".parse()?;
    let mut kernel = Netlink::open(Scope::of_device(name.to_owned(), network))?;
    let observed = kernel.dump().await?;
    Ok((kernel, observed))
}

/// Ours is the VXLAN device that bears the address of the subnet in our subnet file; without such a file, the one with
/// the VNI of the network's configuration, and no other network's address. Never one that an agent keeps: ours does not run.
async fn is_ours(name: &str, observed: &Observed, options: &Options) -> anyhow::Result<bool> {
    let Some(Kind::Vxlan(vxlan)) = observed.device.as_ref().map(|device| &device.kind) else { return Ok(false) };
    if Some(vxlan.vni.get()) != vni_of(name) {
        return Ok(false);
    }
    if let Err(LockError::Held(_)) = Lock::take(&lock_name(name)) {
        return Ok(false);
    }
    if let Some(key) = Remembered::read(&options.subnet_file).key() {
        let ours = [key.v4(), key.v6()].into_iter().flatten().map(Subnet::address);
        return Ok(ours.into_iter().any(|address| observed.addresses.iter().any(|(there, _)| *there == address)));
    }
    let store = store_of(&options.etcd)?;
    let text = store.config().await.context("there is no subnet file, and the store does not answer")?;
    let ours = usable(text.as_deref(), &store.config_key())?;
    let pools: Vec<Subnet> = Family::ALL.into_iter().filter_map(|family| Some(ours.config.pool(family)?.network)).collect();
    let mut known_far = observed.addresses.iter().map(|(address, _)| *address).filter(|address| !is_link_local(*address));
    let fits = known_far.all(|address| pools.iter().any(|pool| pool.contains(address)));
    Ok(fits && matches!(ours.config.backend, Backend::Vxlan(ours) if ours.vni == vxlan.vni))
}

/// One that the kernel gives a device by itself.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

pub(super) fn remove(path: &Path, out: &mut String) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => writeln!(out, "rm {}", path.display()).map_err(Into::into),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_vtep_has_are_looked_at() {
        assert_eq!(vni_of("flannel.1"), Some(1));
        assert_eq!(vni_of("flannel-v6.42"), Some(42));
        for other in ["flannel.", "flannel.x", "flannel.1a", "flannel1", "flannel.-1", "cni0", "xflannel.1"] {
            assert_eq!(vni_of(other), None, "{other}");
        }
    }
}
