//! Whatever a Node says of itself: it is no lease, or one; what cannot be read is told in one short line, and what can says the
//! same again when it is written.
#![no_main]

use lease::store::kube::{annotated, reread};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match annotated("flannel.alpha.coreos.com", bytes) {
        Ok(Some(entry)) => match &entry.record {
            Ok(record) => assert_eq!(reread("flannel.alpha.coreos.com", record).as_ref(), Ok(record)),
            Err(error) => short_line(&error.to_string()),
        },
        Ok(None) => (),
        Err(why) => short_line(&why),
    }
});

fn short_line(text: &str) {
    assert!(text.len() < 4_096, "no short line: {text:?}");
}
