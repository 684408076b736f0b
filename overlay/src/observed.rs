//! A mirror of what the kernel holds on one VTEP: filled by a dump, kept current by the kernel's own notifications.
//!
//! It is never a memory of what we wrote: only [`Kernel::dump`](crate::Kernel::dump) and [`Event`]s change it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lease::MacAddr;

use crate::desired::Peer;
use crate::device::{Device, IfIndex};
use crate::entry::{FdbTo, Key, RouteKey, RouteTo};
use crate::event::Event;

/// What the kernel holds on one VTEP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// Whether the family's forwarding is on; none where that cannot be read.
    pub forwarding: Option<bool>,
    /// The device under the VTEP's name.
    pub device: Option<Device>,
    /// Its addresses of both families, with their prefix lengths.
    pub addresses: BTreeSet<(IpAddr, u8)>,
    /// Its permanent neighbour entries of the VTEP's family. What the kernel learned by itself is left out.
    pub neighbours: BTreeMap<IpAddr, MacAddr>,
    /// Its permanent unicast FDB entries.
    pub fdb: BTreeMap<MacAddr, FdbTo>,
    /// The main table's routes of the VTEP's family out of the device, less the kernel's own (`proto kernel`).
    pub routes: BTreeMap<RouteKey, RouteTo>,
    /// Routes for parts of the overlay network that lead elsewhere, with the interface that they leave by. Not ours.
    pub foreign: BTreeMap<RouteKey, Option<IfIndex>>,
}

impl Observed {
    /// The peers that the kernel carries: a route with its neighbour and that one's FDB entry, all three plain.
    pub fn peers(&self) -> impl Iterator<Item = Peer> + '_ {
        self.routes.iter().filter_map(|(key, to)| {
            let gateway = to.gateway.filter(|gateway| to.plain && *gateway == key.prefix.address())?;
            let mac = *self.neighbours.get(&gateway)?;
            let to = self.fdb.get(&mac).filter(|to| to.plain)?;
            Some(Peer { subnet: key.prefix, mac, dst: to.dst })
        })
    }

    /// Takes in one notification and names what it is about. None for those that concern no single key.
    pub fn fold(&mut self, event: &Event) -> Option<Key> {
        match event {
            Event::Forwarding(on) => {
                self.forwarding = Some(*on);
                Some(Key::Forwarding)
            }
            Event::Device(device) => {
                if self.device.as_ref().is_some_and(|before| before.up) && !device.up {
                    self.drop_ipv4();
                }
                self.device = Some(device.clone());
                Some(Key::Device)
            }
            Event::Threaded(on) => {
                let device = self.device.as_mut()?;
                device.threaded = Some(*on);
                Some(Key::Device)
            }
            Event::DeviceGone => {
                let Self { forwarding: _, device, addresses, neighbours, fdb, routes, foreign: _ } = self;
                *device = None;
                addresses.clear();
                neighbours.clear();
                fdb.clear();
                routes.clear();
                Some(Key::Device)
            }
            Event::Address { address, len, present } => {
                if *present {
                    self.addresses.insert((*address, *len));
                } else {
                    self.addresses.remove(&(*address, *len));
                    if address.is_ipv4() && self.lacks_ipv4() {
                        self.drop_ipv4();
                    }
                }
                Some(Key::Device)
            }
            Event::Neighbour { address, mac } => {
                set(&mut self.neighbours, *address, *mac);
                Some(Key::Neighbour(*address))
            }
            Event::Fdb { mac, to } => {
                set(&mut self.fdb, *mac, *to);
                Some(Key::Fdb(*mac))
            }
            Event::Route { key, to } => {
                set(&mut self.routes, *key, *to);
                Some(Key::Route(*key))
            }
            Event::ForeignRoute { key, out } => {
                set(&mut self.foreign, *key, *out);
                Some(Key::Route(*key))
            }
            Event::Elsewhere(index) => {
                self.foreign.retain(|_, out| *out != Some(*index));
                None
            }
            Event::By(_) | Event::Underlay | Event::Lost => None,
        }
    }

    /// Whether the device has no IPv4 address.
    pub(crate) fn lacks_ipv4(&self) -> bool {
        !self.addresses.iter().any(|(address, _)| address.is_ipv4())
    }

    /// What the kernel drops without a word when the device goes down or loses its last IPv4 address (`fib_netdev_event` and
    /// `fib_inetaddr_event`, net/ipv4/fib_frontend.c, v6.18). What has come since is told behind this.
    fn drop_ipv4(&mut self) {
        self.routes.retain(|key, _| !key.prefix.is_ipv4());
        self.neighbours.retain(|address, _| !address.is_ipv4());
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}
