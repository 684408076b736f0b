//! The loden agent: what it composes, says and serves.
//!
//! The program is a thin wrapper around this library, so that tests and fuzzers reach its parts. Only [`agent`]
//! and [`commands`] know the store and the kernel; the other modules are fed with plain values.

pub mod agent;
pub mod cli;
pub mod cni;
pub mod commands;
pub mod conceal;
pub mod conflicts;
pub mod docker_opts;
pub mod fields;
pub mod file;
pub mod hints;
pub mod http;
pub mod identity;
pub mod install;
pub mod last_state;
pub mod lock;
pub mod logging;
pub mod metrics;
pub mod pace;
pub mod privilege;
pub mod reasons;
pub mod status;
pub mod subnet_env;
pub mod systemd;
