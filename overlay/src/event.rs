//! The kernel's notifications, as far as they concern the overlay.

use std::net::IpAddr;
use std::sync::Arc;

use lease::MacAddr;

use crate::device::{Device, IfIndex};
use crate::entry::{FdbTo, RouteKey, RouteTo, RuleKey};

/// What the kernel says has changed, whoever changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The family's forwarding was switched on or off.
    Forwarding(bool),
    /// The device under the VTEP's name is there now, or was changed.
    Device(Device),
    /// Whether the device's packets are handed on by kernel threads.
    Threaded(bool),
    /// Who did what the next event tells, where the kernel says so: its name and process id.
    By(Arc<str>),
    /// The device is gone, and all that hung on it. (The kernel tells nothing of its IPv4 routes.)
    DeviceGone,
    /// An address of the device came or went.
    Address {
        /// The address.
        address: IpAddr,
        /// Its prefix length in bits.
        len: u8,
        /// Whether it is there now.
        present: bool,
    },
    /// A neighbour entry of the device was put; none when it is gone or no longer permanent.
    Neighbour {
        /// Of this address.
        address: IpAddr,
        /// Its MAC now.
        mac: Option<MacAddr>,
    },
    /// An FDB entry of the device was put; none when it is gone or no longer permanent.
    Fdb {
        /// Of this MAC.
        mac: MacAddr,
        /// Where it leads now.
        to: Option<FdbTo>,
    },
    /// A rule of ours came or went.
    Rule {
        /// This one.
        key: RuleKey,
        /// Whether it is there now.
        present: bool,
    },
    /// A route of ours was put; none when it is gone.
    Route {
        /// With this key.
        key: RouteKey,
        /// Where it leads now.
        to: Option<RouteTo>,
    },
    /// Another's route for a part of the overlay network was put; none when it is gone.
    ForeignRoute {
        /// With this key.
        key: RouteKey,
        /// Where it leads now.
        to: Option<RouteTo>,
    },
    /// Another interface went down or away, and the routes out of it with it: the kernel tells nothing of IPv4 ones.
    Elsewhere(IfIndex),
    /// The underlay's interface changed (its state, MTU or addresses), or another may be the one to take: the default route moved, or
    /// an interface came after the underlay's had gone.
    Underlay,
    /// How other hosts are reached may have changed: a route, a rule, an address or an interface that is not ours.
    Ways,
    /// Notifications were lost, or may have been: only a dump tells the truth now.
    Lost,
}
