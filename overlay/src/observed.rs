//! A mirror of what the kernel holds on one VTEP: filled by a dump, kept current by the kernel's own notifications.
//!
//! It is never a memory of what we wrote: only [`Kernel::dump`](crate::Kernel::dump) and [`Event`]s change it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lease::MacAddr;

use crate::desired::Peer;
use crate::device::Device;
use crate::entry::{FdbTo, Key, RouteKey, RouteTo, RuleKey, Way};
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
    /// The rules that carry our protocol number and are for a part of the overlay network.
    pub rules: BTreeSet<RuleKey>,
    /// Our routes, in the main table and those that our rules lead to: out of the device, less the kernel's own (`proto kernel`), and those
    /// for parts of the overlay network that carry our protocol number.
    pub routes: BTreeMap<RouteKey, RouteTo>,
    /// Other routes in these tables for parts of the overlay network. Not ours.
    pub foreign: BTreeMap<RouteKey, RouteTo>,
}

impl Observed {
    /// The peers that the kernel carries: a route with its neighbour and that one's FDB entry, all three plain; or a direct route, which
    /// says nothing of the peer's MAC.
    pub fn peers(&self) -> impl Iterator<Item = Peer> + '_ {
        self.routes.iter().filter_map(|(key, to)| {
            let (subnet, gateway) = (key.prefix, to.gateway.filter(|_| to.plain)?);
            match to.way {
                Way::Tunnel => {
                    let mac = *self.neighbours.get(&gateway).filter(|_| gateway == subnet.address())?;
                    let to = self.fdb.get(&mac).filter(|to| to.plain)?;
                    Some(Peer { subnet, mac: Some(mac), dst: to.dst })
                }
                Way::Link(_) => Some(Peer { subnet, mac: None, dst: gateway }),
                Way::Blackhole | Way::Other => None,
            }
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
                let Self { forwarding: _, device, addresses, neighbours, fdb, rules: _, routes, foreign: _ } = self;
                *device = None;
                addresses.clear();
                neighbours.clear();
                fdb.clear();
                routes.retain(|_, to| to.way != Way::Tunnel);
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
            Event::Rule { key, present } => {
                if *present {
                    self.rules.insert(*key);
                } else {
                    self.rules.remove(key);
                }
                Some(Key::Rule(*key))
            }
            Event::Route { key, to } => {
                set(&mut self.routes, *key, *to);
                Some(Key::Route(*key))
            }
            Event::ForeignRoute { key, to } => {
                set(&mut self.foreign, *key, *to);
                Some(Key::Route(*key))
            }
            Event::Elsewhere(index) => {
                let stays = |_: &RouteKey, to: &mut RouteTo| to.way != Way::Link(*index);
                self.foreign.retain(stays);
                self.routes.retain(stays);
                None
            }
            Event::By(_) | Event::Underlay | Event::Ways | Event::Lost => None,
        }
    }

    /// Whether the device has no IPv4 address.
    pub(crate) fn lacks_ipv4(&self) -> bool {
        !self.addresses.iter().any(|(address, _)| address.is_ipv4())
    }

    /// What the kernel drops without a word when the device goes down or loses its last IPv4 address (`fib_netdev_event` and
    /// `fib_inetaddr_event`, net/ipv4/fib_frontend.c, v6.18). What has come since is told behind this.
    fn drop_ipv4(&mut self) {
        self.routes.retain(|key, to| !key.prefix.is_ipv4() || to.way != Way::Tunnel);
        self.neighbours.retain(|address, _| !address.is_ipv4());
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}
