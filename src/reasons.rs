//! An error with all its reasons in one line: what `{:#}` of anyhow prints, of an error that is only borrowed.

use std::error::Error;
use std::iter::successors;

/// The error's words, and those of each reason behind it, with colons between.
#[must_use]
pub fn line(error: &dyn Error) -> String {
    let words: Vec<String> = successors(Some(error), |error: &&dyn Error| (*error).source()).map(ToString::to_string).collect();
    words.join(": ")
}
