//! The model's rules: what an operation does, what it is refused for, and what of it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lease::{MacAddr, Mtu};
use nix::errno::Errno;

use crate::kernel::deed::{Deed, ELSEWHERE_INDEX, SOMEBODY};
use crate::kernel::{Event, Scope};
use crate::{Device, FdbTo, IfIndex, Kind, Observed, Op, RouteKey, RouteTo, TABLE_MAIN, VtepSpec, Vxlan, Way};

/// What a VXLAN device may have for an MTU (`ether_setup` and `vxlan_setup`, v6.18).
const MTU: std::ops::RangeInclusive<u32> = 68..=65535;

/// `RTPROT_BOOT` (include/uapi/linux/rtnetlink.h): who makes a route with `ip route`, and says nothing else.
const BOOT: u8 = 3;

/// What the kernel holds, and what it has told of it.
pub(super) struct State {
    pub(super) truth: Observed,
    pub(super) events: Vec<Event>,
    /// The addresses that are reached with no gateway between, and by which interface.
    pub(super) near: BTreeMap<IpAddr, IfIndex>,
    /// The tables whose routes are looked at: the scope's, and those that rules led to since the last dump.
    tables: BTreeSet<u32>,
    scope: Scope,
    last_index: u32,
}

impl State {
    pub(super) fn new(scope: Scope) -> Self {
        let truth = Observed { forwarding: Some(false), ..Observed::default() };
        let tables = [TABLE_MAIN, scope.table].into();
        Self { truth, events: Vec::new(), near: BTreeMap::new(), tables, scope, last_index: ELSEWHERE_INDEX.0 }
    }

    /// What is seen of the truth.
    pub(super) fn dump(&mut self) -> Observed {
        self.tables = self.truth.rules.iter().map(|rule| rule.table).chain([TABLE_MAIN, self.scope.table]).collect();
        let mut seen = self.truth.clone();
        seen.routes.retain(|key, _| self.tables.contains(&key.table));
        seen.foreign.retain(|key, _| self.tables.contains(&key.table));
        seen
    }

    /// Changes the truth as an event says, and tells it.
    fn tell(&mut self, event: Event) {
        self.truth.fold(&event);
        let unseen = matches!(event, Event::Route { key, .. } | Event::ForeignRoute { key, .. } if !self.tables.contains(&key.table));
        if !unseen {
            self.events.push(event);
        }
    }

    fn ways_changed(&mut self) {
        if self.scope.ways {
            self.events.push(Event::Ways);
        }
    }

    pub(super) fn apply(&mut self, op: &Op) -> Result<(), Errno> {
        match op {
            Op::EnableForwarding { ipv6: _ } => {
                if self.truth.forwarding == Some(false) {
                    self.tell(Event::Forwarding(true));
                }
            }
            Op::CreateDevice(spec) => self.create(spec)?,
            Op::DelDevice => self.del_device(),
            Op::SetLocal(local) => self.vxlan(|vxlan| vxlan.local = Some(*local))?,
            Op::SetLearning(learning) => self.vxlan(|vxlan| vxlan.learning = *learning)?,
            Op::SetMac(mac) => {
                self.device(|device| device.mac = *mac)?;
                self.flush_neighbours();
            }
            Op::SetMtu(mtu) => {
                self.device(|_| {})?;
                if !MTU.contains(&mtu.0) {
                    return Err(Errno::EINVAL);
                }
                self.device(|device| device.mtu = *mtu)?;
            }
            Op::DisableLinkLocal => self.device(|device| device.no_link_local = true)?,
            Op::DisableAcceptRa => self.device(|device| device.accept_ra = device.accept_ra.and(Some(false)))?,
            Op::SetUp => self.device(|device| device.up = true)?,
            Op::PutAddress(address) => {
                self.device(|_| {})?;
                self.tell(Event::Address { address: *address, len: if address.is_ipv4() { 32 } else { 128 }, present: true });
            }
            Op::DelAddress { address, len } => self.del_address(*address, *len),
            Op::PutFdb { mac, dst } => {
                self.vxlan(|_| {})?;
                self.put_fdb(*mac, FdbTo { dst: *dst, plain: true });
            }
            Op::DelFdb { mac } => {
                if self.truth.fdb.contains_key(mac) {
                    self.tell(Event::Fdb { mac: *mac, to: None });
                }
            }
            Op::PutNeighbour { address, mac } => {
                self.device(|_| {})?;
                if self.truth.neighbours.get(address) != Some(mac) {
                    self.tell(Event::Neighbour { address: *address, mac: Some(*mac) });
                }
            }
            Op::DelNeighbour { address } => self.del_neighbour(*address),
            Op::PutRule(key) => {
                if !self.truth.rules.contains(key) {
                    self.tell(Event::Rule { key: *key, present: true });
                    if self.tables.insert(key.table) {
                        self.events.push(Event::Lost);
                    }
                }
            }
            Op::DelRule(key) => {
                if self.truth.rules.contains(key) {
                    self.tell(Event::Rule { key: *key, present: false });
                }
            }
            Op::PutRoute { key, to, replace } => self.put_route(*key, *to, *replace)?,
            Op::DelRoute { key, to } => self.del_route(*key, *to),
        }
        Ok(())
    }

    pub(super) fn deed(&mut self, deed: &Deed) -> Result<(), Errno> {
        match deed {
            Deed::Op(op) => self.apply(op)?,
            Deed::SetDown => self.set_down(),
            Deed::CreateOther => self.create_as(Kind::Other("bridge".to_owned()), MacAddr::new([0; 6]), Mtu(1500))?,
            Deed::SetThreaded => self.device(|device| device.threaded = Some(true))?,
            Deed::AgeNeighbour(address) => self.del_neighbour(*address),
            Deed::PutForeign(key) => {
                let stolen = self.truth.routes.contains_key(key);
                self.ways_changed();
                let to = RouteTo { way: Way::Link(ELSEWHERE_INDEX), gateway: None, onlink: false, protocol: SOMEBODY, plain: true };
                self.tell(Event::ForeignRoute { key: *key, to: Some(to) });
                if stolen {
                    self.tell(Event::Route { key: *key, to: None });
                }
            }
            Deed::DelForeign(key) => {
                if self.truth.foreign.get(key).is_some_and(|to| to.protocol == SOMEBODY) {
                    self.tell(Event::ForeignRoute { key: *key, to: None });
                }
            }
            Deed::Near(address) => {
                self.near.insert(*address, ELSEWHERE_INDEX);
                self.ways_changed();
            }
            Deed::Far(address) => {
                self.near.remove(address);
                self.ways_changed();
            }
            Deed::PutFlannelds { prefix, via } => {
                let metric = if prefix.is_ipv4() { 0 } else { 1024 };
                let key = RouteKey { prefix: *prefix, metric, table: TABLE_MAIN };
                let to = RouteTo { way: Way::Link(ELSEWHERE_INDEX), gateway: Some(*via), onlink: false, protocol: BOOT, plain: true };
                self.check_direct(to)?;
                if self.truth.routes.contains_key(&key) || self.truth.foreign.contains_key(&key) {
                    return Err(Errno::EEXIST);
                }
                self.ways_changed();
                self.tell(Event::ForeignRoute { key, to: Some(to) });
            }
            Deed::FlushRoutes { ipv6: _ } => {
                for key in self.through_tunnel() {
                    self.tell(Event::Route { key, to: None });
                }
            }
        }
        Ok(())
    }

    fn create(&mut self, spec: &VtepSpec) -> Result<(), Errno> {
        let VtepSpec { name: _, vni, port, local, gbp, learning, mac, mtu, address: _, network: _ } = spec;
        let (vni, port, local, learning, gbp) = (*vni, *port, Some(*local), *learning, *gbp);
        self.create_as(Kind::Vxlan(Vxlan { vni, port, local, parent: None, learning, gbp, external: false }), *mac, *mtu)
    }

    fn create_as(&mut self, kind: Kind, mac: MacAddr, mtu: Mtu) -> Result<(), Errno> {
        if self.truth.device.is_some() {
            return Err(Errno::EEXIST);
        }
        if !MTU.contains(&mtu.0) {
            return Err(Errno::EINVAL);
        }
        self.last_index += 1;
        let index = IfIndex(self.last_index);
        self.tell(Event::Device(Device {
            index,
            kind,
            up: false,
            mtu,
            mac,
            no_link_local: false,
            accept_ra: Some(true),
            threaded: Some(false),
        }));
        Ok(())
    }

    /// The kernel first empties the FDB, then sets the device down, then takes it away.
    fn del_device(&mut self) {
        if self.truth.device.is_some() {
            for mac in self.truth.fdb.keys().copied().collect::<Vec<_>>() {
                self.tell(Event::Fdb { mac, to: None });
            }
            self.set_down();
            self.tell(Event::DeviceGone);
        }
    }

    fn device(&mut self, change: impl FnOnce(&mut Device)) -> Result<(), Errno> {
        let mut device = self.truth.device.clone().ok_or(Errno::ENODEV)?;
        change(&mut device);
        if self.truth.device.as_ref() != Some(&device) {
            self.tell(Event::Device(device));
        }
        Ok(())
    }

    fn vxlan(&mut self, change: impl FnOnce(&mut Vxlan)) -> Result<(), Errno> {
        let mut refused = Ok(());
        self.device(|device| match &mut device.kind {
            Kind::Vxlan(vxlan) => change(vxlan),
            Kind::Other(_) => refused = Err(Errno::EOPNOTSUPP),
        })?;
        refused
    }

    /// Neighbours go, IPv4 routes without a word, IPv6 routes and addresses with one; the FDB stays.
    fn set_down(&mut self) {
        if !self.truth.device.as_ref().is_some_and(|device| device.up) || self.device(|device| device.up = false).is_err() {
            return;
        }
        self.lose_routes();
        self.flush_neighbours();
        let gone: Vec<_> = self.truth.addresses.iter().copied().filter(|(address, _)| address.is_ipv6()).collect();
        for (address, len) in gone {
            self.tell(Event::Address { address, len, present: false });
        }
    }

    fn lose_routes(&mut self) {
        for key in self.through_tunnel() {
            if self.scope.network.is_ipv4() {
                self.truth.routes.remove(&key);
            } else {
                self.tell(Event::Route { key, to: None });
            }
        }
        self.events.push(Event::Lost);
    }

    /// The keys of the routes out of the VTEP.
    fn through_tunnel(&self) -> Vec<RouteKey> {
        self.truth.routes.iter().filter(|(_, to)| to.way == Way::Tunnel).map(|(key, _)| *key).collect()
    }

    fn flush_neighbours(&mut self) {
        for address in self.truth.neighbours.keys().copied().collect::<Vec<_>>() {
            self.tell(Event::Neighbour { address, mac: None });
        }
    }

    /// With the last IPv4 address the IPv4 routes and neighbours go.
    fn del_address(&mut self, address: IpAddr, len: u8) {
        if !self.truth.addresses.contains(&(address, len)) {
            return;
        }
        self.tell(Event::Address { address, len, present: false });
        if address.is_ipv4() && self.scope.network.is_ipv4() {
            self.events.push(Event::Lost);
            if !self.truth.addresses.iter().any(|(address, _)| address.is_ipv4()) {
                for key in self.through_tunnel() {
                    self.truth.routes.remove(&key);
                }
                self.flush_neighbours();
            }
        }
    }

    fn put_fdb(&mut self, mac: MacAddr, to: FdbTo) {
        if self.truth.fdb.get(&mac) != Some(&to) {
            self.tell(Event::Fdb { mac, to: Some(to) });
        }
    }

    /// The first of that protocol, or of any if none is named; a metric of 0 is any metric (`fib_table_delete`, net/ipv4/fib_trie.c, and
    /// `ip6_route_del`, net/ipv6/route.c, v6.18).
    fn del_route(&mut self, key: RouteKey, to: RouteTo) {
        let meant = |(there, leads): &(&RouteKey, &RouteTo)| {
            let same_key = (there.prefix, there.table) == (key.prefix, key.table) && (key.metric == 0 || there.metric == key.metric);
            let same_way = leads.way == to.way && (to.way == Way::Tunnel || leads.gateway == to.gateway);
            same_key && same_way && (to.protocol == 0 || leads.protocol == to.protocol)
        };
        if let Some(key) = self.truth.routes.iter().find(meant).map(|(key, _)| *key) {
            self.tell(Event::Route { key, to: None });
        } else if let Some(key) = self.truth.foreign.iter().find(meant).map(|(key, _)| *key) {
            self.tell(Event::ForeignRoute { key, to: None });
        }
    }

    fn del_neighbour(&mut self, address: IpAddr) {
        if self.truth.neighbours.contains_key(&address) {
            self.tell(Event::Neighbour { address, mac: None });
        }
    }

    fn put_route(&mut self, key: RouteKey, to: RouteTo, replace: bool) -> Result<(), Errno> {
        if to.way == Way::Tunnel && !self.truth.device.as_ref().ok_or(Errno::ENODEV)?.up {
            return Err(Errno::ENETDOWN);
        }
        if let Some(gateway) = to.gateway.filter(|_| to.way == Way::Tunnel) {
            self.check_gateway(gateway, to.onlink)?;
        }
        self.check_direct(to)?;
        let (ours, foreign) = (self.truth.routes.get(&key), self.truth.foreign.contains_key(&key));
        if !replace && (ours.is_some() || foreign) {
            return Err(Errno::EEXIST);
        }
        // IPv6 tells also that a route was replaced by its like.
        if ours != Some(&to) || !key.prefix.is_ipv4() {
            self.tell(Event::Route { key, to: Some(to) });
        }
        if foreign {
            self.tell(Event::ForeignRoute { key, to: None });
        }
        Ok(())
    }

    /// The next hop of a direct route is reached by the same interface.
    fn check_direct(&self, to: RouteTo) -> Result<(), Errno> {
        let (Way::Link(index), Some(gateway)) = (to.way, to.gateway) else { return Ok(()) };
        if self.near.get(&gateway) == Some(&index) {
            return Ok(());
        }
        Err(if gateway.is_ipv4() { Errno::ENETUNREACH } else { Errno::EHOSTUNREACH })
    }

    /// A gateway is no address of ours, and not reached without onlink, as we bear full masks only. IPv6 looks it up even with
    /// onlink, and refuses where another's route leads there, other than the default one.
    fn check_gateway(&self, gateway: IpAddr, onlink: bool) -> Result<(), Errno> {
        if self.truth.addresses.iter().any(|(own, _)| *own == gateway) {
            return Err(Errno::EINVAL);
        }
        let v4 = gateway.is_ipv4();
        if !onlink {
            return Err(if v4 { Errno::ENETUNREACH } else { Errno::EHOSTUNREACH });
        }
        let leads = |(key, to): &(&RouteKey, &RouteTo)| key.table == TABLE_MAIN && to.way != Way::Blackhole && key.prefix.contains(gateway);
        let best = |(key, to): (&RouteKey, &RouteTo)| (key.prefix.len(), std::cmp::Reverse(key.metric), to.way == Way::Tunnel);
        let found = self.truth.routes.iter().chain(&self.truth.foreign).filter(leads).map(best).max();
        let elsewhere = found.is_some_and(|(len, _, ours)| len > 0 && !ours);
        if !v4 && elsewhere { Err(Errno::EINVAL) } else { Ok(()) }
    }
}
