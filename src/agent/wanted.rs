//! What this host's kernel should hold, by its place, the network's configuration and its lease. Pure.

use anyhow::Context;
use lease::{Backend, Entry, Family, MacAddr, Mtu, NetworkConfig, VtepData};
use overlay::{Direct, Ground, Local, SpecError};

use super::place::Place;
use crate::cli::RouteOptions;

/// The data planes' part of it, one a family that is on, and the MTU that containers may have.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) planes: Vec<(Ground, Local)>,
    pub(crate) mtu: Mtu,
}

/// What this lease calls for.
///
/// # Errors
/// When no VTEP can be made of it.
pub(crate) fn wanted(place: &Place, config: &NetworkConfig, entry: &Entry, routes: &RouteOptions) -> anyhow::Result<Wanted> {
    let planes = config.families().map(|family| plane(place, config, entry, family, routes)).collect::<anyhow::Result<Vec<_>>>()?;
    let planes: Vec<_> = planes.into_iter().flatten().collect();
    // A packet may leave in either family: where one VTEP takes less, that is what containers are told.
    let mtu = planes.iter().filter_map(|(ground, _)| Some(ground.vtep.as_ref()?.mtu)).min().unwrap_or(place.underlay.mtu);
    Ok(Wanted { planes, mtu })
}

/// Whether VTEPs can be made here, whatever the lease will be.
///
/// # Errors
/// [`SpecError`].
pub(crate) fn possible(place: &Place, config: &NetworkConfig) -> Result<(), SpecError> {
    let Backend::Vxlan(vxlan) = config.backend else { return Ok(()) };
    for family in config.families() {
        if let Some((pool, end)) = config.pool(family).zip(place.underlay.end(family)) {
            overlay::vtep_spec(&vxlan, &pool, pool.min, end.address, place.underlay.mtu, MacAddr::new([0; 6]))?;
        }
    }
    Ok(())
}

fn plane(
    place: &Place,
    config: &NetworkConfig,
    entry: &Entry,
    family: Family,
    routes: &RouteOptions,
) -> anyhow::Result<Option<(Ground, Local)>> {
    let pool = config.pool(family).with_context(|| format!("the configuration has no {family} network"))?;
    let subnet = entry.key.subnet(family).with_context(|| format!("the lease has no {family} subnet"))?;
    let end = place.underlay.end(family).with_context(|| format!("the underlay has no {family} address"))?;
    let (vtep, direct, spec) = match config.backend {
        Backend::Alloc => return Ok(None),
        Backend::HostGw => (None, Direct::Always, None),
        Backend::Vxlan(vxlan) => {
            let vtep = entry.record.as_ref().ok().and_then(|record| record.vtep_of(family));
            let vtep = vtep.with_context(|| format!("our own lease names no {family} VTEP"))?;
            let spec = overlay::vtep_spec(&vxlan, &pool, subnet, end.address, place.underlay.mtu, vtep.mac)?;
            let direct = if vxlan.direct_routing { Direct::WhereReachable } else { Direct::Never };
            (Some(VtepData { vni: vxlan.vni, mac: vtep.mac }), direct, Some(spec))
        }
    };
    let mut addresses = vec![end.address];
    addresses.extend(Some(end.public).filter(|public| *public != end.address));
    let (network, subnet_len) = (pool.network, pool.subnet_len);
    let ground = Ground { network, subnet, vtep: spec, direct, blackhole: routes.blackhole, table: routes.table };
    Ok(Some((ground, Local { key: entry.key, subnet, network, subnet_len, vtep, addresses })))
}

#[cfg(test)]
mod tests {
    use lease::{Expiry, LeaseRecord, Owner, Revision};
    use overlay::IfIndex;
    use overlay::underlay::{End, Underlay};

    use super::*;

    fn place(mtu: u32) -> Place {
        let end = |text: &str| Some(End { address: text.parse().unwrap(), public: text.parse().unwrap() });
        let (index, name, mac) = (IfIndex(2), "eth0".to_owned(), MacAddr::new([2, 0, 0, 0, 0, 1]));
        let underlay = Underlay { index, name, mtu: Mtu(mtu), mac, v4: end("192.168.77.1"), v6: end("fd77::1") };
        Place { underlay, owner: Owner::new([0; 16]), signs: true, warning: None }
    }

    fn entry(key: &str, record: &str) -> Entry {
        let (created, modified) = (Revision(1), Revision(1));
        let record = Ok(LeaseRecord::decode(record.as_bytes()).unwrap());
        Entry { key: key.parse().unwrap(), record, created, modified, expiry: Expiry::Lease(1) }
    }

    const RECORD: &str = r#"{"PublicIP":"192.168.77.1","PublicIPv6":"fd77::1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:04"},"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:00:06"}}"#;

    #[test]
    fn in_dual_stack_containers_are_told_the_smaller_vteps_mtu() {
        let config: NetworkConfig = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:db8::/48"}"#.parse().unwrap();
        let Wanted { planes, mtu } =
            wanted(&place(1500), &config, &entry("10.5.3.0-24&fc00:db8:0:3::-64", RECORD), &RouteOptions::default()).unwrap();
        let specs = planes.iter().filter_map(|(ground, _)| ground.vtep.as_ref());
        let seen: Vec<_> = specs.map(|spec| (spec.name.as_str(), spec.mac.to_string(), spec.mtu.0)).collect();
        let (v4, v6) = ("02:00:00:00:00:04".to_owned(), "02:00:00:00:00:06".to_owned());
        assert_eq!(seen, [("flannel.1", v4, 1450), ("flannel-v6.1", v6, 1430)]);
        assert_eq!(mtu, Mtu(1430));
    }

    #[test]
    fn an_underlay_too_small_for_ipv6_is_refused_before_a_lease_is_taken() {
        let dual: NetworkConfig = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:db8::/48"}"#.parse().unwrap();
        let v4: NetworkConfig = r#"{"Network":"10.5.0.0/16"}"#.parse().unwrap();
        assert!(possible(&place(1349), &v4).is_ok());
        assert!(matches!(possible(&place(1349), &dual), Err(SpecError::MtuTooSmall { .. })));
        assert!(possible(&place(1350), &dual).is_ok());
    }

    #[test]
    fn without_a_tunnel_containers_have_the_underlays_mtu_and_there_is_nothing_to_keep() {
        let config: NetworkConfig = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"alloc"}}"#.parse().unwrap();
        let record = r#"{"PublicIP":"192.168.77.1","PublicIPv6":null}"#;
        let Wanted { planes, mtu } = wanted(&place(1500), &config, &entry("10.5.3.0-24", record), &RouteOptions::default()).unwrap();
        assert_eq!((planes.len(), mtu), (0, Mtu(1500)));
    }
}
