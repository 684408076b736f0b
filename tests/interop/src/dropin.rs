//! The drop-in for docker.service, read as systemd reads it: what is to be run before dockerd, and dockerd's own command line.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use testkit::Host;

pub(crate) const TEXT: &str = include_str!("../../../manifests/systemd/docker.service.d/10-loden.conf");

/// Where the packages' dockerd and systemd meet; the tests' one has a socket of its own.
const PACKAGED: &str = "dockerd -H fd:// --containerd=/run/containerd/containerd.sock ";

/// Runs ExecStartPre on the host, reads EnvironmentFile, and returns what ExecStart then gives dockerd beyond its sockets.
pub(crate) fn options(host: &Host, loden: &str) -> Result<Vec<String>> {
    let before = setting("ExecStartPre")?.strip_prefix("loden ").context("ExecStartPre runs another program")?;
    let mut words = vec![loden];
    words.extend(before.split(' '));
    host.run(&words)?;
    let file = setting("EnvironmentFile")?.trim_start_matches('-');
    let text = host.read(file)?;
    let variables = environment(&text);
    let start = setting("ExecStart")?.strip_prefix(PACKAGED).context("ExecStart runs another program")?;
    let mut options = Vec::new();
    for word in start.split(' ') {
        match word.strip_prefix('$') {
            // A variable that is a word by itself is split at white space (systemd.service(5), "Command lines").
            Some(name) => {
                let value = variables.get(name).with_context(|| format!("{file} does not set {name}"))?;
                options.extend(value.split_whitespace().map(str::to_owned));
            }
            None => options.push(word.to_owned()),
        }
    }
    ensure!(!options.is_empty(), "dockerd would be given nothing");
    Ok(options)
}

/// The last value of a setting: an empty one before it takes back what other files say.
fn setting(name: &str) -> Result<&'static str> {
    let mut values = TEXT.lines().rev().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    values.next().with_context(|| format!("the drop-in has no {name}"))
}

/// `NAME="value"`, a line each.
fn environment(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name, value.trim_matches('"'))).collect()
}
