//! What flanneld v0.28.9 does badly, reproduced, and what loden does under the same fault. The gates are loden's;
//! flanneld's outcome is recorded.

mod beside;
mod device;
mod entries;
mod leases;
mod start;

pub(crate) use beside::{Outcome, beside, soon, within};
pub(crate) use {device::CASES as DEVICE, entries::CASES as ENTRIES, leases::CASES as LEASES, start::CASES as START};
