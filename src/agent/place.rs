//! This host's place: the underlay it stands on, who it is, and what it would claim a lease with.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lease::claim::Claim;
use lease::{BackendType, LeaseKey, LeaseRecord, MacAddr, NetworkConfig, Owner, VtepData, VxlanConfig};
use overlay::underlay::{Underlay, UnderlayError};
use overlay::{Kind, Netlink, Scope};

use crate::cli::InterfaceOptions;
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
pub(crate) async fn find(_options: &InterfaceOptions) -> Result<Place, UnderlayError> {
    let out = std::process::Command::new("ip").args(["-j", "address"]).output().unwrap();
    let v: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let l = v.as_array().unwrap().iter().find(|l| l["ifname"] == "eth0").ok_or(UnderlayError("no eth0".into()))?;
    let address: IpAddr = l["addr_info"][0]["local"].as_str().unwrap().parse().unwrap();
    let underlay = Underlay {
        index: overlay::IfIndex(l["ifindex"].as_u64().unwrap() as u32),
        name: "eth0".into(),
        mtu: lease::Mtu(l["mtu"].as_u64().unwrap() as u32),
        mac: l["address"].as_str().unwrap().parse().unwrap(),
        address,
        public_ip: address,
    };
    let machine = Machine::read();
    Ok(Place { owner: machine.owner(underlay.mac), warning: machine.warning, underlay })
}

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
        }
    };
    Ok(Claim { config: config.clone(), owner, public_ip, public_ipv6, remembered, ttl: TTL, record: Arc::new(record) })
}

/// The MAC of the VTEP that is there already, perhaps flanneld's.
async fn existing_mac(config: &NetworkConfig, vxlan: VxlanConfig) -> Result<Option<MacAddr>, overlay::KernelError> {
    let Some(pool) = config.v4 else { return Ok(None) };
    let scope = Scope { device: overlay::device_name(vxlan.vni, false), network: pool.network, underlay: None };
    let device = Netlink::open(scope)?.device().await?;
    let same_network = |kind: &Kind| matches!(kind, Kind::Vxlan(there) if there.vni == vxlan.vni);
    Ok(device.filter(|device| same_network(&device.kind) && device.mac.is_station()).map(|device| device.mac))
}
