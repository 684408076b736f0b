use proptest::prelude::*;

use super::*;
use crate::Rng;

fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

fn config(text: &str) -> NetworkConfig {
    text.parse().unwrap()
}

fn pool(text: &str) -> Pool {
    config(text).v4.unwrap()
}

#[test]
fn the_first_subnet_is_never_used_and_the_last_is() {
    let pool = pool(r#"{"Network":"10.5.0.0/28"}"#);
    assert_eq!(first_free(&pool, [], 100), ["10.5.0.4/30", "10.5.0.8/30", "10.5.0.12/30"].map(subnet));
}

#[test]
fn subnets_of_other_lengths_that_overlap_are_taken() {
    let pool = pool(r#"{"Network":"10.5.0.0/20"}"#);
    let taken = ["10.5.1.128/26", "10.5.4.0/22", "10.9.0.0/24", "10.5.8.0/24", "10.5.8.0/24"].map(subnet);
    let free = first_free(&pool, taken, 5);
    assert_eq!(free, ["10.5.2.0/24", "10.5.3.0/24", "10.5.9.0/24", "10.5.10.0/24", "10.5.11.0/24"].map(subnet));
    assert_eq!(first_free(&pool, [subnet("10.0.0.0/8")], 5), []);
}

#[test]
fn the_choice_is_among_the_first_hundred() {
    let config = config(r#"{"Network":"10.5.0.0/16"}"#);
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..2_000 {
        let key = choose(&config, &[], &mut Rng::new(seed)).unwrap();
        seen.insert(key.v4().unwrap().index_in(subnet("10.5.0.0/16")).unwrap());
    }
    assert_eq!((seen.len(), seen.first(), seen.last()), (100, Some(&1), Some(&100)));
}

#[test]
fn each_family_is_drawn_by_itself() {
    let config = config(r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00::/48"}"#);
    let taken = ["10.5.1.0-24&fc00:0:0:1::-64", "0.0.0.0-0&fc00:0:0:2::-64"].map(|key| key.parse().unwrap());
    let key = choose(&config, &taken, &mut Rng::new(3)).unwrap();
    assert!(config.admits(key) && taken.iter().all(|other| !key.overlaps(*other)), "{key}");
    let only_v6 = self::config(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/48"}"#);
    assert_eq!(choose(&only_v6, &taken, &mut Rng::new(3)).unwrap().v4(), None);
}

#[test]
fn an_exhausted_pool_is_named_with_its_bounds() {
    let config = config(r#"{"Network":"10.5.0.0/28"}"#);
    let taken = ["10.5.0.4-30", "10.5.0.8-30", "10.5.0.12-30"].map(|key| key.parse().unwrap());
    let error = choose(&config, &taken, &mut Rng::new(1)).unwrap_err().to_string();
    assert!(error.contains("all 3 of length 30 from 10.5.0.4/30 to 10.5.0.12/30 in 10.5.0.0/28"), "{error}");
}

#[test]
fn the_whole_ipv6_space_does_not_overflow() {
    let pool = config(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"::/0","IPv6SubnetLen":126}"#).v6.unwrap();
    assert_eq!(first_free(&pool, [subnet("::/1"), subnet("8000::/126")], 1), [subnet("8000::4/126")]);
    assert_eq!(first_free(&pool, [subnet("::/0")], 1), []);
}

proptest! {
    #[test]
    fn what_is_free_overlaps_nothing_and_nothing_free_is_left_out(
        taken in prop::collection::vec((0u32..0x1000, 22u8..=32), 0..40),
    ) {
        let pool = pool(r#"{"Network":"10.5.0.0/20","SubnetLen":26,"SubnetMin":"10.5.1.0","SubnetMax":"10.5.14.64"}"#);
        let base = 0x0a05_0000;
        let taken: Vec<Subnet> = taken.into_iter()
            .map(|(offset, len)| Subnet::containing(std::net::Ipv4Addr::from_bits(base + offset).into(), len).unwrap()).collect();
        let free = first_free(&pool, taken.iter().copied(), usize::MAX);
        let slow: Vec<Subnet> = (0..64u128).filter_map(|index| pool.at(index))
            .filter(|subnet| pool.admits(*subnet) && !taken.iter().any(|other| other.overlaps(*subnet))).collect();
        prop_assert_eq!(free, slow);
    }
}
