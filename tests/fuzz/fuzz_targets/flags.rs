//! Whatever the words and the variables are: the command line is read without a panic, and what is wrong with it is one line.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let words: Vec<OsString> = bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    let variable = words.last().cloned();
    for environment in [None, variable] {
        if let Err(error) = loden::cli::parse(words.clone(), |_| environment.clone()) {
            assert!(!error.to_string().contains('\n'), "more than a line: {error}");
        }
    }
});
