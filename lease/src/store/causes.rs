//! The text of an error with what lies behind it.

use std::error::Error;

/// The text and what caused it, down to the ground: "connection refused" is what a person needs. Each is told once, since
/// many libraries repeat the cause in their own text.
pub(super) fn with_causes(text: String, cause: Option<&(dyn Error + 'static)>) -> String {
    let (mut told, mut next) = (text, cause);
    while let Some(error) = next {
        let cause = error.to_string();
        if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
        next = error.source();
    }
    told
}
