//! Faults of every family, one after another, against whole agents on hosts with a real kernel and a real etcd.
//!
//! A [`Family`] breaks things in its own way, waits for each to be put right, and fills a [`Report`]: what was tried, what
//! was repaired and how fast, what packets a stream lost meanwhile, and the gates that have to hold. `make soak` runs
//! all families with a [`Budget`] of minutes or hours; `make test` runs each with the shortest one.

mod budget;
mod decoys;
mod families;
mod harm;
mod play;
mod report;
mod scene;

pub use budget::Budget;
pub use families::{FAMILIES, Family};
pub use report::{Gate, Report};
