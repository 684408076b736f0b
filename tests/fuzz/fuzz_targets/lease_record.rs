//! Whatever the value is: it is refused, or it says the same again when written.
#![no_main]

use lease::LeaseRecord;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &[u8]| {
    if let Ok(record) = LeaseRecord::decode(value) {
        assert_eq!(LeaseRecord::decode(record.encode().as_bytes()), Ok(record));
    }
});
