//! The reconciler's law: whatever happens, in whatever order, it ends in step.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use lease::{BackendType, Entry, Event, Expiry, LeaseKey, LeaseRecord, Revision, VtepData};
use overlay::contract::Family;
use overlay::{Deed, Direct, Guard, Key, Local, ModelKernel, Peer, Reconciler, State};
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

fn lease_of(case: Case, n: u32, mac: u32) -> Entry {
    let Case { family, direct, .. } = case;
    let (public_ip, public_ipv6) = match family.underlay(mac) {
        IpAddr::V4(address) => (Some(address), None),
        IpAddr::V6(address) => (None, Some(address)),
    };
    let vtep = Some(VtepData { vni: family.spec().vni, mac: family.mac(mac) }).filter(|_| direct != Direct::Always);
    let (vtep, vtep_v6) = family.pick((vtep, None), (None, vtep));
    let backend = if direct == Direct::Always { BackendType::HostGw } else { BackendType::Vxlan };
    let record = LeaseRecord { public_ip, public_ipv6, backend, vtep, vtep_v6, owner: None, boot: None };
    let revision = Revision(n.into());
    Entry { key: key_of(family, n), record: Ok(record), created: revision, modified: revision, expiry: Expiry::Lease(1) }
}

fn key_of(family: Family, n: u32) -> LeaseKey {
    let subnet = Some(family.subnet(n));
    family.pick(LeaseKey::new(subnet, None), LeaseKey::new(None, subnet)).unwrap()
}

fn local(case: Case) -> Local {
    let Case { family, direct, .. } = case;
    let (spec, subnet) = (family.spec(), family.subnet(1));
    let vtep = (direct != Direct::Always).then_some(VtepData { vni: spec.vni, mac: spec.mac });
    let addresses = vec![spec.local];
    Local { key: key_of(family, 1), subnet, network: spec.network, subnet_len: subnet.len(), vtep, addresses }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_reconciler_ends_in_step(
        (case, happenings, before) in
            case().prop_flat_map(|case| (Just(case), proptest::collection::vec(happening(case), 0..60), kernel(case)))
    ) {
        let (kernel, family) = (case.after(&before), case.family);
        let mut now = Instant::now();
        let mut peers = BTreeMap::new();
        let outcome = block_on(async {
            let mut reconciler = Reconciler::new(kernel.clone(), case.ground(), local(case), Guard::DEFAULT, now).await.unwrap();
            reconciler.leases(&[Event::Init, Event::InitDone(Revision(1))], now);
            for happening in &happenings {
                match happening {
                    Happening::Joins(n, mac) => {
                        peers.insert(*n, *mac);
                        reconciler.leases(&[Event::Apply(lease_of(case, *n, *mac))], now);
                    }
                    Happening::Leaves(n) => {
                        peers.remove(n);
                        reconciler.leases(&[Event::Delete(key_of(family, *n))], now);
                    }
                    Happening::Snapshot(named) => {
                        peers = named.iter().map(|n| (*n, *n)).collect();
                        let entries = peers.iter().map(|(n, mac)| Event::InitApply(lease_of(case, *n, *mac)));
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
        if case.direct == Direct::Always && !reached {
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
