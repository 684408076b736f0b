//! loden beside the real programs that it has to get on with: flanneld v0.28.9, and Docker.
//!
//! A case ([`testkit::trial`]) makes hosts as network namespaces, puts the real peer on some and loden on others,
//! does something to them, and fills a report: the gates that loden has to pass, and what each of the two did under
//! the same fault. A case is a function whose name is a sentence; docs/compatibility.md names them.
//! What the peer does badly is recorded and is nobody's failure here.

mod belongings;
mod changeover;
mod docker;
mod dropin;
mod families;
mod outside;
mod peer;
mod scene;

pub use families::{DOCKER, FLANNELD};
pub use peer::Agents;
