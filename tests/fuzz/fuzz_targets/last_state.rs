//! Whatever the file of the last state says: it is refused with a line's number, or read, and then the same again when written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loden::last_state::{LastState, ReadError};

fuzz_target!(|text: &[u8]| {
    match LastState::parse(text) {
        Ok((state, peers)) => {
            let mut out = Vec::new();
            state.write(&mut out, [Ok(peers.clone())]).expect("memory takes all");
            let (state_again, peers_again) = LastState::parse(out.as_slice()).expect("what was written is read");
            assert_eq!((state_again, peers_again), (state, peers));
        }
        Err(ReadError::Line { line, matter }) => {
            assert!((1..=text.len() + 1).contains(&line));
            // Some excerpts of 128 characters, each of which may be escaped, whatever the length of the line.
            assert!(matter.chars().count() < 4_000 && !matter.contains('\n'), "no short line: {matter:?}");
        }
        Err(ReadError::Io(_)) => assert!(std::str::from_utf8(text).is_err()),
    }
});
