//! Many writes to an etcd at once, by etcdctl.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Etcd;

/// How many operations one transaction may have, unless etcd is told otherwise (`--max-txn-ops`).
const TRANSACTION_MAX: usize = 128;

impl Etcd {
    /// Puts and, where there is no value, deletes keys in one transaction, in order.
    ///
    /// # Errors
    /// When there are more than 128, and when etcdctl fails.
    pub fn transaction(&self, writes: &[(String, Option<String>)]) -> Result<()> {
        ensure!(writes.len() <= TRANSACTION_MAX, "{} writes are too many for one transaction", writes.len());
        // No conditions; what to do when they hold; nothing to do when they do not.
        let mut lines = String::from("\n");
        for (key, value) in writes {
            match value {
                Some(value) => writeln!(lines, "put {} {}", quoted(key), quoted(value))?,
                None => writeln!(lines, "del {}", quoted(key))?,
            }
        }
        lines.push_str("\n\n");
        let mut command = self.ctl_command()?;
        command.arg("txn").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot run etcdctl")?;
        child.stdin.take().context("no pipe to etcdctl")?.write_all(lines.as_bytes())?;
        let done = child.wait_with_output()?;
        ensure!(done.status.success(), "etcdctl txn: {}\n{lines}", String::from_utf8_lossy(&done.stderr).trim());
        Ok(())
    }
}

/// Between quotes, as Go reads them, and JSON writes them.
fn quoted(text: &str) -> Value {
    Value::from(text)
}
