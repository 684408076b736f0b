//! Whatever the subnet file says: it is read without a panic, each line that is no use is told in one line, and what is
//! remembered from it can be written and read again.
#![no_main]

use lease::{Mtu, Subnet};
use libfuzzer_sys::fuzz_target;
use loden::subnet_env::{FamilyEnv, Remembered, SubnetEnv};

fuzz_target!(|text: &str| {
    let remembered = Remembered::parse(text);
    assert!(remembered.warnings.len() <= text.lines().count());
    for warning in &remembered.warnings {
        assert!(!warning.contains(|c: char| c.is_control()), "no line: {warning:?}");
    }
    let Remembered { network, subnet, ipv6_network, ipv6_subnet, warnings: _ } = remembered;
    for (found, ipv4) in [(network, true), (subnet, true), (ipv6_network, false), (ipv6_subnet, false)] {
        assert!(found.is_none_or(|found| found.is_ipv4() == ipv4));
    }
    assert_eq!(
        remembered.key().map(|key| (key.v4(), key.v6())),
        (subnet.is_some() || ipv6_subnet.is_some()).then_some((subnet, ipv6_subnet))
    );
    let env = SubnetEnv { v4: family(network, subnet), v6: family(ipv6_network, ipv6_subnet), mtu: Mtu(1450), ip_masq: false };
    let again = Remembered::parse(&env.render());
    assert_eq!(again.warnings, [""; 0]);
    assert_eq!((again.network, again.subnet), (env.v4.map(|v4| v4.network), env.v4.map(|v4| v4.subnet)));
    assert_eq!((again.ipv6_network, again.ipv6_subnet), (env.v6.map(|v6| v6.network), env.v6.map(|v6| v6.subnet)));
});

/// A family that can be written: a subnet needs room for the first address after its own.
fn family(network: Option<Subnet>, subnet: Option<Subnet>) -> Option<FamilyEnv> {
    let subnet = subnet.filter(|subnet| subnet.len() + 2 <= subnet.bits())?;
    Some(FamilyEnv { network: network?, subnet })
}
