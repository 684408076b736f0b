//! The families of faults, in the order in which they run.

mod boot;
mod differential;
mod fight;
mod healing;
mod hostile;
mod leases;
mod restart;
mod security;
mod store;
mod storm;
mod underlay;

use anyhow::Result;

use crate::{Budget, Report};

/// A family of faults.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Its name, as `make soak FAMILY=name` takes it.
    pub name: &'static str,
    /// Breaks things, and reports what came of it.
    pub run: fn(Budget) -> Result<Report>,
}

/// All of them.
pub const FAMILIES: &[Family] = &[
    Family { name: "healing", run: healing::run },
    Family { name: "storm", run: storm::run },
    Family { name: "underlay", run: underlay::run },
    Family { name: "fight", run: fight::run },
    Family { name: "restart", run: restart::run },
    Family { name: "boot", run: boot::run },
    Family { name: "store", run: store::run },
    Family { name: "leases", run: leases::run },
    Family { name: "hostile", run: hostile::run },
    Family { name: "differential", run: differential::run },
    Family { name: "security", run: security::run },
];
