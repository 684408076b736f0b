//! The CNI plugin, whole: called as a runtime calls it, with the standard plugins behind it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod rendering;
