//! The kernel's notifications, as far as they concern the scope.

use std::collections::BTreeSet;

use netlink_packet_core::DecodeError;
use nix::libc::{
    RTM_DELADDR, RTM_DELLINK, RTM_DELNEIGH, RTM_DELROUTE, RTM_DELRULE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWNETCONF,
    RTM_NEWROUTE, RTM_NEWRULE,
};
use rtnetlink::MulticastGroup;

use super::doer::Doers;
use super::entry::{self, Neighbour, Sight};
use super::link::Link;
use super::sysctl;
use super::wire::{Message, Messages};
use crate::kernel::{Event, Scope};
use crate::{Device, IfIndex, TABLE_MAIN};

/// What is listened to: both families' addresses, and the routes, rules and settings of the scope's family.
pub(super) fn groups(scope: &Scope) -> [MulticastGroup; 7] {
    use MulticastGroup::{Ipv4Ifaddr, Ipv4Netconf, Ipv4Route, Ipv4Rule, Ipv6Ifaddr, Ipv6Netconf, Ipv6Route, Ipv6Rule, Link, Neigh};

    let v4 = scope.network.is_ipv4();
    let [routes, rules, settings] = if v4 { [Ipv4Route, Ipv4Rule, Ipv4Netconf] } else { [Ipv6Route, Ipv6Rule, Ipv6Netconf] };
    [Link, Ipv4Ifaddr, Ipv6Ifaddr, Neigh, routes, rules, settings]
}

/// Turns notifications into events. Knows under which index the device was seen last, and whether it was up.
pub(crate) struct Watch {
    scope: Scope,
    device: Option<(IfIndex, bool)>,
    /// The tables whose routes are looked at.
    tables: BTreeSet<u32>,
    /// The underlay's interface is gone for good; one that is to take its place has another index.
    underlay_gone: bool,
    doers: Doers,
}

impl Watch {
    pub(crate) fn new(scope: Scope) -> Self {
        let tables = [TABLE_MAIN, scope.table].into();
        Self { scope, device: None, tables, underlay_gone: false, doers: Doers::default() }
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(super) fn index(&self) -> Option<IfIndex> {
        self.device.map(|(index, _)| index)
    }

    /// Takes the device as it was read otherwise than from a notification.
    pub(crate) fn set(&mut self, device: Option<&Device>) {
        self.device = device.map(|device| (device.index, device.up));
    }

    /// Takes the tables that the last dump looked at.
    pub(super) fn set_tables(&mut self, tables: BTreeSet<u32>) {
        self.tables = tables;
    }

    /// What this socket does is our own doing.
    pub(super) fn set_own_port(&mut self, port: u32) {
        self.doers = Doers::other_than(port);
    }

    /// Appends what a datagram says. One that cannot be read is as good as lost.
    pub(crate) fn datagram(&mut self, datagram: &[u8], events: &mut Vec<Event>) {
        for message in Messages::new(datagram) {
            if message.and_then(|message| self.message(&message, events)).is_err() {
                lost(events);
            }
        }
    }

    fn message(&mut self, message: &Message<'_>, events: &mut Vec<Event>) -> Result<(), DecodeError> {
        let before = events.len();
        let read = self.told(message, events);
        // Only of what concerns us it is asked who did it.
        if events.get(before).is_some_and(is_of_a_key)
            && let Some(who) = self.doers.of(message.port_number())
        {
            events.insert(before, Event::By(who));
        }
        read
    }

    fn told(&mut self, message: &Message<'_>, events: &mut Vec<Event>) -> Result<(), DecodeError> {
        match message.message_type() {
            RTM_NEWNEIGH | RTM_DELNEIGH => self.neighbour(message, events),
            RTM_NEWROUTE | RTM_DELROUTE => self.route(message, events),
            RTM_NEWRULE | RTM_DELRULE => self.rule(message, events),
            RTM_NEWADDR | RTM_DELADDR => self.address(message, events),
            RTM_NEWLINK | RTM_DELLINK => self.link(message, events),
            RTM_NEWNETCONF => self.setting(message, events),
            _ => Ok(()),
        }
    }

    fn neighbour(&self, message: &Message<'_>, events: &mut Vec<Event>) -> Result<(), DecodeError> {
        let Some(index) = self.index() else { return Ok(()) };
        match entry::neighbour(message, index, !self.scope.network.is_ipv4())? {
            Some(Neighbour::Ip(address, mac)) => events.push(Event::Neighbour { address, mac }),
            Some(Neighbour::Fdb(mac, to)) => events.push(Event::Fdb { mac, to }),
            None => {}
        }
        Ok(())
    }

    fn rule(&mut self, message: &Message<'_>, events: &mut Vec<Event>) -> Result<(), DecodeError> {
        let Some(key) = entry::rule(message, self.scope.network)? else {
            self.ways_changed(events);
            return Ok(());
        };
        let present = message.message_type() == RTM_NEWRULE;
        events.push(Event::Rule { key, present });
        // What is in a table that was not looked at has not been seen.
        if present && self.tables.insert(key.table) {
            lost(events);
        }
        Ok(())
    }

    fn route(&self, message: &Message<'_>, events: &mut Vec<Event>) -> Result<(), DecodeError> {
        let sight = Sight { network: self.scope.network, device: self.index(), tables: &self.tables };
        let read = entry::route(message, sight)?;
        if !read.as_ref().is_some_and(|route| route.ours) && !entry::is_cloned(message)? {
            self.ways_changed(events);
        }
        let Some(entry::Route { key, to, ours, replaced }) = read else { return Ok(()) };
        let there = message.message_type() == RTM_NEWROUTE;
        if key.prefix.len() == 0 && key.table == TABLE_MAIN {
            // The interface that it leaves by may be the one to take now.
            self.underlay_changed(events);
        }
        let inside = self.scope.network.covers(key.prefix);
        if ours {
            events.push(Event::Route { key, to: there.then_some(to) });
            if there && replaced && inside {
                events.push(Event::ForeignRoute { key, to: None });
            }
        } else {
            if inside {
                events.push(Event::ForeignRoute { key, to: there.then_some(to) });
            }
            // It may have been ours that was replaced: the kernel tells no more than this.
            if there && replaced && (inside || self.device.is_some()) {
                events.push(Event::Route { key, to: None });
            }
        }
        Ok(())
    }

    fn address(&self, message: &Message<'_>, events: &mut Vec<Event>) -> Result<(), DecodeError> {
        let (index, ipv4) = entry::address_of(message)?;
        self.underlay(index, events);
        if Some(index) != self.index() {
            if ipv4 == self.scope.network.is_ipv4() {
                self.ways_changed(events);
                // Our direct routes may have been out of it: see below.
                if ipv4 && self.scope.ways && message.message_type() == RTM_DELADDR {
                    lost(events);
                }
            }
            return Ok(());
        }
        if let Some(entry::Address { handle: address, len, .. }) = entry::address(message, self.index())? {
            let present = message.message_type() == RTM_NEWADDR;
            events.push(Event::Address { address, len, present });
            // With its last IPv4 address an interface loses its IPv4 routes, without a word
            // (`fib_inetaddr_event`, net/ipv4/fib_frontend.c, v6.18).
            if !present && address.is_ipv4() && self.scope.network.is_ipv4() {
                lost(events);
            }
        }
        Ok(())
    }

    fn link(&mut self, message: &Message<'_>, events: &mut Vec<Event>) -> Result<(), DecodeError> {
        let Some(link) = Link::read(message)? else { return Ok(()) };
        self.underlay(link.index(), events);
        if self.scope.underlay == Some(link.index()) {
            self.underlay_gone = message.message_type() == RTM_DELLINK;
        }
        let was_ours = Some(link.index()) == self.index();
        let named = match link.name() {
            Ok(name) => self.scope.device.as_ref() == Some(&name),
            Err(error) if was_ours => return Err(error),
            Err(_) => false,
        };
        if message.message_type() == RTM_DELLINK || !named {
            if was_ours {
                // Deleted, moved to another namespace, or renamed: in any case no more under its name.
                self.device = None;
                events.push(Event::DeviceGone);
            } else {
                if message.message_type() == RTM_DELLINK || !link.is_up() {
                    events.push(Event::Elsewhere(link.index()));
                }
                self.ways_changed(events);
            }
            return Ok(());
        }
        let was_up = was_ours && self.device.is_some_and(|(_, up)| up);
        let device = link.device()?;
        let up = device.up;
        self.set(Some(&device));
        events.push(Event::Device(device));
        // The kernel drops a downed device's IPv4 routes without a word; and what hangs on one that came by its name
        // by being renamed was not listened to.
        if (was_up && !up) || (!was_ours && !link.is_new()) {
            lost(events);
        }
        Ok(())
    }

    fn setting(&self, message: &Message<'_>, events: &mut Vec<Event>) -> Result<(), DecodeError> {
        events.extend(sysctl::told(message, !self.scope.network.is_ipv4())?.map(Event::Forwarding));
        Ok(())
    }

    fn underlay(&self, index: IfIndex, events: &mut Vec<Event>) {
        if self.scope.underlay == Some(index) || (self.underlay_gone && Some(index) != self.index()) {
            self.underlay_changed(events);
        }
    }

    fn ways_changed(&self, events: &mut Vec<Event>) {
        if self.scope.ways && events.last() != Some(&Event::Ways) {
            events.push(Event::Ways);
        }
    }

    fn underlay_changed(&self, events: &mut Vec<Event>) {
        if self.scope.underlay.is_some() && events.last() != Some(&Event::Underlay) {
            events.push(Event::Underlay);
        }
    }
}

/// Whether it is about something that somebody may have undone.
fn is_of_a_key(event: &Event) -> bool {
    use Event::{
        Address, By, Device, DeviceGone, Elsewhere, Fdb, ForeignRoute, Forwarding, Lost, Neighbour, Route, Rule, Threaded, Underlay, Ways,
    };
    match event {
        Address { .. } | Device(_) | DeviceGone | Fdb { .. } | Neighbour { .. } | Route { .. } | Rule { .. } => true,
        By(_) | Elsewhere(_) | ForeignRoute { .. } | Forwarding(_) | Lost | Threaded(_) | Underlay | Ways => false,
    }
}

/// Says that something was lost, once for as many as it was.
pub(super) fn lost(events: &mut Vec<Event>) {
    if events.last() != Some(&Event::Lost) {
        events.push(Event::Lost);
    }
}
