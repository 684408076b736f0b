//! What happens on a host's VTEP, in order, as the kernel tells everybody: `ip monitor` and `bridge monitor`.

use std::fs::{self, File};
use std::process::{Child, Stdio};

use crate::{Host, wait_for};
use anyhow::{Context, Result, ensure};

use crate::world::{PATIENCE, VTEP};

/// A subscription to all changes of links, addresses, routes, neighbours and FDB entries on a host.
pub struct Monitor {
    host: Host,
    children: [Child; 2],
    files: tempfile::TempDir,
}

/// What marks a moment: an entry that is put, and taken away again, on a link that is nobody's.
const MARK: &str = "203.0.113.9";

impl Monitor {
    /// Subscribes; what happens from now on is told.
    pub fn start(host: &Host) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let spawn = |name: &str, argv: &[&str]| -> Result<Child> {
            let (program, args) = argv.split_first().context("no command")?;
            let out = File::create(files.path().join(name))?;
            Ok(host.command(program).args(args).stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn()?)
        };
        let children =
            [spawn("ip", &["ip", "-o", "monitor", "link", "address", "route", "neigh"])?, spawn("bridge", &["bridge", "monitor", "fdb"])?];
        let monitor = Self { host: host.clone(), children, files };
        monitor.mark()?;
        Ok(monitor)
    }

    /// What has happened on the VTEP so far: lines that begin with "Deleted" are of what is gone.
    pub fn so_far(&self) -> Result<Vec<String>> {
        self.mark()?;
        let mut lines = Vec::new();
        for name in ["ip", "bridge"] {
            let text = fs::read_to_string(self.files.path().join(name))?;
            lines.extend(text.lines().filter(|line| line.contains(VTEP)).map(|line| line.trim().to_owned()));
        }
        Ok(lines)
    }

    /// Makes sure that all that happened before has been written down.
    fn mark(&self) -> Result<()> {
        let marks = |name: &str| -> Result<usize> {
            Ok(fs::read_to_string(self.files.path().join(name))?.lines().filter(|line| line.contains(MARK)).count())
        };
        let fdb_marks = || -> Result<usize> {
            Ok(fs::read_to_string(self.files.path().join("bridge"))?.lines().filter(|line| line.contains("02:ff:ff:ff:ff:ff")).count())
        };
        let before = (marks("ip")?, fdb_marks()?);
        wait_for("the monitors to tell of a mark", PATIENCE, || {
            self.host.run(&["ip", "route", "replace", MARK, "dev", "lo"])?;
            self.host.run(&["ip", "route", "del", MARK, "dev", "lo"])?;
            self.host.run(&["bridge", "fdb", "replace", "02:ff:ff:ff:ff:ff", "dev", "eth0", "self"])?;
            self.host.run(&["bridge", "fdb", "del", "02:ff:ff:ff:ff:ff", "dev", "eth0", "self"])?;
            let after = (marks("ip")?, fdb_marks()?);
            ensure!(after.0 > before.0 && after.1 > before.1, "{before:?} marks, then {after:?}");
            Ok(())
        })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended with its namespace.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
