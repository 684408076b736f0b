//! The contract suite against the model and the real kernel, and made-up stories that have to end alike in both.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use overlay::contract::{Family, World};
use overlay::{Deed, ELSEWHERE, ELSEWHERE_INDEX, Kernel, Kind, ModelKernel, Netlink, Observed, Op, RouteKey, RouteTo, RuleKey, TABLE_MAIN};
use proptest::prelude::*;

use crate::common::{in_namespace, sh};

struct Model(ModelKernel);

impl World for Model {
    type Kernel = ModelKernel;

    fn kernel(&mut self) -> &mut ModelKernel {
        &mut self.0
    }

    fn somebody(&mut self, deed: &Deed) {
        self.0.somebody(deed);
    }
}

struct Real(Netlink, Family);

impl Real {
    fn new(family: Family) -> Self {
        sh(&format!("ip link add {ELSEWHERE} index {ELSEWHERE_INDEX} type bridge && ip link set {ELSEWHERE} up"));
        Self(Netlink::open(family.scope()).unwrap(), family)
    }
}

impl World for Real {
    type Kernel = Netlink;

    fn kernel(&mut self) -> &mut Netlink {
        &mut self.0
    }

    fn somebody(&mut self, deed: &Deed) {
        // What cannot be done is not done, as in the model.
        sh(&format!("{} 2>&1 || true", deed.on(self.1.name())));
    }
}

macro_rules! laws {
    ($($law:ident,)*) => {
        mod model {
            use super::*;
            $(#[test] fn $law() {
                for family in Family::BOTH {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(overlay::contract::$law(&mut Model(ModelKernel::new(family.scope())), family));
                }
            })*
        }

        mod real {
            use super::*;
            $(#[test] fn $law() {
                for family in Family::BOTH {
                    in_namespace(|| async move { overlay::contract::$law(&mut Real::new(family), family).await });
                }
            })*
        }
    };
}

overlay::for_each_kernel_law!(laws);

/// One step of a story: we apply operations, or somebody does something.
#[derive(Debug, Clone)]
enum Step {
    Ours(Vec<Op>),
    Theirs(Deed),
}

/// Few peers, so that the steps meet.
fn op(family: Family) -> impl Strategy<Value = Op> {
    let n = 2..5_u32;
    let v6 = family == Family::V6;
    let to = move |n| family.route(n).1;
    prop_oneof![
        1 => Just(Op::DelDevice),
        1 => Just(Op::EnableForwarding { ipv6: v6 }),
        1 => n.clone().prop_map(move |n| Op::SetLocal(family.underlay(n))),
        1 => any::<bool>().prop_map(Op::SetLearning),
        1 => n.clone().prop_map(move |n| Op::SetMac(family.mac(n))),
        1 => prop_oneof![Just(1400), Just(67), Just(65536)].prop_map(|mtu| Op::SetMtu(lease::Mtu(mtu))),
        1 => Just(Op::DisableAcceptRa),
        2 => (1..4_u32).prop_map(move |n| Op::PutAddress(family.subnet(n).address())),
        1 => (1..4_u32).prop_map(move |n| Op::DelAddress { address: family.subnet(n).address(), len: family.full_mask() }),
        4 => Just(Op::SetUp),
        3 => (n.clone(), n.clone()).prop_map(move |(n, m)| Op::PutFdb { mac: family.mac(n), dst: family.underlay(m) }),
        2 => n.clone().prop_map(move |n| Op::DelFdb { mac: family.mac(n) }),
        3 => (n.clone(), n.clone())
            .prop_map(move |(n, m)| Op::PutNeighbour { address: family.subnet(n).address(), mac: family.mac(m) }),
        2 => n.clone().prop_map(move |n| Op::DelNeighbour { address: family.subnet(n).address() }),
        6 => (n.clone(), n.clone(), 76..78_u8, any::<bool>()).prop_map(move |(n, m, protocol, replace)| Op::PutRoute {
            key: RouteKey { metric: 7, ..family.route(n).0 },
            to: RouteTo { protocol, ..to(m) },
            replace,
        }),
        3 => (n.clone(), n.clone(), any::<bool>(), any::<bool>()).prop_map(move |(n, m, main, replace)| Op::PutRoute {
            key: RouteKey { metric: 7, table: if main { TABLE_MAIN } else { 300 }, ..family.route(n).0 },
            to: family.direct(m),
            replace,
        }),
        1 => (n.clone(), n.clone())
            .prop_map(move |(n, m)| Op::DelRoute { key: RouteKey { metric: 7, ..family.route(n).0 }, to: family.direct(m) }),
        1 => any::<bool>().prop_map(move |replace| Op::PutRoute { key: family.blackhole().0, to: family.blackhole().1, replace }),
        1 => Just(Op::DelRoute { key: family.blackhole().0, to: family.blackhole().1 }),
        1 => (0..3_u32, any::<bool>()).prop_map(move |(priority, put)| {
            let rule = RuleKey { priority: 100 + priority, to: family.network(), table: 300, at_least: None };
            if put { Op::PutRule(rule) } else { Op::DelRule(rule) }
        }),
        2 => (n, prop_oneof![Just(0), Just(7)], prop_oneof![Just(0), 76..78_u8]).prop_map(move |(n, metric, protocol)| Op::DelRoute {
            key: RouteKey { metric, ..family.route(n).0 },
            to: RouteTo { protocol, ..to(n) },
        }),
    ]
}

fn step(family: Family) -> impl Strategy<Value = Step> {
    let key = (2..5_u32).prop_map(move |n| RouteKey { metric: 7, ..family.route(n).0 });
    // A device without a link-local address, which the model does not make.
    let create = vec![Op::CreateDevice(Box::new(family.spec())), Op::DisableLinkLocal];
    prop_oneof![
        2 => Just(Step::Ours(create)),
        4 => prop::collection::vec(op(family), 1..8).prop_map(Step::Ours),
        2 => op(family).prop_map(|op| Step::Theirs(Deed::Op(op))),
        1 => Just(Step::Theirs(Deed::SetDown)),
        1 => key.clone().prop_map(|key| Step::Theirs(Deed::PutForeign(key))),
        1 => key.prop_map(|key| Step::Theirs(Deed::DelForeign(key))),
        3 => (2..5_u32).prop_map(move |n| Step::Theirs(Deed::Near(family.underlay(n)))),
        1 => (2..5_u32).prop_map(move |n| Step::Theirs(Deed::Far(family.underlay(n)))),
        1 => (2..5_u32, 2..5_u32)
            .prop_map(move |(n, m)| Step::Theirs(Deed::PutFlannelds { prefix: family.subnet(n), via: family.underlay(m) })),
        1 => (2..5_u32).prop_map(move |n| Step::Theirs(Deed::AgeNeighbour(family.subnet(n).address()))),
        1 => Just(Step::Theirs(Deed::FlushRoutes { ipv6: family == Family::V6 })),
    ]
}

/// What the steps lead to: the failures of each, and what is there after it, by events and by dump.
async fn tell(world: &mut impl World, steps: &[Step]) -> Vec<(Vec<(usize, i32)>, Observed)> {
    let mut observed = world.kernel().dump().await.unwrap();
    let mut story = Vec::new();
    for step in steps {
        let failures = match step {
            Step::Ours(ops) => world.kernel().apply(ops).await.unwrap(),
            Step::Theirs(deed) => {
                world.somebody(deed);
                Vec::new()
            }
        };
        overlay::contract::follow(world.kernel(), &mut observed).await;
        let mut dumped = world.kernel().dump().await.unwrap();
        // What somebody else does is not always told, or late: settings of a device that is down, `accept_ra`, and
        // IPv6 addresses.
        if matches!(step, Step::Theirs(_)) {
            observed.device.clone_from(&dumped.device);
            observed.addresses.clone_from(&dumped.addresses);
        }
        assert_eq!(observed, dumped, "after {step:?}");
        if let Some(device) = &mut dumped.device {
            device.index = overlay::IfIndex(0);
            assert!(matches!(device.kind, Kind::Vxlan(_)));
        }
        story.push((failures.iter().map(|failure| (failure.index, failure.errno)).collect(), dumped));
    }
    story
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn stories_end_alike_in_the_model_and_in_the_real_kernel(
        (family, steps) in prop_oneof![Just(Family::V4), Just(Family::V6)]
            .prop_flat_map(|family| (Just(family), prop::collection::vec(step(family), 1..20)))
    ) {
        let steps: Vec<_> = [vec![Step::Ours(family.create())], steps].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let modelled = runtime.block_on(tell(&mut Model(ModelKernel::new(family.scope())), &steps));
        in_namespace(|| async {
            let real = tell(&mut Real::new(family), &steps).await;
            for ((step, modelled), real) in steps.iter().zip(&modelled).zip(&real) {
                assert_eq!(modelled, real, "after {step:?}");
            }
        });
    }
}
