//! The contract suite, against every store.

mod common;

macro_rules! suite {
    ($kind:ident, $bench:expr, $($case:ident)+) => {
        mod $kind {
            #[allow(unused_imports, reason = "each kind of store is one of them")]
            use crate::common::{AnyNodes, Keyed, Memory, Real};

            $(#[tokio::test]
            async fn $case() {
                lease::store::contract::$case(&$bench).await;
            })+
        }
    };
}

macro_rules! suites {
    ($($case:ident)+) => {
        suite!(memory, Keyed::<Memory>::default(), $($case)+);
        suite!(etcd, Keyed::<Real>::default(), $($case)+);
        suite!(kubernetes, AnyNodes::fresh().await, $($case)+);
    };
}

suites! {
    the_configuration_is_read_as_it_stands
    what_was_created_is_found
    a_host_knows_what_it_is_assigned
    creating_what_is_there_shows_it
    replacing_is_guarded_and_keeps_the_lease
    a_reservation_stays_one
    deleting_is_guarded_and_what_is_gone_is_gone
    rubbish_is_told_apart
    a_watch_tells_the_leases_and_then_each_change
    a_watch_tells_of_damage_and_of_its_repair
    a_watch_of_the_configuration_tells_each_change
    a_watch_ends_with_its_receiver
}

/// Of the stores whose leases end.
mod expiry {
    suite!(memory, Keyed::<Memory>::default(), a_lease_ends_unless_it_is_kept_alive);
    suite!(etcd, Keyed::<Real>::default(), a_lease_ends_unless_it_is_kept_alive);
}
