//! Reads the machine's interfaces, for the choice of the one that carries the tunnel.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressFlags;

use super::dump::{What, dump, or_left_out};
use super::entry;
use super::link;
use super::requests::Requests;
use crate::kernel::KernelError;
use crate::underlay::{Address, Interface, Interfaces, Reach};
use crate::{Device, IfIndex, Kind};

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

/// The interfaces of the calling thread's network namespace with their addresses of one family, the one that the family's default
/// route leaves by, and the one by which `reach` would be reached.
///
/// # Errors
/// [`KernelError`] when they cannot be read.
pub(crate) async fn read(ipv6: bool, reach: Option<IpAddr>) -> Result<Interfaces, KernelError> {
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
    for entry::Address { index, address, len, flags, scope, handle: _ } in found.into_iter().filter(|found| found.address.is_ipv6() == ipv6)
    {
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

    let mut defaults: Vec<(u32, IfIndex)> = Vec::new();
    dump(What::Routes(if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet }), &mut defaults, |defaults, message| {
        let route = entry::route(message, None)?.filter(|route| route.unicast && route.key.prefix.len() == 0);
        defaults.extend(route.and_then(|route| Some((route.key.metric, route.out?))));
        Ok(())
    })
    .await?;
    let default = defaults.into_iter().min_by_key(|(metric, _)| *metric).map(|(_, index)| index);

    let reach = match reach {
        Some(address) => Requests::open()?.reach(address).await?.and_then(|(out, source)| Some(Reach { index: out?, source })),
        None => None,
    };
    Ok(Interfaces { ipv6, list, default, reach })
}
