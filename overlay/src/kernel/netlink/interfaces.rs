//! Reads the machine's interfaces, for the choice of the one that carries the tunnel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lease::{Family, Subnet};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressFlags;

use super::dump::{What, dump, or_left_out};
use super::entry::{self, Route, Sight};
use super::link;
use super::requests::Requests;
use crate::kernel::KernelError;
use crate::underlay::{Address, Interface, Interfaces, Reach};
use crate::{Device, IfIndex, Kind, TABLE_MAIN, Way};

/// The VXLAN devices of the calling thread's network namespace, whosever they are, with their names.
///
/// # Errors
/// [`KernelError`] when they cannot be read.
pub async fn vxlan_links() -> Result<Vec<(String, Device)>, KernelError> {
    let mut links: Vec<(String, Device)> = Vec::new();
    dump(What::Links, &mut links, |links, message| {
        links.extend(or_left_out(link::read(message)).filter(|(_, device)| matches!(device.kind, Kind::Vxlan(_))));
        Ok(())
    })
    .await?;
    Ok(links)
}

/// The interfaces of the calling thread's network namespace with their addresses, those that these families' default routes leave by,
/// and the one by which `reach` would be reached.
///
/// # Errors
/// [`KernelError`] when they cannot be read.
pub(crate) async fn read(families: &[Family], reach: Option<IpAddr>) -> Result<Interfaces, KernelError> {
    let mut list: Vec<Interface> = Vec::new();
    dump(What::Links, &mut list, |list, message| {
        list.extend(or_left_out(link::read(message)).map(|(name, Device { index, mtu, mac, up, .. })| Interface {
            index,
            name,
            mtu,
            mac,
            up,
            addresses: Vec::new(),
        }));
        Ok(())
    })
    .await?;

    let mut found: Vec<entry::Address> = Vec::new();
    dump(What::Addresses(None), &mut found, |found, message| {
        found.extend(or_left_out(entry::address(message, None)));
        Ok(())
    })
    .await?;
    for entry::Address { index, address, len, flags, scope, handle: _ } in found {
        if let Some(interface) = list.iter_mut().find(|interface| interface.index == index) {
            interface.addresses.push(Address {
                address,
                len,
                scope,
                // `IFA_F_SECONDARY` of IPv4 is `IFA_F_TEMPORARY` of IPv6 (if_addr.h).
                temporary: flags.contains(AddressFlags::Secondary),
                tentative: flags.contains(AddressFlags::Tentative),
                unusable: flags.intersects(AddressFlags::Dadfailed | AddressFlags::Deprecated),
            });
        }
    }

    let mut interfaces = Interfaces { list, ..Interfaces::default() };
    for family in families {
        *family.pick(&mut interfaces.default_v4, &mut interfaces.default_v6) = default_route(*family).await?;
    }
    interfaces.reach = match reach {
        Some(address) => Requests::open()?.reach(address).await?.and_then(|(out, source)| Some(Reach { index: out?, source })),
        None => None,
    };
    Ok(interfaces)
}

/// The interface that the default route of the lowest metric leaves by.
async fn default_route(family: Family) -> Result<Option<IfIndex>, KernelError> {
    let mut defaults: Vec<(u32, IfIndex)> = Vec::new();
    let (family, any) = family
        .pick((AddressFamily::Inet, IpAddr::from(Ipv4Addr::UNSPECIFIED)), (AddressFamily::Inet6, IpAddr::from(Ipv6Addr::UNSPECIFIED)));
    let tables = [TABLE_MAIN].into();
    let sight = Sight { network: Subnet::host(any), device: None, tables: &tables };
    dump(What::Routes(family, TABLE_MAIN), &mut defaults, |defaults, message| {
        let route = entry::route(message, sight)?.filter(|route| route.key.prefix.len() == 0);
        defaults
            .extend(route.and_then(|Route { key, to, .. }| if let Way::Link(index) = to.way { Some((key.metric, index)) } else { None }));
        Ok(())
    })
    .await?;
    Ok(defaults.into_iter().min_by_key(|(metric, _)| *metric).map(|(_, index)| index))
}
