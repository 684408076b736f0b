//! The kernel's news: what they change in the mirror, and which keys they say to look at again.

use std::time::Instant;

use super::{Cause, Reconciler, look};
use crate::device::IfIndex;
use crate::entry::{Aspect, Key, Matter, Way};
use crate::event::Event;
use crate::kernel::Kernel;
use crate::plan;

impl<K: Kernel> Reconciler<K> {
    /// An interface that is gone stands in nobody's way any more: neither with its routes, nor as another VXLAN device. Our direct routes out
    /// of it are gone, too.
    pub(super) fn way_is_free(&mut self, index: IfIndex) {
        let Self { observed, dirty, .. } = self;
        for (key, _) in observed.foreign.iter().chain(&observed.routes).filter(|(_, to)| to.way == Way::Link(index)) {
            look(dirty, Key::Route(*key), Cause::Wish);
        }
        self.lose_link(index);
        if self.retries.is_refused(Key::Device) {
            self.retries.forgive();
            look(&mut self.dirty, Key::Device, Cause::Wish);
        }
    }

    pub(super) fn take_in(&mut self, events: &[Event]) {
        let mut by = None;
        for event in events {
            let index_before = self.observed.device.as_ref().map(|device| device.index);
            let settled_before = self.is_settled();
            if let Event::Elsewhere(index) = event {
                self.way_is_free(*index);
            }
            if let Some(key) = self.observed.fold(event) {
                look(&mut self.dirty, key, Cause::Kernel);
                if let Some(who) = by.take() {
                    self.retries.suspect(key, who);
                }
            }
            match event {
                Event::By(who) => by = Some(who),
                Event::Lost => {
                    self.lost += 1;
                    self.dump_wanted = true;
                }
                Event::Underlay => self.underlay_changed = true,
                Event::Ways => self.ways_changed(),
                // What hung on it went with it, and the kernel may have told of that first. The repair is the device's alone.
                Event::DeviceGone => {
                    self.retries.forgive();
                    self.compare(Cause::Wish);
                    self.dirty.insert(Key::Device, Cause::Kernel);
                }
                Event::Device(device) => {
                    let again = !settled_before || Some(device.index) != index_before;
                    self.settled |= again && self.is_settled();
                    self.claim_name();
                }
                // With its last IPv4 address it has lost neighbours and routes.
                Event::Address { present: false, .. } => self.settled |= self.observed.lacks_ipv4(),
                Event::Address { present: true, .. }
                | Event::Elsewhere(_)
                | Event::Fdb { .. }
                | Event::ForeignRoute { .. }
                | Event::Forwarding(_)
                | Event::Neighbour { .. }
                | Event::Route { .. }
                | Event::Rule { .. }
                | Event::Threaded(_) => {}
            }
            if !matches!(event, Event::By(_)) {
                by = None;
            }
        }
    }

    /// The device has come back from where it lost neighbours and routes. That is one repair, not one for each of them; and one that has
    /// to wait when somebody keeps doing it.
    pub(super) fn put_back_entries(&mut self, now: Instant) {
        let entries = Matter(Key::Device, Aspect::Entries);
        if self.is_settled() && self.retries.may_repair(entries, now) {
            self.retries.repaired(entries, now);
            self.retries.forgive();
            self.compare(Cause::Wish);
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.desired.vtep().is_some_and(|spec| plan::is_settled(spec, &self.observed))
    }

    pub(super) fn claim_name(&mut self) {
        if self.is_settled() {
            self.desired.vtep_stands();
        }
    }
}
