//! What an etcd holds, by etcdctl: an oracle that is independent of any client of ours.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::Etcd;

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The revision of the last write to it.
    pub mod_revision: i64,
    /// How many writes there were since it came to be.
    pub version: i64,
    /// The etcd lease that it hangs on; 0 is none.
    pub lease: i64,
}

impl Etcd {
    /// Puts a key, without a lease.
    ///
    /// # Errors
    /// As with all that follow: when etcdctl fails, with what it said.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        self.ctl(&["put", "--", key, value]).map(drop)
    }

    /// Puts a key that hangs on an etcd lease.
    ///
    /// # Errors
    /// When etcdctl fails.
    pub fn put_with_lease(&self, key: &str, value: &str, lease: i64) -> Result<()> {
        self.ctl(&["put", &format!("--lease={lease:x}"), "--", key, value]).map(drop)
    }

    /// The key, if it is there.
    ///
    /// # Errors
    /// When etcdctl fails.
    pub fn get(&self, key: &str) -> Result<Option<Entry>> {
        Ok(entries(&self.ctl(&["get", "--write-out=json", "--", key])?)?.pop())
    }

    /// All keys that begin so, in order.
    ///
    /// # Errors
    /// When etcdctl fails.
    pub fn get_prefix(&self, prefix: &str) -> Result<Vec<Entry>> {
        entries(&self.ctl(&["get", "--write-out=json", "--prefix", "--", prefix])?)
    }

    /// Deletes the key; whether it was there.
    ///
    /// # Errors
    /// When etcdctl fails.
    pub fn del(&self, key: &str) -> Result<bool> {
        Ok(self.ctl(&["del", "--", key])?.trim() == "1")
    }

    /// Forgets the history up to now: who watches from before has to list again.
    ///
    /// # Errors
    /// When etcdctl fails.
    pub fn compact(&self) -> Result<i64> {
        let revision = self.revision()?;
        self.ctl(&["compaction", "--physical", &revision.to_string()])?;
        Ok(revision)
    }

    /// The revision that it is at.
    ///
    /// # Errors
    /// When etcdctl fails.
    pub fn revision(&self) -> Result<i64> {
        let answer: Value = serde_json::from_str(&self.ctl(&["get", "--write-out=json", "--", "no such key"])?)?;
        answer.pointer("/header/revision").and_then(Value::as_i64).context("etcdctl names no revision")
    }

    /// Grants an etcd lease of this many seconds.
    ///
    /// # Errors
    /// When etcdctl fails.
    pub fn lease_grant(&self, seconds: u32) -> Result<i64> {
        let said = self.ctl(&["lease", "grant", &seconds.to_string()])?;
        let id = said.split(' ').nth(1).with_context(|| format!("etcdctl names no lease: {said}"))?;
        i64::from_str_radix(id, 16).with_context(|| format!("etcdctl names no lease: {said}"))
    }

    /// Revokes an etcd lease: all keys that hang on it go.
    ///
    /// # Errors
    /// When etcdctl fails.
    pub fn lease_revoke(&self, lease: i64) -> Result<()> {
        self.ctl(&["lease", "revoke", &format!("{lease:x}")]).map(drop)
    }

    /// How many seconds an etcd lease has left; none when it has expired.
    ///
    /// # Errors
    /// When etcdctl fails.
    pub fn lease_left(&self, lease: i64) -> Result<Option<i64>> {
        let answer: Value = serde_json::from_str(&self.ctl(&["lease", "timetolive", "--write-out=json", &format!("{lease:x}")])?)?;
        Ok(answer.get("ttl").and_then(Value::as_i64).filter(|left| *left > 0))
    }
}

/// The entries in the answer to `etcdctl get --write-out=json`: JSON with keys and values in base64.
fn entries(json: &str) -> Result<Vec<Entry>> {
    let answer: Value = serde_json::from_str(json).with_context(|| format!("etcdctl printed no JSON: {json:?}"))?;
    let Some(kvs) = answer.get("kvs").and_then(Value::as_array) else { return Ok(Vec::new()) };
    let entry = |kv: &Value| {
        let number = |field: &str| kv.get(field).and_then(Value::as_i64).unwrap_or(0);
        let text = |field: &str| {
            let coded = kv.get(field).and_then(Value::as_str).unwrap_or_default();
            Ok::<_, anyhow::Error>(String::from_utf8_lossy(&base64(coded)?).into_owned())
        };
        let (mod_revision, version, lease) = (number("mod_revision"), number("version"), number("lease"));
        Ok(Entry { key: text("key")?, value: text("value")?, mod_revision, version, lease })
    };
    kvs.iter().map(entry).collect()
}

/// RFC 4648 §4, with padding.
fn base64(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut have) = (0u32, 0u8);
    for symbol in text.bytes().take_while(|symbol| *symbol != b'=') {
        let six = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("{text:?} is not base64"),
        };
        bits = bits << 6 | u32::from(six);
        have += 6;
        if have >= 8 {
            have -= 8;
            let [.., byte] = (bits >> have).to_be_bytes();
            bytes.push(byte);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (coded, text) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")] {
            assert_eq!(base64(coded).ok().as_deref(), Some(text.as_bytes()));
        }
        assert!(base64("Zm9*").is_err());
    }
}
