//! Every operation against the real kernel, with `ip -j` and `bridge -j` as the oracle.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod batches;
mod commands;
mod device;
mod entries;
mod notifications;
