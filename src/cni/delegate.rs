//! The plugin that does the work: found in `CNI_PATH`, run with our own variables, output and errors.
//!
//! Its configuration goes to it through a file in memory: whoever is replaced by it can write no pipe.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::Value;

use super::config::Object;
use super::failure::{Code, Failure};

/// A plugin that is there.
#[derive(Debug)]
pub(super) struct Delegate {
    program: PathBuf,
    config: Vec<u8>,
}

impl Delegate {
    /// The plugin that a configuration is for.
    ///
    /// # Errors
    /// [`Code::Delegate`] where it is in none of the folders.
    pub(super) fn find(config: &Object, path: &[PathBuf]) -> Result<Self, Failure> {
        let name = config.get("type").and_then(Value::as_str).unwrap_or_default();
        // A name that leads elsewhere is none; what is kept in a file may have come from anywhere.
        let known = Path::new(name).file_name() == Some(name.as_ref());
        match path.iter().map(|folder| folder.join(name)).find(|program| known && program.is_file()) {
            Some(program) => Ok(Self { program, config: Value::Object(config.clone()).to_string().into_bytes() }),
            None => {
                let folders: Vec<_> = path.iter().map(|folder| folder.display().to_string()).collect();
                let missing = Failure::new(Code::Delegate, format!("there is no plugin {name:?} in CNI_PATH, {}", folders.join(":")));
                Err(missing.with_remedy("install the standard CNI plugins there: bridge, host-local, loopback and portmap"))
            }
        }
    }

    /// The configuration, as it is given to it.
    #[must_use]
    pub(super) fn config(&self) -> &[u8] {
        &self.config
    }

    /// Becomes it: what it prints, and how it ends, is then ours. Returns only where that fails.
    #[must_use]
    pub(super) fn become_it(&self) -> Failure {
        match self.command() {
            Ok(mut command) => self.failed(&command.exec()),
            Err(error) => self.failed(&error),
        }
    }

    /// Runs it to its end and returns its exit code.
    ///
    /// # Errors
    /// [`Code::Delegate`] where it cannot be run, or was killed.
    pub(super) fn run(&self) -> Result<u8, Failure> {
        let status = self.command().and_then(|mut command| command.status()).map_err(|error| self.failed(&error))?;
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        code.ok_or_else(|| {
            let signal = status.signal().unwrap_or_default();
            Failure::new(Code::Delegate, format!("{} was killed by signal {signal}", self.program.display()))
        })
    }

    fn command(&self) -> io::Result<Command> {
        let mut input = File::from(memfd_create("cni", MFdFlags::MFD_CLOEXEC)?);
        input.write_all(&self.config)?;
        input.rewind()?;
        let mut command = Command::new(&self.program);
        command.stdin(Stdio::from(input));
        Ok(command)
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::new(Code::Delegate, format!("cannot run {}: {error}", self.program.display()))
    }
}
