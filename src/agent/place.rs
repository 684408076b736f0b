//! This host's place: the underlay it stands on, who it is, and what it would claim a lease with.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use lease::claim::Claim;
use lease::store::kube::NodeRef;
use lease::{Backend, BackendType, Boot, Family, LeaseKey, LeaseRecord, MacAddr, NetworkConfig, Owner, VtepData, VxlanConfig};
use overlay::underlay::{self, Choice, Underlay, UnderlayError};
use overlay::{Kind, Netlink, Scope};

use crate::cli::{IfaceSelector, InterfaceOptions, Options, StoreOptions};
use crate::identity::{self, Machine};

/// How long a lease lives unless it is renewed: flannel's 24 hours.
pub(crate) const TTL: Duration = Duration::from_secs(86_400);

/// The underlay, and who this host is on it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) underlay: Underlay,
    pub(crate) owner: Owner,
    /// Whether our records say who wrote them. Not on a Node, where nobody else writes.
    pub(crate) signs: bool,
    /// What a person should know of this host's identity.
    pub(crate) warning: Option<String>,
}

impl Place {
    /// The families that it was looked for.
    pub(crate) fn families(&self) -> Vec<Family> {
        Family::ALL.into_iter().filter(|family| self.underlay.end(*family).is_some()).collect()
    }
}

/// Finds the underlay for these families by what the flags say.
///
/// # Errors
/// [`UnderlayError`]: what was looked for, and what there is.
pub(crate) async fn find(options: &Options, families: &[Family]) -> Result<Place, UnderlayError> {
    let InterfaceOptions { selectors, patterns, can_reach, public_ip, public_ipv6 } = &options.interface;
    let iface = selectors.iter().map(|selector| match selector {
        IfaceSelector::Name(name) => name.clone(),
        IfaceSelector::Address(address) => address.to_string(),
    });
    let choice = Choice {
        iface: iface.collect(),
        iface_regex: patterns.clone(),
        can_reach: *can_reach,
        public_v4: public_ip.map(IpAddr::from),
        public_v6: public_ipv6.map(IpAddr::from),
    };
    let underlay = underlay::find(&choice, families).await?;
    Ok(match &options.store {
        StoreOptions::Etcd(_) => {
            let Machine { id: _, ref warning } = *MACHINE;
            Place { owner: MACHINE.owner(underlay.mac), signs: true, warning: warning.clone(), underlay }
        }
        StoreOptions::Kube(kube) => {
            let owner = match &kube.reach.node {
                NodeRef::Name(name) => identity::node_owner(name),
                // What it is called is not known before the API server has answered.
                NodeRef::Pod { .. } => MACHINE.owner(underlay.mac),
            };
            Place { owner, signs: false, warning: None, underlay }
        }
    })
}

/// This machine. Read once: who we are does not change while we run.
static MACHINE: LazyLock<Machine> = LazyLock::new(Machine::read);

/// This boot. Read once, too.
static BOOT: LazyLock<Option<Boot>> = LazyLock::new(identity::boot);

/// What this host claims its lease with. A VTEP's MAC is the lease's, else the existing device's, else one of our own.
///
/// # Errors
/// When the kernel cannot be asked for the device.
pub(crate) async fn claim_for(place: &Place, config: &NetworkConfig, remembered: Option<LeaseKey>) -> Result<Claim, overlay::KernelError> {
    let Place { underlay, owner, signs, warning: _ } = place;
    let public = |family| underlay.end(family).map(|end| end.public);
    let public_ip = public(Family::V4).and_then(|address| if let IpAddr::V4(address) = address { Some(address) } else { None });
    let public_ipv6 = public(Family::V6).and_then(|address| if let IpAddr::V6(address) = address { Some(address) } else { None });
    let backend = match config.backend {
        Backend::Vxlan(_) => BackendType::Vxlan,
        Backend::HostGw => BackendType::HostGw,
        Backend::Alloc => BackendType::Alloc,
    };
    let (owner, signs, vteps) = (*owner, *signs, Vteps::of(config, *owner).await?);
    let record = move |found: Option<&LeaseRecord>| LeaseRecord {
        public_ip,
        public_ipv6,
        backend: backend.clone(),
        vtep: vteps.record(Family::V4, found),
        vtep_v6: vteps.record(Family::V6, found),
        owner: signs.then_some(owner),
        boot: BOOT.filter(|_| signs),
    };
    Ok(Claim { config: config.clone(), owner, public_ip, public_ipv6, remembered, ttl: TTL, record: Arc::new(record) })
}

/// What our records say of our VTEPs, unless our lease says otherwise already: none where there is no tunnel.
struct Vteps {
    v4: Option<VtepData>,
    v6: Option<VtepData>,
}

impl Vteps {
    async fn of(config: &NetworkConfig, owner: Owner) -> Result<Self, overlay::KernelError> {
        let mut vteps = Self { v4: None, v6: None };
        if let Backend::Vxlan(VxlanConfig { vni, .. }) = config.backend {
            for family in config.families() {
                let mac = existing_mac(config, vni, family).await?.unwrap_or_else(|| identity::vtep_mac(owner, vni, family));
                *family.pick(&mut vteps.v4, &mut vteps.v6) = Some(VtepData { vni, mac });
            }
        }
        Ok(vteps)
    }

    fn record(&self, family: Family, found: Option<&LeaseRecord>) -> Option<VtepData> {
        let ours = family.pick(self.v4, self.v6)?;
        let leased = found.and_then(|record| record.vtep_of(family)).filter(|vtep| vtep.vni == ours.vni && vtep.mac.is_station());
        Some(leased.unwrap_or(ours))
    }
}

/// The MAC of the VTEP that is there already, perhaps flanneld's.
async fn existing_mac(config: &NetworkConfig, vni: lease::Vni, family: Family) -> Result<Option<MacAddr>, overlay::KernelError> {
    let Some(pool) = config.pool(family) else { return Ok(None) };
    let scope = Scope::of_device(overlay::device_name(vni, family.is_ipv6()), pool.network);
    let device = Netlink::open(scope)?.device().await?;
    let same_network = |kind: &Kind| matches!(kind, Kind::Vxlan(there) if there.vni == vni);
    Ok(device.filter(|device| same_network(&device.kind) && device.mac.is_station()).map(|device| device.mac))
}
