//! Every operation against the real kernel, with `ip -j` and `bridge -j` as the oracle.

#[path = "../common/mod.rs"]
mod common;

mod batches;
mod commands;
mod device;
mod entries;
mod notifications;
