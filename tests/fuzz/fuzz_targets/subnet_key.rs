//! Whatever the key is: it is refused, or it names the same subnets again when written.
#![no_main]

use lease::LeaseKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(key) = text.parse::<LeaseKey>() {
        assert_eq!(key.to_string().parse::<LeaseKey>(), Ok(key));
        assert!(key.overlaps(key));
    }
});
