//! Whatever is sent to the status socket: only the one request gets a report, anything else a short line of text. And
//! whatever is sent back in a report's place, `loden status` makes text of it or says that it is none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loden::status::{Report, fuzz_request, is_ready, render};

/// The longest line that the server reads.
const LONGEST: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let refused = runtime.block_on(fuzz_request(bytes));
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let asked = line.trim_ascii() == b"status" && line.len() < bytes.len().min(LONGEST);
    assert_eq!(refused.is_none(), asked, "{refused:?}");
    if let Some(refused) = refused {
        assert!(refused.len() < 1_024 && !refused.contains('\n'), "no short line: {refused:?}");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let ready = is_ready(text);
    let Ok(report) = serde_json::from_str::<Report>(text) else { return };
    assert_eq!(report.ready, ready);
    assert!(!render(&report).is_empty());
    let again = serde_json::to_string(&report).expect("JSON");
    assert_eq!(serde_json::from_str::<Report>(&again).expect("a report"), report);
});
