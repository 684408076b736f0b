//! The loden agent: what it composes, says and serves.

pub mod cli;
