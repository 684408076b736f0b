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

use testkit::trial::Family;

use crate::Agents;

/// Those beside a real flanneld.
pub const FLANNELD: &[Family<Agents>] = &[
    Family { name: "mesh", stage: Agents::with_flanneld, cases: mesh::CASES },
    Family { name: "takeover", stage: Agents::with_flanneld, cases: takeover::TAKEOVER },
    Family { name: "rollback", stage: Agents::with_flanneld, cases: takeover::ROLLBACK },
    Family { name: "together", stage: Agents::with_flanneld, cases: together::CASES },
    Family { name: "device", stage: Agents::with_flanneld, cases: defects::DEVICE },
    Family { name: "entries", stage: Agents::with_flanneld, cases: defects::ENTRIES },
    Family { name: "leases", stage: Agents::with_flanneld, cases: defects::LEASES },
    Family { name: "start", stage: Agents::with_flanneld, cases: defects::START },
    Family { name: "dual", stage: Agents::with_flanneld, cases: dual::CASES },
    Family { name: "direct", stage: Agents::with_flanneld, cases: direct::CASES },
    Family { name: "filter", stage: Agents::with_flanneld, cases: filter::CASES },
    Family { name: "matrix", stage: Agents::with_flanneld, cases: matrix::CASES },
    Family { name: "cni", stage: Agents::with_flanneld, cases: cni::CASES },
];

/// Those beside a real Docker.
pub const DOCKER: &[Family<Agents>] = &[Family { name: "docker", stage: Agents::without_flanneld, cases: docker::CASES }];
