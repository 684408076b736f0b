//! The made-up hosts' leases.

use std::net::IpAddr;

use lease::{BackendType, Entry, Expiry, LeaseKey, LeaseRecord, Revision, VtepData};

use super::Family;
use crate::Local;

impl Family {
    /// The key of the nth host's lease.
    #[must_use]
    pub fn lease_key(self, n: u32) -> LeaseKey {
        let subnet = Some(self.subnet(n));
        self.pick(LeaseKey::new(subnet, None), LeaseKey::new(None, subnet)).unwrap()
    }

    /// The nth host's lease, with the address of host number `at` and, unless it does host-gw, that one's MAC.
    #[must_use]
    pub fn lease(self, n: u32, at: u32, host_gw: bool) -> Entry {
        let (public_ip, public_ipv6) = match self.underlay(at) {
            IpAddr::V4(address) => (Some(address), None),
            IpAddr::V6(address) => (None, Some(address)),
        };
        let vtep = (!host_gw).then(|| VtepData { vni: self.spec().vni, mac: self.mac(at) });
        let (vtep, vtep_v6) = self.pick((vtep, None), (None, vtep));
        let backend = if host_gw { BackendType::HostGw } else { BackendType::Vxlan };
        let record = LeaseRecord { public_ip, public_ipv6, backend, vtep, vtep_v6, owner: None, boot: None };
        let revision = Revision(n.into());
        Entry { key: self.lease_key(n), record: Ok(record), created: revision, modified: revision, expiry: Expiry::Lease(1) }
    }

    /// The place of host number 1.
    #[must_use]
    pub fn local(self, host_gw: bool) -> Local {
        let (spec, subnet) = (self.spec(), self.subnet(1));
        let vtep = (!host_gw).then_some(VtepData { vni: spec.vni, mac: spec.mac });
        let addresses = vec![spec.local];
        Local { key: self.lease_key(1), subnet, network: spec.network, subnet_len: subnet.len(), vtep, addresses }
    }
}
