//! The contract suite, against every store.

mod common;

use lease::store::contract;

macro_rules! suite {
    ($kind:ident, $bench:ty, $($case:ident)+) => {
        mod $kind {
            $(#[tokio::test]
            async fn $case() {
                super::contract::$case(&<$bench>::default()).await;
            })+
        }
    };
}

macro_rules! suites {
    ($($case:ident)+) => {
        suite!(memory, super::common::Memory, $($case)+);
        suite!(etcd, super::common::Real, $($case)+);
    };
}

suites! {
    the_configuration_is_read_as_it_stands
    what_was_created_is_found
    creating_what_is_there_shows_it
    replacing_is_guarded_and_keeps_the_lease
    a_reservation_stays_one
    deleting_is_guarded_and_what_is_gone_is_gone
    a_lease_ends_unless_it_is_kept_alive
    rubbish_is_told_apart
    a_watch_tells_the_leases_and_then_each_change
    a_watch_of_the_configuration_tells_each_change
    a_watch_ends_with_its_receiver
}
