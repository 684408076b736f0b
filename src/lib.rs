//! The loden agent: what it composes, says and serves.
//!
//! The program is a thin wrapper around this library, so that tests and fuzzers reach its parts. The modules here stand
//! beside the agent's loop and are fed by it with plain values: none of them knows the store or the kernel.

pub mod agent;
pub mod cli;
pub mod commands;
pub mod http;
pub mod identity;
pub mod logging;
pub mod metrics;
pub mod status;
pub mod subnet_env;
pub mod systemd;
