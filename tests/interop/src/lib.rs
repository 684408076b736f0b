//! loden beside the real programs that it has to get on with: flanneld v0.28.9, and Docker.
//!
//! A [`Family`] is a list of [`Case`]s. A case makes hosts as network namespaces, puts the real peer on some and loden on others,
//! does something to them, and fills a [`Report`]: the gates that loden has to pass, and what each of the two did under
//! the same fault. A case is a function whose name is a sentence; docs/compatibility.md names them.
//! What the peer does badly is recorded and is nobody's failure here.

mod belongings;
mod case;
mod changeover;
mod docker;
mod dropin;
mod families;
mod outside;
mod peer;
mod report;
mod scene;

pub use case::{Case, Family};
pub use families::{DOCKER, FLANNELD};
pub use peer::Agents;
pub use report::{Compared, Gate, Report};
