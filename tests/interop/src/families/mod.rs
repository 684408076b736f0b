//! The families of cases.

mod mesh;
mod takeover;

use crate::Family;

/// Those beside a real flanneld.
pub const FLANNELD: &[Family] = &[
    Family { name: "mesh", cases: mesh::CASES },
    Family { name: "takeover", cases: takeover::TAKEOVER },
    Family { name: "rollback", cases: takeover::ROLLBACK },
];

/// Those beside a real Docker.
pub const DOCKER: &[Family] = &[];
