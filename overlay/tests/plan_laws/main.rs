//! The laws of the plan, over random grounds, peers and kernels; and the reconciler's one law: whatever happens, in whatever
//! order, it ends in step.

#![expect(clippy::unwrap_used, reason = "a test")]

mod case;
mod reconciler;

use std::collections::BTreeSet;

use overlay::contract::Family;
use overlay::plan::{Blocked, Plan, plan, plan_all};
use overlay::{Deed, Kernel, Key, ModelKernel, Observed, Op, Peer};
use proptest::prelude::*;

use crate::case::{Case, SUBNETS, block_on, case, kernel, peers, seen};

/// Applies all, the plan's way: every operation has to be legal when its turn comes.
fn apply(kernel: &ModelKernel, ops: &[Op]) {
    let failures = block_on(kernel.clone().apply(ops)).unwrap();
    assert!(failures.is_empty(), "{failures:?} of {ops:#?}");
}

fn is_delete(op: &Op) -> bool {
    matches!(op, Op::DelFdb { .. } | Op::DelNeighbour { .. } | Op::DelRoute { .. } | Op::DelRule(_))
}

/// The entries of the kernel, by key.
fn entries(observed: &Observed) -> BTreeSet<Key> {
    let fdb = observed.fdb.keys().map(|mac| Key::Fdb(*mac));
    let neighbours = observed.neighbours.keys().map(|address| Key::Neighbour(*address));
    let rules = observed.rules.iter().map(|rule| Key::Rule(*rule));
    fdb.chain(neighbours).chain(rules).chain(observed.routes.keys().map(|key| Key::Route(*key))).collect()
}

/// The keys that differ but cannot be made right: peers that are out of reach where there is no tunnel.
fn without_the_out_of_reach(mut plan: Plan) -> Plan {
    plan.blocked.retain(|(_, blocked)| !matches!(blocked, Blocked::OutOfReach { .. }));
    plan
}

/// A ground, peers on it, and what has happened in its kernel.
fn scene() -> impl Strategy<Value = (Case, Vec<Peer>, Vec<Deed>)> {
    case().prop_flat_map(|case| (Just(case), peers(case), kernel(case)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applying_a_plan_reaches_what_is_desired_and_the_next_plan_is_empty((case, peers, deeds) in scene()) {
        let kernel = case.after(&deeds);
        let desired = case.desired(&peers, &kernel);
        let ops: Vec<Op> = plan_all(&desired, &seen(&kernel)).ops().cloned().collect();
        apply(&kernel, &ops);
        case.assert_in_step(&peers, &kernel);
        prop_assert_eq!(without_the_out_of_reach(plan_all(&desired, &seen(&kernel))), Plan::default());
    }

    #[test]
    fn holding_back_deletes_leaves_every_entry_where_it_was((case, peers, deeds) in scene()) {
        let kernel = case.after(&deeds);
        let desired = case.desired(&peers, &kernel);
        let plan = plan_all(&desired, &seen(&kernel));
        prop_assert!(!plan.puts.iter().any(is_delete));
        prop_assert!(plan.dels.iter().all(is_delete));
        let recreated = plan.puts.contains(&Op::DelDevice);
        let before = entries(&seen(&kernel));
        apply(&kernel, &plan.puts);
        // A change of MAC flushes neighbours, whoever makes it: those that are desired are put again.
        let flushed = plan.puts.iter().any(|op| matches!(op, Op::SetMac(_)));
        let mut lost = before.difference(&entries(&seen(&kernel))).copied().collect::<BTreeSet<_>>();
        lost.retain(|key| !(flushed && matches!(key, Key::Neighbour(_))));
        prop_assert!(recreated || lost.is_empty(), "lost {:?}", lost);
    }

    #[test]
    fn stopping_after_any_operation_and_starting_again_still_converges((case, peers, deeds) in scene(), stop in 0..60_usize) {
        let kernel = case.after(&deeds);
        let desired = case.desired(&peers, &kernel);
        let ops: Vec<Op> = plan_all(&desired, &seen(&kernel)).ops().take(stop).cloned().collect();
        apply(&kernel, &ops);
        let rest: Vec<Op> = plan_all(&desired, &seen(&kernel)).ops().cloned().collect();
        apply(&kernel, &rest);
        case.assert_in_step(&peers, &kernel);
    }

    #[test]
    fn who_comes_within_reach_or_out_of_it_keeps_a_route_all_the_while((case, peers, deeds) in scene(), n in 2..SUBNETS, near: bool) {
        let kernel = case.after(&deeds);
        apply(&kernel, &plan_all(&case.desired(&peers, &kernel), &seen(&kernel)).ops().cloned().collect::<Vec<_>>());
        let address = case.family.underlay(n);
        kernel.somebody(&if near { Deed::Near(address) } else { Deed::Far(address) });
        let routed: BTreeSet<_> = seen(&kernel).routes.keys().map(|key| key.prefix).collect();
        for op in plan_all(&case.desired(&peers, &kernel), &seen(&kernel)).ops() {
            apply(&kernel, std::slice::from_ref(op));
            let now: BTreeSet<_> = seen(&kernel).routes.keys().map(|key| key.prefix).collect();
            prop_assert!(routed.is_subset(&now), "after {}", op.on("flannel"));
        }
        case.assert_in_step(&peers, &kernel);
    }

    #[test]
    fn what_is_not_ours_stays_as_it_is((case, peers, deeds) in scene()) {
        let kernel = case.after(&deeds);
        let desired = case.desired(&peers, &kernel);
        let mut before = kernel.truth().foreign;
        let plan = plan_all(&desired, &seen(&kernel));
        apply(&kernel, &plan.ops().cloned().collect::<Vec<_>>());
        before.retain(|key, to| !case.is_flannelds(&peers, *key, *to));
        prop_assert_eq!(kernel.truth().foreign, before);
    }

    #[test]
    fn the_order_of_the_input_does_not_matter((case, peers, deeds) in scene(), seed in any::<u64>()) {
        let mut shuffled = peers.clone();
        let mut rng = lease::Rng::new(seed);
        for index in (1..shuffled.len()).rev() {
            shuffled.swap(index, rng.below(index + 1));
        }
        let kernel = case.after(&deeds);
        let truth = seen(&kernel);
        prop_assert_eq!(plan_all(&case.desired(&peers, &kernel), &truth), plan_all(&case.desired(&shuffled, &kernel), &truth));
    }

    #[test]
    fn a_plan_of_some_keys_touches_those_alone((case, peers, deeds) in scene(), n in 2..SUBNETS) {
        let (kernel, family) = (case.after(&deeds), case.family);
        let keys = BTreeSet::from([Key::Fdb(family.mac(n)), Key::Neighbour(family.subnet(n).address()), Key::Route(family.route(n).0)]);
        let plan = plan(&case.desired(&peers, &kernel), &seen(&kernel), keys.iter().copied());
        // But for the route to an IPv6 next hop, which is put and deleted along with the one that needs it.
        let stone = |key| family == Family::V6 && matches!(key, Key::Route(key) if key.prefix.len() == family.full_mask());
        prop_assert!(plan.ops().all(|op| keys.contains(&op.key()) || stone(op.key())));
    }
}
