//! Whatever bytes nf_tables were to send, as notifications or in a dump, they are decoded, or taken as a reason to look again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use overlay::fuzz_filter_datagram;

fuzz_target!(|bytes: &[u8]| {
    fuzz_filter_datagram(bytes);
});
