//! Whatever the two keys are: each is refused in one short line, or it names the same subnets again when written, and
//! nobody else's; and what they have in common does not depend on who asks.
#![no_main]

use lease::{LeaseKey, Subnet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (first, second) = text.split_once('\n').unwrap_or((text, text));
    let keys: Vec<LeaseKey> = [first, second].into_iter().filter_map(read).collect();
    let [a, b] = keys[..] else { return };
    assert_eq!(a.overlaps(b), b.overlaps(a));
    assert_eq!(a.overlaps(b), common(a.v4(), b.v4()) || common(a.v6(), b.v6()), "{a} and {b}");
});

fn read(text: &str) -> Option<LeaseKey> {
    let key = match text.parse::<LeaseKey>() {
        Ok(key) => key,
        Err(error) => {
            let error = error.to_string();
            assert!(error.len() < 2_048 && !error.contains('\n'), "no short line: {error}");
            return None;
        }
    };
    assert_eq!(key.to_string().parse::<LeaseKey>(), Ok(key));
    assert_eq!(LeaseKey::new(key.v4(), key.v6()), Some(key));
    assert!(key.overlaps(key));
    // IPv4 has one spelling: two keys in the store are never one subnet.
    if key.v6().is_none() {
        assert_eq!(key.to_string(), text);
    }
    Some(key)
}

/// Whether two subnets share an address: the first address of one of them lies in the other.
fn common(a: Option<Subnet>, b: Option<Subnet>) -> bool {
    a.zip(b).is_some_and(|(a, b)| a.contains(b.address()) || b.contains(a.address()))
}
