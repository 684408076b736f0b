//! Somebody else on a host, who changes things without a process started for each change.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStderr, ChildStdin, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::Host;
use crate::netlink::Socket;
use crate::process::Process;

// linux/rtnetlink.h.
const RTMGRP_LINK: u32 = 1;
const RTM_DELLINK: u16 = 17;

/// A deletion is told by then.
const SOON: Duration = Duration::from_millis(200);

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
    host: Host,
    program: &'static str,
    /// Orders that may not be done yet.
    under_way: u32,
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

    /// `ip link del DEVICE`. Returns when the kernel says that it is gone, and not only when it has finished with it: that takes it tens
    /// of milliseconds more, in which there may be another device already.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn delete_link(&mut self, device: &str) -> Result<()> {
        let ears = Socket::open(&self.host, RTMGRP_LINK)?;
        self.ip.begin(&format!("link del {device}"))?;
        while let messages @ [_, ..] = ears.receive(SOON)?.as_slice() {
            if messages.iter().any(|message| message.kind == RTM_DELLINK) {
                return Ok(());
            }
        }
        bail!("{device} is not told to be gone")
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
    fn new(host: &Host, program: &'static str) -> Result<Self> {
        let mut command = host.command(program);
        command.args(["-force", "-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let orders = process.child().stdin.take().context("no pipe to a tool")?;
        let complaints = process.child().stderr.take().context("no pipe from a tool")?;
        Ok(Self { orders, complaints: BufReader::new(complaints), host: host.clone(), program, under_way: 0, process })
    }

    /// Behind each order goes one that nobody understands: when the tool complains of it, the order is done.
    fn order(&mut self, words: &str) -> Result<()> {
        self.begin(words)?;
        let mut line = String::new();
        while self.under_way > 0 {
            line.clear();
            if self.complaints.read_line(&mut line)? == 0 {
                // Some errors end it for all its `-force`.
                *self = Self::new(&self.host.clone(), self.program)?;
            }
            self.under_way -= u32::from(line.contains(MARK));
        }
        Ok(())
    }

    fn begin(&mut self, words: &str) -> Result<()> {
        let order = format!("{words}\n{MARK}\n");
        if self.orders.write_all(order.as_bytes()).is_err() {
            *self = Self::new(&self.host.clone(), self.program)?;
            self.orders.write_all(order.as_bytes()).context("the tool has ended")?;
        }
        self.under_way += 1;
        Ok(())
    }
}
