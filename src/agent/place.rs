//! This host's place: the underlay it stands on, who it is, and what it would claim a lease with.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use lease::claim::Claim;
use lease::{BackendType, Boot, LeaseKey, LeaseRecord, MacAddr, NetworkConfig, Owner, VtepData, VxlanConfig};
use overlay::underlay::{self, Choice, Underlay, UnderlayError};
use overlay::{Kind, Netlink, Scope};

use crate::cli::{IfaceSelector, InterfaceOptions};
use crate::identity::{self, Machine};

/// How long a lease lives unless it is renewed: flannel's 24 hours.
pub(crate) const TTL: Duration = Duration::from_secs(86_400);

/// The underlay, and who this host is on it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) underlay: Underlay,
    pub(crate) owner: Owner,
    /// What a person should know of this host's identity.
    pub(crate) warning: Option<String>,
}

/// Finds the underlay by what the flags say.
///
/// # Errors
/// [`UnderlayError`]: what was looked for, and what there is.
pub(crate) async fn find(options: &InterfaceOptions) -> Result<Place, UnderlayError> {
    let InterfaceOptions { selectors, patterns, can_reach, public_ip, public_ipv6: _ } = options;
    let iface = selectors.iter().map(|selector| match selector {
        IfaceSelector::Name(name) => name.clone(),
        IfaceSelector::Address(address) => address.to_string(),
    });
    let choice =
        Choice { iface: iface.collect(), iface_regex: patterns.clone(), can_reach: *can_reach, public_ip: public_ip.map(IpAddr::from) };
    let underlay = underlay::find(&choice, false).await?;
    let Machine { id: _, ref warning } = *MACHINE;
    Ok(Place { owner: MACHINE.owner(underlay.mac), warning: warning.clone(), underlay })
}

/// This machine. Read once: who we are does not change while we run.
static MACHINE: LazyLock<Machine> = LazyLock::new(Machine::read);

/// This boot. Read once, too.
static BOOT: LazyLock<Option<Boot>> = LazyLock::new(identity::boot);

/// What this host claims its lease with. The VTEP's MAC is the lease's, else the existing device's, else one of our own.
///
/// # Errors
/// When the kernel cannot be asked for the device.
pub(crate) async fn claim_for(
    place: &Place,
    config: &NetworkConfig,
    vxlan: VxlanConfig,
    remembered: Option<LeaseKey>,
) -> Result<Claim, overlay::KernelError> {
    let Place { underlay, owner, warning: _ } = place;
    let (owner, vni) = (*owner, vxlan.vni);
    let existing = existing_mac(config, vxlan).await?;
    let (public_ip, public_ipv6) = match underlay.public_ip {
        IpAddr::V4(address) => (Some(address), None),
        IpAddr::V6(address) => (None, Some(address)),
    };
    let record = move |found: Option<&LeaseRecord>| {
        let leased = found.and_then(|record| record.vtep).filter(|vtep| vtep.vni == vni && vtep.mac.is_station());
        let mac = leased.map(|vtep| vtep.mac).or(existing).unwrap_or_else(|| identity::vtep_mac(owner, vni));
        LeaseRecord {
            public_ip,
            public_ipv6,
            backend: BackendType::Vxlan,
            vtep: Some(VtepData { vni, mac }),
            vtep_v6: None,
            owner: Some(owner),
            boot: *BOOT,
        }
    };
    Ok(Claim { config: config.clone(), owner, public_ip, public_ipv6, remembered, ttl: TTL, record: Arc::new(record) })
}

/// The MAC of the VTEP that is there already, perhaps flanneld's.
async fn existing_mac(config: &NetworkConfig, vxlan: VxlanConfig) -> Result<Option<MacAddr>, overlay::KernelError> {
    let Some(pool) = config.v4 else { return Ok(None) };
    let scope = Scope::of_device(overlay::device_name(vxlan.vni, false), pool.network);
    let device = Netlink::open(scope)?.device().await?;
    let same_network = |kind: &Kind| matches!(kind, Kind::Vxlan(there) if there.vni == vxlan.vni);
    Ok(device.filter(|device| same_network(&device.kind) && device.mac.is_station()).map(|device| device.mac))
}
