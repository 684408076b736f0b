//! The reconciler's law: whatever happens, in whatever order, it ends in step.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use lease::{Event, Revision};
use overlay::{Deed, Direct, Guard, Key, ModelKernel, Peer, Reconciler, State};
use proptest::prelude::*;

use crate::case::{Case, SUBNETS, block_on, case, deed, kernel};

/// What can happen to a reconciler.
#[derive(Debug, Clone)]
enum Happening {
    Joins(u32, u32),
    Leaves(u32),
    Deed(Deed),
    EventsAreLost,
    KernelRefuses(u32),
    Steps(u8),
    Snapshot(Vec<u32>),
}

fn happening(case: Case) -> impl Strategy<Value = Happening> {
    let n = 2..SUBNETS;
    prop_oneof![
        4 => (n.clone(), n.clone()).prop_map(|(n, mac)| Happening::Joins(n, mac)),
        2 => n.clone().prop_map(Happening::Leaves),
        6 => deed(case).prop_map(Happening::Deed),
        1 => Just(Happening::EventsAreLost),
        1 => n.clone().prop_map(Happening::KernelRefuses),
        3 => (0..4_u8).prop_map(Happening::Steps),
        1 => proptest::collection::vec(n, 0..6).prop_map(Happening::Snapshot),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_reconciler_ends_in_step(
        (case, happenings, before) in
            case().prop_flat_map(|case| (Just(case), proptest::collection::vec(happening(case), 0..60), kernel(case)))
    ) {
        let (kernel, family, host_gw) = (case.after(&before), case.family, case.direct == Direct::Always);
        let mut now = Instant::now();
        let mut peers = BTreeMap::new();
        let outcome = block_on(async {
            let mut reconciler = Reconciler::new(kernel.clone(), case.ground(), family.local(host_gw), Guard::DEFAULT, now).await.unwrap();
            reconciler.leases(&[Event::Init, Event::InitDone(Revision(1))], now);
            for happening in &happenings {
                match happening {
                    Happening::Joins(n, mac) => {
                        peers.insert(*n, *mac);
                        reconciler.leases(&[Event::Apply(family.lease(*n, *mac, host_gw))], now);
                    }
                    Happening::Leaves(n) => {
                        peers.remove(n);
                        reconciler.leases(&[Event::Delete(family.lease_key(*n))], now);
                    }
                    Happening::Snapshot(named) => {
                        peers = named.iter().map(|n| (*n, *n)).collect();
                        let entries = peers.iter().map(|(n, mac)| Event::InitApply(family.lease(*n, *mac, host_gw)));
                        let events: Vec<Event> = [Event::Init].into_iter().chain(entries).chain([Event::InitDone(Revision(2))]).collect();
                        reconciler.leases(&events, now);
                    }
                    Happening::Deed(deed) => kernel.somebody(deed),
                    Happening::EventsAreLost => kernel.lose_events(),
                    Happening::KernelRefuses(n) => kernel.fail_next(Key::Fdb(family.mac(*n)), 12),
                    Happening::Steps(count) => {
                        for _ in 0..*count {
                            hear(&mut reconciler);
                            reconciler.step(now).await.unwrap();
                        }
                    }
                }
            }
            // Long enough for every backoff, hold and fight; step by step, as it would be woken.
            for _ in 0..200 {
                hear(&mut reconciler);
                while reconciler.step(now).await.unwrap().more {}
                now += Duration::from_secs(10);
            }
            let want: Vec<Peer> = reconciler.desired().peers().collect();
            let reached = want.iter().all(|peer| reconciler.desired().near(peer.dst).is_some());
            (reconciler.state(), want, reached)
        });
        let (state, want, reached) = outcome;
        if host_gw && !reached {
            prop_assert!(matches!(&state, State::Troubled(_, reason) if reason.contains("is not on a link of this host")), "{}", state);
        } else {
            prop_assert_eq!(state, State::InStep);
        }
        case.assert_in_step(&want, &kernel);
        // Whoever conflicts with nobody is a peer.
        for (n, mac) in &peers {
            let alone = peers.values().filter(|other| *other == mac).count() == 1;
            prop_assert!(!alone || want.contains(&case.peer(*n, *mac)), "{} is missing from {:?}", n, want);
        }
        prop_assert!(want.len() <= peers.len());
    }
}

/// Takes in what the kernel has to say, if anything.
fn hear(reconciler: &mut Reconciler<ModelKernel>) {
    let _ = reconciler.listen().now_or_never();
}
