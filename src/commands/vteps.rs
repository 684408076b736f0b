//! This host's devices that are named as VTEPs are, and which of them is our network's.

use std::net::IpAddr;

use anyhow::Context;
use lease::{Backend, LeaseStore, Subnet};
use overlay::{Kernel, Kind, Netlink, Observed, Scope};

use crate::agent::{Store, lock_name, usable};
use crate::cli::Options;
use crate::lock::{Lock, LockError};
use crate::subnet_env::Remembered;

/// The names of the devices that are named as VTEPs are.
pub(super) fn flannel_devices() -> anyhow::Result<Vec<String>> {
    let interfaces = nix::net::if_::if_nameindex().context("cannot list the interfaces")?;
    let names = interfaces.iter().map(|interface| interface.name().to_string_lossy().into_owned());
    Ok(names.filter(|name| vni_of(name).is_some()).collect())
}

/// The VNI in a VTEP's name.
pub(super) fn vni_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("flannel.").or_else(|| name.strip_prefix("flannel-v6."))?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

pub(super) async fn look(name: &str) -> anyhow::Result<(Netlink, Observed)> {
    // Whatever the family: of interest are the device and its addresses.
    let network: Subnet = "0.0.0.0/0".parse()?;
    let mut kernel = Netlink::open(Scope::of_device(name.to_owned(), network))?;
    let observed = kernel.dump().await?;
    Ok((kernel, observed))
}

/// Ours is the VXLAN device that bears the address of the subnet in our subnet file; without such a file, the one with
/// the VNI of the network's configuration, and no other network's address. Never one that an agent keeps: ours does not run.
pub(super) async fn is_ours(name: &str, observed: &Observed, options: &Options) -> anyhow::Result<bool> {
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
    let store = Store::of(&options.store)?;
    let text = store.config().await.context("there is no subnet file, and the store does not answer")?;
    let ours = usable(text.as_deref(), &store.config_key())?;
    let mut known_far = observed.addresses.iter().map(|(address, _)| *address).filter(|address| !is_link_local(*address));
    let fits = known_far.all(|address| ours.config.networks().any(|network| network.contains(address)));
    Ok(fits && matches!(ours.config.backend, Backend::Vxlan(ours) if ours.vni == vxlan.vni))
}

/// One that the kernel gives a device by itself.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
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
