//! What every [`Kernel`] keeps to: one suite, run against the model and the real one.
//!
//! A law is a function over a [`World`]; it panics where it is broken. [`for_each_kernel_law`](crate::for_each_kernel_law)
//! lists them, so that none is run against one kernel only.

mod family;
mod laws;
mod leases;

pub use family::Family;
pub use laws::*;

use super::deed::Deed;
use super::{Event, Kernel};
use crate::{Observed, Op};

/// A network, a kernel that sees it, and somebody else who is in it, too.
pub trait World {
    /// The kernel.
    type Kernel: Kernel;

    /// The kernel, which sees the scope of the world's family.
    fn kernel(&mut self) -> &mut Self::Kernel;

    /// Somebody else does something; it is done when this returns.
    fn somebody(&mut self, deed: &Deed);
}

/// Calls a macro with the names of all laws.
#[macro_export]
macro_rules! for_each_kernel_law {
    ($run:ident) => {
        $run! {
            a_dump_and_the_events_behind_it_end_at_the_truth,
            what_is_there_already_is_put_in_silence,
            what_is_gone_is_deleted_with_success,
            a_failure_is_its_own_operations_alone,
            a_new_route_is_refused_where_one_is,
            deleting_a_route_of_any_metric_takes_none_of_another_protocol_along,
            a_route_needs_the_device_up,
            a_gateway_is_no_address_of_ours,
            down_and_up_loses_routes_and_neighbours_and_keeps_the_fdb,
            a_changed_mac_flushes_the_neighbours,
            threads_that_hand_on_packets_are_told_of,
            a_deleted_device_takes_everything_along,
            nothing_hangs_on_a_device_that_is_not_there,
            a_second_device_is_refused,
            somebodys_route_is_seen_and_never_deleted,
            the_last_ipv4_address_takes_the_ipv4_routes_along,
            who_is_reached_without_a_gateway_is_near,
            a_direct_route_takes_the_place_of_the_tunnels_and_gives_it_back,
            a_direct_route_outlives_the_device_and_needs_its_next_hop_on_a_link,
            flannelds_route_is_foreign_and_deleted_alone,
            a_blackhole_is_put_seen_and_deleted,
            rules_are_put_seen_and_deleted_each_by_itself,
            the_table_that_a_rule_of_ours_leads_to_is_seen,
        }
    };
}

/// Applies operations of which none may fail.
///
/// # Panics
/// When one fails.
pub async fn apply(kernel: &mut impl Kernel, ops: &[Op]) {
    assert_eq!(kernel.apply(ops).await.unwrap(), [], "of {ops:?}");
}

/// What the kernel has told and nobody has read.
///
/// # Panics
/// When it cannot be read.
pub fn events(kernel: &mut impl Kernel) -> Vec<Event> {
    let mut events = Vec::new();
    kernel.take_events(&mut events).unwrap();
    events
}

/// Follows the events; dumps where they say that something was lost. Returns what was told.
///
/// # Panics
/// When the kernel cannot be read.
pub async fn follow(kernel: &mut impl Kernel, observed: &mut Observed) -> Vec<Event> {
    let events = events(kernel);
    for event in &events {
        observed.fold(event);
    }
    if events.contains(&Event::Lost) {
        *observed = kernel.dump().await.unwrap();
    }
    events
}
