//! Many writes to an etcd at once, and values of any bytes, by etcdctl.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::Etcd;

/// How many operations one transaction may have, unless etcd is told otherwise (`--max-txn-ops`).
const TRANSACTION_MAX: usize = 128;

impl Etcd {
    /// Puts and, where there is no value, deletes keys, in order: as many in one transaction as etcd takes, which is 128.
    ///
    /// # Errors
    /// When etcdctl fails.
    pub fn write<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, writes: &[(K, Option<V>)]) -> Result<()> {
        for part in writes.chunks(TRANSACTION_MAX) {
            // No conditions; what to do when they hold; nothing to do when they do not.
            let mut lines = String::from("\n");
            for (key, value) in part {
                match value {
                    Some(value) => writeln!(lines, "put {} {}", quoted(key.as_ref()), quoted(value.as_ref()))?,
                    None => writeln!(lines, "del {}", quoted(key.as_ref()))?,
                }
            }
            lines.push_str("\n\n");
            feed(self.ctl_command()?.arg("txn"), lines.as_bytes())?;
        }
        Ok(())
    }

    /// Puts a value of any size that etcd takes (1.5 MB).
    ///
    /// # Errors
    /// When etcdctl fails.
    pub fn put_bytes(&self, key: &str, value: &[u8]) -> Result<()> {
        feed(self.ctl_command()?.args(["put", "--", key]), value)
    }
}

fn feed(command: &mut Command, input: &[u8]) -> Result<()> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("cannot run etcdctl")?;
    child.stdin.take().context("no pipe to etcdctl")?.write_all(input)?;
    let done = child.wait_with_output()?;
    ensure!(done.status.success(), "etcdctl: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}

/// Between quotes, as Go reads them, whatever the bytes are.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => text.push(char::from(*byte)),
            // Writing to a String does not fail.
            _ => drop(write!(text, "\\x{byte:02x}")),
        }
    }
    text.push('"');
    text
}
