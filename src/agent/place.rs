//! This host's place: the underlay it stands on, who it is, and what it would claim a lease with.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lease::claim::Claim;
use lease::{BackendType, LeaseRecord, MacAddr, NetworkConfig, Owner, VtepData, VxlanConfig};
use overlay::underlay::{self, Choice, Underlay, UnderlayError};
use overlay::{Kind, Netlink, Scope};

use crate::cli::{IfaceSelector, InterfaceOptions};
use crate::identity::{self, Machine};
use crate::subnet_env::Remembered;

/// How long a lease lives unless it is renewed: flannel's 24 hours.
pub(crate) const TTL: Duration = Duration::from_secs(86_400);

/// The underlay, and who this host is on it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) underlay: Underlay,
    pub(crate) public_ip: Ipv4Addr,
    pub(crate) owner: Owner,
    /// What a person should know of this host's identity.
    pub(crate) warning: Option<String>,
}

/// Finds the underlay by what the flags say.
///
/// # Errors
/// [`UnderlayError`]: what was looked for, and what there is.
pub(crate) async fn find(options: &InterfaceOptions) -> Result<Place, UnderlayError> {
    todo!()
}

/// What this host claims its lease with. The VTEP's MAC is the lease's, else the existing device's, else one of our own.
pub(crate) async fn claim_for(
    place: &Place,
    config: &NetworkConfig,
    vxlan: VxlanConfig,
    remembered: &Remembered,
) -> Result<Claim, overlay::KernelError> {
    todo!()
}
