//! Whatever the configuration is: it is refused in one short line, or every pool in it can be leased from to its last
//! subnet, and nothing else can be had of it.
#![no_main]

use lease::{Backend, NetworkConfig, Pool, Rng, Subnet, alloc};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match text.parse::<NetworkConfig>() {
    Ok(config) => {
        assert!(config.v4.is_some() || config.v6.is_some());
        assert_eq!(text.parse::<NetworkConfig>().as_ref(), Ok(&config));
        let key = alloc::choose(&config, &[], &mut Rng::new(0)).expect("an empty pool has room");
        assert!(config.admits(key), "{key} does not fit {config:?}");
        if let Ok(next) = alloc::choose(&config, &[key], &mut Rng::new(0)) {
            assert!(config.admits(next) && !next.overlaps(key), "{next} after {key}");
        }
        config.v4.iter().chain(&config.v6).for_each(leased_from);
        if let Backend::Vxlan(vxlan) = config.backend {
            assert!(vxlan.port > 0 && vxlan.vni.get() < 1 << 24, "{vxlan:?}");
            assert!(vxlan.mtu.is_none_or(|mtu| (118..=65_535).contains(&mtu.0)), "{vxlan:?}");
        }
    }
    Err(error) => {
        let error = error.to_string();
        assert!(error.len() < 2_048 && !error.contains(|c: char| c.is_control()), "no short line: {error:?}");
    }
});

fn leased_from(pool: &Pool) {
    let Pool { network, subnet_len, min, max } = *pool;
    assert!(network.covers(min) && network.covers(max) && min <= max, "{pool:?}");
    assert!(min.len() == subnet_len && max.len() == subnet_len && subnet_len >= network.len() + 2, "{pool:?}");
    let (first, last) = (pool.index_of(min).expect("an index"), pool.index_of(max).expect("an index"));
    assert_eq!(pool.size(), last - first + 1);
    for (index, admitted) in [(first, true), (last, true), (last + 1, false)] {
        let subnet = pool.at(index);
        assert_eq!(subnet.is_some_and(|subnet| pool.admits(subnet)), admitted, "number {index} of {pool:?}");
        assert!(subnet.is_none_or(|subnet| pool.index_of(subnet) == Some(index)), "number {index} of {pool:?}");
    }
    // All but the last are taken by one block of addresses or another: the last is free, or the pool has none.
    let taken: Vec<Subnet> = alloc::first_free(pool, [max], 3);
    let free = alloc::first_free(pool, taken.iter().copied(), 2);
    assert!(free.iter().all(|subnet| pool.admits(*subnet) && !taken.contains(subnet)), "{free:?} of {pool:?}");
}
