//! The loden agent: what it composes, says and serves.

pub mod cli;
pub mod http;
pub mod metrics;
pub mod status;
pub mod subnet_env;
