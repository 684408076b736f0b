//! Cases, and the families that they come in.

use anyhow::Result;

use crate::{Agents, Report};

/// One thing that is tried.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// A sentence: the function's name.
    pub name: &'static str,
    /// Tries it.
    pub run: fn(&Agents, &mut Report) -> Result<()>,
}

/// Cases that belong together.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Its name, as `make interop FAMILY=name` takes it.
    pub name: &'static str,
    /// What is tried.
    pub cases: &'static [Case],
}

/// Cases under the names of their functions.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        &[$($crate::Case { name: stringify!($name), run: $name }),*]
    };
}
pub(crate) use cases;
