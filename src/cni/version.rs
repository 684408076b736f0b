//! CNI's versions: which we speak, and which commands each of them has.

use serde_json::json;

use super::call::Verb;
use super::failure::{Code, Failure};

/// Those that we speak, the oldest first: every release of the specification there is.
pub(super) const SUPPORTED: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", LATEST];
/// What we answer in where it is not known in what we are asked.
pub(super) const LATEST: &str = "1.1.0";
/// What a configuration is of that does not say: the field came with 0.2.0.
const OLDEST: &str = "0.1.0";

/// Whether there is such a command in a configuration's version.
///
/// # Errors
/// [`Code::IncompatibleVersion`].
pub(super) fn check(verb: Verb, version: &str) -> Result<(), Failure> {
    let wanted = if version.is_empty() { OLDEST } else { version };
    let refused = |message: String| Err(Failure::new(Code::IncompatibleVersion, message));
    let Some(place) = SUPPORTED.iter().position(|one| *one == wanted) else {
        return refused(format!("cniVersion {version:?} is none that this plugin speaks: {} are", SUPPORTED.join(", ")));
    };
    // CHECK came with 0.4.0, STATUS and GC with 1.1.0.
    let since = match verb {
        Verb::Add | Verb::Del | Verb::Version => OLDEST,
        Verb::Check => "0.4.0",
        Verb::Status | Verb::Gc => "1.1.0",
    };
    if SUPPORTED.iter().position(|one| *one == since).is_some_and(|first| place < first) {
        return refused(format!("there is no {verb} in cniVersion {wanted}: it came with {since}"));
    }
    Ok(())
}

/// What VERSION answers to who speaks this version.
#[must_use]
pub(super) fn answer(version: &str) -> String {
    let version = if version.is_empty() { LATEST } else { version };
    format!("{}\n", json!({ "cniVersion": version, "supportedVersions": SUPPORTED }))
}
