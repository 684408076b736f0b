//! Somebody else on a host, who changes things without a process started for each change.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStderr, ChildStdin, Stdio};

use anyhow::{Context, Result, ensure};

use crate::Host;
use crate::process::Process;

/// What is no command.
const MARK: &str = "done";

/// An `ip -batch` and a `bridge -batch` that do what they are told line by line, a setting and the host's files. What cannot be
/// done is not done.
#[derive(Debug)]
pub struct Hands {
    host: Host,
    ip: Tool,
    bridge: Tool,
    forwarding: File,
}

#[derive(Debug)]
struct Tool {
    orders: ChildStdin,
    complaints: BufReader<ChildStderr>,
    process: Process,
}

impl Hands {
    /// On this host.
    ///
    /// # Errors
    /// When a tool does not start.
    pub fn new(host: &Host) -> Result<Self> {
        // What it shows is of the network that it was opened in.
        let forwarding = host.within(|| Ok(OpenOptions::new().write(true).open("/proc/sys/net/ipv4/ip_forward")?))?;
        Ok(Self { host: host.clone(), ip: Tool::new(host, "ip")?, bridge: Tool::new(host, "bridge")?, forwarding })
    }

    /// The process that does the `ip` commands.
    #[must_use]
    pub fn ip_pid(&self) -> u32 {
        self.ip.process.pid()
    }

    /// `ip WORDS`. It is done when this returns.
    ///
    /// # Errors
    /// When the tool has ended.
    pub fn ip(&mut self, words: &str) -> Result<()> {
        self.ip.order(words)
    }

    /// `bridge WORDS`.
    ///
    /// # Errors
    /// When the tool has ended.
    pub fn bridge(&mut self, words: &str) -> Result<()> {
        self.bridge.order(words)
    }

    /// `echo VALUE >/proc/sys/net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn forwarding(&self, value: &str) -> Result<()> {
        Ok((&self.forwarding).write_all(value.as_bytes())?)
    }

    /// Writes a file of the host.
    ///
    /// # Errors
    /// When it cannot be written: with its path.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        fs::write(self.path(path), text).with_context(|| format!("cannot write {path} on {}", self.host.name()))
    }

    /// Removes a file of the host.
    ///
    /// # Errors
    /// When it cannot be removed: with its path.
    pub fn remove(&self, path: &str) -> Result<()> {
        fs::remove_file(self.path(path)).with_context(|| format!("cannot remove {path} on {}", self.host.name()))
    }

    fn path(&self, path: &str) -> String {
        format!("/proc/{}/root{path}", self.host.pid())
    }
}

impl Tool {
    fn new(host: &Host, program: &str) -> Result<Self> {
        let mut command = host.command(program);
        command.args(["-force", "-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let orders = process.child().stdin.take().context("no pipe to a tool")?;
        let complaints = process.child().stderr.take().context("no pipe from a tool")?;
        Ok(Self { orders, complaints: BufReader::new(complaints), process })
    }

    /// Behind each order goes one that nobody understands: when the tool complains of it, the order is done.
    fn order(&mut self, words: &str) -> Result<()> {
        self.orders.write_all(format!("{words}\n{MARK}\n").as_bytes()).context("the tool has ended")?;
        let mut line = String::new();
        while !line.contains(MARK) {
            line.clear();
            ensure!(self.complaints.read_line(&mut line)? > 0, "the tool has ended");
        }
        Ok(())
    }
}
