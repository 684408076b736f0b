//! The families of cases.

mod mesh;

use crate::Family;

/// Those beside a real flanneld.
pub const FLANNELD: &[Family] = &[Family { name: "mesh", cases: mesh::CASES }];

/// Those beside a real Docker.
pub const DOCKER: &[Family] = &[];
