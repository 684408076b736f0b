//! The families of cases.

mod cni;
mod defects;
mod direct;
mod docker;
mod dual;
mod filter;
mod matrix;
mod mesh;
mod takeover;
mod together;

use crate::Family;

/// Those beside a real flanneld.
pub const FLANNELD: &[Family] = &[
    Family { name: "mesh", cases: mesh::CASES },
    Family { name: "takeover", cases: takeover::TAKEOVER },
    Family { name: "rollback", cases: takeover::ROLLBACK },
    Family { name: "together", cases: together::CASES },
    Family { name: "device", cases: defects::DEVICE },
    Family { name: "entries", cases: defects::ENTRIES },
    Family { name: "leases", cases: defects::LEASES },
    Family { name: "start", cases: defects::START },
    Family { name: "dual", cases: dual::CASES },
    Family { name: "direct", cases: direct::CASES },
    Family { name: "filter", cases: filter::CASES },
    Family { name: "matrix", cases: matrix::CASES },
    Family { name: "cni", cases: cni::CASES },
];

/// Those beside a real Docker.
pub const DOCKER: &[Family] = &[Family { name: "docker", cases: docker::CASES }];
