//! Whether this host has room for the network: nobody else keeps its VTEP, and nothing receives in its place. Settled before a lease
//! is taken, and held until the agent ends.

use std::fs;

use lease::{Backend, NetworkConfig, Subnet, Vni, VxlanConfig};
use overlay::{Device, Kernel, KernelError, Kind, Netlink, Scope};

use crate::cli::{EtcdOptions, Options, StoreOptions};
use crate::conflicts::{self, Conflict, Flanneld, LiveFlanneld, Wanted};
use crate::lock::{Lock, LockError};

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoRoom {
    #[error(
        "another agent runs on this host with the same keys ({prefix} at {endpoints}): process {pid}; stop it, or give this one an --etcd-prefix of its own"
    )]
    SameNetwork { prefix: String, endpoints: String, pid: i32 },
    #[error("another agent runs on this host for {node}: process {pid}; stop it first")]
    SameNode { node: String, pid: i32 },
    #[error("flanneld is running here (process {}), {}: it is waited for; take its DaemonSet away from this Node", .0.pid, .0.why)]
    Flanneld(LiveFlanneld),
    #[error(
        "{device} is another agent's: process {pid} keeps it for another network; stop that one, or give this network another Backend.VNI"
    )]
    SameDevice { device: String, pid: i32 },
    #[error(
        "the Network {network} and {theirs}, which process {pid} serves on this host, have addresses in common: each would take the other's \
         routes away; give one of them another Network, or stop that agent"
    )]
    Overlap { network: Subnet, theirs: Subnet, pid: i32 },
    #[error("cannot make sure that {what} is nobody else's: {source}")]
    Unsure { what: String, source: std::io::Error },
    #[error(transparent)]
    Conflict(#[from] Conflict),
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// What we hold on this host, and what else we have met.
#[derive(Debug)]
pub(super) struct Room {
    /// The network's, from the start.
    _network: Option<Lock>,
    /// The addresses', once they are known.
    addresses: Vec<Lock>,
    /// The devices', once they are known.
    devices: Option<Vec<Lock>>,
    /// flannelds of other networks.
    flannelds: Vec<Flanneld>,
    /// What does not get on with a device that was up already.
    warnings: Vec<String>,
}

impl Room {
    /// Takes the network for this process.
    ///
    /// # Errors
    /// [`NoRoom::SameNetwork`], [`NoRoom::SameNode`].
    pub(super) fn take(store: &StoreOptions, flannelds: Vec<Flanneld>) -> Result<Self, NoRoom> {
        Ok(Self { _network: take_network(store)?, addresses: Vec::new(), devices: None, flannelds, warnings: Vec::new() })
    }

    /// Takes addresses and devices, if nothing stands in their way; returns what a person should know all the same.
    ///
    /// # Errors
    /// [`NoRoom`]; no device is held then, and it can be tried again.
    pub(super) async fn claim(&mut self, options: &Options, config: &NetworkConfig) -> Result<&[String], NoRoom> {
        self.flannelds.retain(Flanneld::lives);
        conflicts::refuse_beside(&self.flannelds, options).map_err(NoRoom::Flanneld)?;
        if config.backend != Backend::Alloc {
            self.claim_addresses(config)?;
        }
        let Backend::Vxlan(vxlan) = config.backend else { return Ok(&[]) };
        let wanted = wanted(config, vxlan.vni);
        let names: Vec<String> = wanted.iter().map(|(name, _)| lock_name(name)).collect();
        let held = self.devices.as_ref().is_some_and(|locks| locks.iter().map(Lock::name).eq(names.iter().map(String::as_str)));
        if !held {
            self.devices = None;
            let mut locks = Vec::new();
            for (device, name) in wanted.iter().map(|(device, _)| device.clone()).zip(&names) {
                locks.extend(Lock::take(name).map_err(|error| match error {
                    LockError::Held(pid) => NoRoom::SameDevice { device, pid },
                    LockError::Io(source) => NoRoom::Unsure { what: device, source },
                })?);
            }
            self.warnings = self.conflicts(&vxlan, &wanted).await?;
            self.devices = Some(locks);
        }
        Ok(&self.warnings)
    }

    /// Takes the networks' addresses: two agents would each take the other's routes for leftovers of its own.
    fn claim_addresses(&mut self, config: &NetworkConfig) -> Result<(), NoRoom> {
        let unsure = |source| NoRoom::Unsure { what: "the Network".to_owned(), source };
        let name_of = |network: Subnet| format!("{ADDRESSES}{network}");
        self.addresses.retain(|lock| config.networks().any(|network| lock.name() == name_of(network)));
        for network in config.networks() {
            let name = name_of(network);
            if self.addresses.iter().any(|lock| lock.name() == name) {
                continue;
            }
            for (name, pid) in Lock::others(ADDRESSES).map_err(unsure)? {
                let theirs = name.strip_prefix(ADDRESSES).and_then(|text| text.parse::<Subnet>().ok());
                let ours = u32::try_from(pid) == Ok(std::process::id());
                if let Some(theirs) = theirs.filter(|theirs| theirs.overlaps(network) && !ours) {
                    return Err(NoRoom::Overlap { network, theirs, pid });
                }
            }
            self.addresses.extend(Lock::take(&name).map_err(|error| match error {
                LockError::Held(pid) => NoRoom::Overlap { network, theirs: network, pid },
                LockError::Io(source) => unsure(source),
            })?);
        }
        Ok(())
    }

    async fn conflicts(&self, vxlan: &VxlanConfig, wanted: &[(String, Subnet)]) -> Result<Vec<String>, NoRoom> {
        let links = overlay::vxlan_links().await?;
        let mut warnings = Vec::new();
        for (device, network) in wanted {
            let ipv6 = !network.is_ipv4();
            let udp = fs::read_to_string(if ipv6 { "/proc/net/udp6" } else { "/proc/net/udp" }).unwrap_or_default();
            let wanted = Wanted { device, vni: vxlan.vni, port: vxlan.port, gbp: vxlan.gbp, ipv6, network: *network };
            let conflict = match conflicts::on_port(&wanted, &links, &udp) {
                None => self.other_network(&wanted).await?,
                found => found,
            };
            let serves = |(name, link): &(String, Device)| {
                let right = matches!(link.kind, Kind::Vxlan(vxlan) if (vxlan.vni, vxlan.port) == (wanted.vni, wanted.port));
                name == device && link.up && right
            };
            match conflict {
                // The kernel has decided already: it receives, and the other does not.
                Some(conflict @ (Conflict::External { .. } | Conflict::OtherWay { .. })) if links.iter().any(serves) => {
                    tracing::warn!(%conflict, "another VXLAN device cannot receive beside ours");
                    warnings.push(conflict.to_string());
                }
                Some(conflict) => return Err(conflict.into()),
                None => {}
            }
        }
        Ok(warnings)
    }

    /// A flanneld that is alive, and a device under our VTEP's name with an address of another network.
    async fn other_network(&self, wanted: &Wanted<'_>) -> Result<Option<Conflict>, KernelError> {
        let Some(flanneld) = self.flannelds.first() else { return Ok(None) };
        let Wanted { device, network, .. } = *wanted;
        let observed = Netlink::open(Scope::of_device(device.to_owned(), network))?.dump().await?;
        let foreign = |address: &std::net::IpAddr| address.is_ipv4() == network.is_ipv4() && !network.contains(*address);
        let address = observed.addresses.iter().map(|(address, _)| *address).find(foreign);
        Ok(address.map(|address| Conflict::OtherNetwork { device: device.to_owned(), address, network, pid: flanneld.pid }))
    }
}

/// What the name of a network's addresses begins with.
const ADDRESSES: &str = "addresses ";

/// Takes a network for this process, an agent or a command in its place.
///
/// # Errors
/// [`NoRoom::SameNetwork`], [`NoRoom::SameNode`].
pub(crate) fn take_network(store: &StoreOptions) -> Result<Option<Lock>, NoRoom> {
    let EtcdOptions { endpoints, prefix, .. } = match store {
        StoreOptions::Etcd(etcd) => etcd,
        StoreOptions::Kube(kube) => {
            // A host is one Node of a cluster, by whatever name or pod it is known.
            let (name, node) = (format!("network of {}", kube.reach.annotation_prefix), format!("Node {}", kube.node()));
            return Lock::take(&name).map_err(|error| match error {
                LockError::Held(pid) => NoRoom::SameNode { node, pid },
                LockError::Io(source) => NoRoom::Unsure { what: node, source },
            });
        }
    };
    let mut endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    endpoints.sort();
    let (prefix, endpoints) = (prefix.as_str().to_owned(), endpoints.join(", "));
    Lock::take(&format!("network {prefix} at {endpoints}")).map_err(|error| match error {
        LockError::Held(pid) => NoRoom::SameNetwork { prefix, endpoints, pid },
        LockError::Io(source) => NoRoom::Unsure { what: prefix, source },
    })
}

/// The devices of the configuration, each with its network.
fn wanted(config: &NetworkConfig, vni: Vni) -> Vec<(String, Subnet)> {
    config.networks().map(|network| (overlay::device_name(vni, !network.is_ipv4()), network)).collect()
}

/// What the agent holds that keeps this device.
pub(crate) fn lock_name(device: &str) -> String {
    format!("device {device}")
}
