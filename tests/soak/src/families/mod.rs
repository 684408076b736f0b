//! The families of faults, in the order in which they run.

mod boot;
mod differential;
mod hostile;

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
    Family { name: "boot", run: boot::run },
    Family { name: "hostile", run: hostile::run },
    Family { name: "differential", run: differential::run },
];
