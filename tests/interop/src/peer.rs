//! The two agents that are held side by side.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use testkit::world::World;
use testkit::{AgentOptions, Host};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Flanneld,
    Loden,
}

impl fmt::Display for Which {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Flanneld => "flanneld",
            Self::Loden => "loden",
        })
    }
}

/// Where the agents' programs are.
#[derive(Debug, Clone)]
pub struct Agents {
    flanneld: Option<PathBuf>,
}

impl Agents {
    /// With the real flanneld of `$FLANNELD_BIN`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn with_flanneld() -> Result<Self> {
        let path = std::env::var_os("FLANNELD_BIN").map(PathBuf::from);
        let path = path.context("FLANNELD_BIN is not set: run this by `make interop`, or build one by tests/support/peers flanneld")?;
        ensure!(path.is_file(), "FLANNELD_BIN: there is no {}", path.display());
        Ok(Self { flanneld: Some(path) })
    }

    /// Without a flanneld: its cases cannot be run.
    ///
    /// # Errors
    /// None; it is one of the stages that families can have.
    pub fn without_flanneld() -> Result<Self> {
        Ok(Self { flanneld: None })
    }

    /// How one of them is started with these flags.
    pub(crate) fn options(&self, which: Which, world: &World, flags: &[&str]) -> Result<AgentOptions> {
        let options = match which {
            Which::Flanneld => AgentOptions::other(self.flanneld.as_ref().context("there is no flanneld here")?, &world.etcd),
            Which::Loden => world.options()?,
        };
        Ok(options.args(flags.iter().copied()))
    }

    /// loden started as flanneld would be: by that name, with the same flags and no subcommand.
    pub(crate) fn loden_as_flanneld(&self, world: &World, host: &Host, flags: &[&str]) -> Result<AgentOptions> {
        let link = host.files().join("flanneld");
        if !link.exists() {
            std::os::unix::fs::symlink(world.options()?.program(), &link)?;
        }
        Ok(AgentOptions::other(link, &world.etcd).args(flags.iter().copied()))
    }
}
