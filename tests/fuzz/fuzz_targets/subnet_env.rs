//! Whatever the subnet file says: it is read without a panic, and what is remembered from it can be written and read again.
#![no_main]

use lease::Mtu;
use libfuzzer_sys::fuzz_target;
use loden::subnet_env::{Remembered, SubnetEnv};

fuzz_target!(|text: &str| {
    let remembered = Remembered::parse(text);
    if let Some(subnet) = remembered.subnet.filter(|subnet| subnet.len() <= 30) {
        let again = Remembered::parse(&SubnetEnv::of_ipv4(subnet, subnet, Mtu(1450), false).render());
        assert_eq!(again.subnet, Some(subnet));
    }
});
