//! Child processes: run one to its end with an error that says it all, or keep one and end it for certain.

use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait_for;

/// Runs the command to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started, or fails: then with the command line and its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("cannot run {}", line(command)))?;
    let said = String::from_utf8_lossy(&done.stdout);
    if !done.status.success() {
        bail!("{}: {}: {}{}", line(command), done.status, String::from_utf8_lossy(&done.stderr).trim(), said.trim());
    }
    Ok(said.into_owned())
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A process that is killed, by its id, when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot run {}", line(command)))?;
        Ok(Self { child, ended: None })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// It, as the standard library has it: for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended; none while it runs.
    ///
    /// # Errors
    /// When the kernel will not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Sends the signal, unless it has ended and been waited for: its id may be another's by now.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        ensure!(self.ended()?.is_none(), "process {} has ended", self.pid());
        kill(Pid::from_raw(i32::try_from(self.pid())?), signal).with_context(|| format!("cannot send {signal} to {}", self.pid()))
    }

    /// Sends the signal and waits for the end.
    ///
    /// # Errors
    /// When it has not ended by the deadline.
    pub fn end(&mut self, signal: Signal, deadline: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(signal)?;
        let pid = self.pid();
        wait_for(&format!("the end of process {pid} after {signal}"), deadline, || self.ended()?.ok_or_else(|| anyhow!("it still runs")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.ended(), Ok(None)) {
            // It may be gone already, which is as well.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
