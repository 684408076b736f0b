//! Whatever the words and the variables are: the command line is read without a panic; what is wrong with it is
//! one line, and what is right with it does not show a password.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use libfuzzer_sys::fuzz_target;
use loden::cli::{Invocation, PasswordSource, parse};

// Words with a zero byte between; those of the form `FLANNELD_…=…` are the environment.
fuzz_target!(|bytes: &[u8]| {
    let (mut words, mut variables) = (Vec::new(), Vec::new());
    for word in bytes.split(|byte| *byte == 0) {
        let equals = word.iter().position(|byte| *byte == b'=');
        match equals.filter(|_| word.starts_with(b"FLANNELD_")) {
            Some(at) => variables.push((word[..at].to_vec(), word[at + 1..].to_vec())),
            None => words.push(OsString::from_vec(word.to_vec())),
        }
    }
    let environment = |name: &str| {
        let found = variables.iter().find(|(variable, _)| variable == name.as_bytes());
        found.map(|(_, value)| OsString::from_vec(value.clone()))
    };
    match parse(words, environment) {
        Ok(Invocation::Agent(options) | Invocation::Plan(options) | Invocation::Release(options) | Invocation::Cleanup(options, _)) => {
            let password = options.store.etcd().and_then(|etcd| etcd.credentials.as_ref()).map(|credentials| &credentials.password);
            if let Some(PasswordSource::Given(_)) = password {
                assert!(format!("{options:?}").contains("Given((secret))"), "the password is shown");
            }
            assert!(options.store.etcd().is_none_or(|etcd| !etcd.endpoints.is_empty()));
            assert!((60..=1_439 * 60).contains(&options.renew_margin.as_secs()));
        }
        Ok(
            Invocation::Status(_)
            | Invocation::DockerOpts(_)
            | Invocation::InstallCni(_)
            | Invocation::Cni
            | Invocation::Version
            | Invocation::Help(_),
        ) => {}
        Err(error) => {
            let error = error.to_string();
            assert!(!error.contains(|c: char| c.is_control()) && !error.is_empty(), "no line: {error:?}");
        }
    }
});
