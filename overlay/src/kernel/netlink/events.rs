//! The kernel's notifications, as far as they concern the scope.

use super::abi::{
    NETCONFA_FORWARDING, NETCONFA_IFINDEX, NETCONFA_IFINDEX_ALL, RTM_DELADDR, RTM_DELLINK, RTM_DELNEIGH, RTM_DELROUTE, RTM_NEWADDR,
    RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWNETCONF, RTM_NEWROUTE, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_NETCONF, RTNLGRP_IPV6_ROUTE, RTNLGRP_LINK, RTNLGRP_NEIGH,
};
use super::encode::family;
use super::entry::{self, Neighbour};
use super::link::Link;
use super::wire::{Malformed, Message, Messages, split, u32_of};
use crate::kernel::{Event, Scope};
use crate::{Device, IfIndex};

/// What is listened to: both families' addresses, and the routes and settings of the scope's family.
pub(super) fn groups(scope: &Scope) -> [u32; 6] {
    let (routes, settings) =
        if scope.network.is_ipv4() { (RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_NETCONF) } else { (RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_NETCONF) };
    [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_NEIGH, routes, settings]
}

/// Turns notifications into events. Knows under which index the device was seen last, and whether it was up.
pub(crate) struct Watch {
    scope: Scope,
    device: Option<(IfIndex, bool)>,
}

impl Watch {
    pub(crate) fn new(scope: Scope) -> Self {
        Self { scope, device: None }
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

    /// Appends what a datagram says. One that cannot be read is as good as lost.
    pub(crate) fn datagram(&mut self, datagram: &[u8], events: &mut Vec<Event>) {
        for message in Messages::new(datagram) {
            if message.and_then(|message| self.message(&message, events)).is_err() {
                lost(events);
            }
        }
    }

    fn message(&mut self, message: &Message<'_>, events: &mut Vec<Event>) -> Result<(), Malformed> {
        match message.kind {
            RTM_NEWNEIGH | RTM_DELNEIGH => self.neighbour(message, events),
            RTM_NEWROUTE | RTM_DELROUTE => self.route(message, events),
            RTM_NEWADDR | RTM_DELADDR => self.address(message, events),
            RTM_NEWLINK | RTM_DELLINK => self.link(message, events),
            RTM_NEWNETCONF => self.setting(message, events),
            _ => Ok(()),
        }
    }

    fn neighbour(&self, message: &Message<'_>, events: &mut Vec<Event>) -> Result<(), Malformed> {
        let Some(index) = self.index() else { return Ok(()) };
        match entry::neighbour(message, index, !self.scope.network.is_ipv4())? {
            Some(Neighbour::Ip(address, mac)) => events.push(Event::Neighbour { address, mac }),
            Some(Neighbour::Fdb(mac, to)) => events.push(Event::Fdb { mac, to }),
            None => {}
        }
        Ok(())
    }

    fn route(&self, message: &Message<'_>, events: &mut Vec<Event>) -> Result<(), Malformed> {
        let Some(entry::Route { key, out, to, unicast: _, replaced }) = entry::route(message)? else { return Ok(()) };
        let there = message.kind == RTM_NEWROUTE;
        let inside = self.scope.network.covers(key.prefix);
        if self.device.is_some() && out == self.index() {
            events.push(Event::Route { key, to: there.then_some(to) });
            if there && replaced && inside {
                events.push(Event::ForeignRoute { key, out: None });
            }
        } else {
            if inside {
                events.push(Event::ForeignRoute { key, out: there.then_some(out) });
            }
            // It may have been ours that was replaced: the kernel tells no more than this.
            if there && replaced && self.device.is_some() {
                events.push(Event::Route { key, to: None });
            }
        }
        Ok(())
    }

    fn address(&self, message: &Message<'_>, events: &mut Vec<Event>) -> Result<(), Malformed> {
        let Some(entry::Address { index, address, len, flags: _, scope: _ }) = entry::address(message)? else { return Ok(()) };
        if Some(index) == self.index() {
            let present = message.kind == RTM_NEWADDR;
            events.push(Event::Address { address, len, present });
            // With its last IPv4 address an interface loses its IPv4 routes, without a word
            // (`fib_inetaddr_event`, net/ipv4/fib_frontend.c, v6.18).
            if !present && address.is_ipv4() && self.scope.network.is_ipv4() {
                lost(events);
            }
        }
        self.underlay(index, events);
        Ok(())
    }

    fn link(&mut self, message: &Message<'_>, events: &mut Vec<Event>) -> Result<(), Malformed> {
        let Some(link) = Link::read(message)? else { return Ok(()) };
        self.underlay(link.index, events);
        let was_ours = Some(link.index) == self.index();
        if message.kind == RTM_DELLINK || !link.is_named(&self.scope.device)? {
            if was_ours {
                // Deleted, moved to another namespace, or renamed: in any case no more under its name.
                self.device = None;
                events.push(Event::DeviceGone);
            }
            return Ok(());
        }
        let was_up = was_ours && self.device.is_some_and(|(_, up)| up);
        let device = link.device()?;
        self.set(Some(&device));
        events.push(Event::Device(device));
        // The kernel drops a downed device's IPv4 routes without a word; and what hangs on one that came by its name
        // by being renamed was not listened to.
        if (was_up && !link.up) || (!was_ours && !link.new) {
            lost(events);
        }
        Ok(())
    }

    /// `struct netconfmsg` is the family alone, padded.
    fn setting(&self, message: &Message<'_>, events: &mut Vec<Event>) -> Result<(), Malformed> {
        let ([of, _, _, _], attrs) = split(message.body)?;
        let (mut all, mut forwarding) = (false, None);
        for attr in attrs {
            match attr? {
                (NETCONFA_IFINDEX, value) => all = u32_of(value)? == NETCONFA_IFINDEX_ALL,
                (NETCONFA_FORWARDING, value) => forwarding = Some(u32_of(value)? != 0),
                _ => {}
            }
        }
        if let Some(on) = forwarding.filter(|_| all && of == family(self.scope.network.address())) {
            events.push(Event::Forwarding(on));
        }
        Ok(())
    }

    fn underlay(&self, index: IfIndex, events: &mut Vec<Event>) {
        if self.scope.underlay == Some(index) && events.last() != Some(&Event::Underlay) {
            events.push(Event::Underlay);
        }
    }
}

/// Says that something was lost, once for as many as it was.
pub(super) fn lost(events: &mut Vec<Event>) {
    if events.last() != Some(&Event::Lost) {
        events.push(Event::Lost);
    }
}
