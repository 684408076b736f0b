//! A flanneld that runs on this host: which networks it serves, as far as its command line says.
//!
//! Seen is what `/proc` shows: in a container without the host's process ids, no other container's flanneld is. Its command line is
//! read as our own, which has the same flags.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::cli::{self, Invocation, Options, StoreOptions};

/// A flanneld in our network namespace.
#[derive(Debug, Clone)]
pub struct Flanneld {
    /// Its process.
    pub pid: u32,
    /// What it was told; none where that cannot be read.
    options: Option<Box<Options>>,
}

/// A flanneld serves the network that we are to serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "flanneld is running here (process {pid}), {why}: the two would undo each other's work. Stop it first \
     (systemctl stop flanneld, or take its DaemonSet away), or give this agent an --etcd-prefix, a --subnet-file, a Backend.VNI \
     and a Backend.Port of its own"
)]
pub struct LiveFlanneld {
    /// Its process.
    pub pid: u32,
    /// What shows that it is the same network, as a clause.
    pub why: String,
}

impl Flanneld {
    /// Whether it runs still.
    #[must_use]
    pub fn lives(&self) -> bool {
        is_named_so(Path::new(&format!("/proc/{}", self.pid)))
    }
}

/// What its process is called: its file's name, which in flannel's releases has the architecture behind it (`flanneld-amd64`).
const NAME: &[u8] = b"flanneld";

fn is_named_so(process: &Path) -> bool {
    fs::read(process.join("comm")).is_ok_and(|name| name.starts_with(NAME))
}

/// Those that run here. Called before rights are given up, without which another process' namespace and environment are closed to us.
#[must_use]
pub fn flannelds() -> Vec<Flanneld> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id()).filter_map(flanneld).collect()
}

/// The process, if it is a flanneld in our network namespace.
fn flanneld(pid: u32) -> Option<Flanneld> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    if !is_named_so(&proc) {
        return None;
    }
    let namespace = |of: &Path| fs::read_link(of.join("ns/net")).ok();
    let ours = namespace(Path::new("/proc/self"))?;
    // loden itself under that name is told apart by its file, and kept apart by its locks.
    let file = fs::read_link(proc.join("exe")).ok();
    let is_loden = file.as_deref().and_then(Path::file_name).is_some_and(|name| name.as_bytes().starts_with(b"loden"));
    if namespace(&proc) != Some(ours) || is_loden {
        return None;
    }
    Some(Flanneld { pid, options: options(&fs::read(proc.join("cmdline")).ok()?, &fs::read(proc.join("environ")).unwrap_or_default()) })
}

/// What a command line and an environment say, each a list of words that end in a zero.
fn options(command_line: &[u8], environment: &[u8]) -> Option<Box<Options>> {
    let words = |bytes: &[u8]| {
        let words = bytes.strip_suffix(b"\0").unwrap_or(bytes).split(|byte| *byte == 0);
        words.map(|word| OsStr::from_bytes(word).to_owned()).collect::<Vec<OsString>>()
    };
    let variables = words(environment);
    let lookup = |name: &str| {
        let value = |variable: &OsString| variable.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec);
        variables.iter().find_map(value).map(|value| OsStr::from_bytes(&value).to_owned())
    };
    let words = ["flanneld".into()].into_iter().chain(words(command_line).into_iter().skip(1));
    match cli::parse(words, lookup) {
        Ok(Invocation::Agent(options)) => Some(options),
        _ => None,
    }
}

/// Refuses to start beside a flanneld that serves the same network.
///
/// # Errors
/// [`LiveFlanneld`].
pub fn refuse_beside(flannelds: &[Flanneld], options: &Options) -> Result<(), LiveFlanneld> {
    let conflict = |flanneld: &Flanneld| Some(LiveFlanneld { pid: flanneld.pid, why: same_network(flanneld.options.as_deref(), options)? });
    flannelds.iter().find_map(conflict).map_or(Ok(()), Err)
}

fn same_network(theirs: Option<&Options>, ours: &Options) -> Option<String> {
    let Some(theirs) = theirs else { return Some("with a command line that does not say for which network".to_owned()) };
    if theirs.subnet_file == ours.subnet_file {
        return Some(format!("with the subnet file {}", ours.subnet_file.display()));
    }
    let (theirs, ours) = match (&theirs.store, &ours.store) {
        (StoreOptions::Etcd(theirs), StoreOptions::Etcd(ours)) => (theirs, ours),
        (StoreOptions::Kube(_), StoreOptions::Kube(_)) => return Some("with the network of this Node".to_owned()),
        (StoreOptions::Etcd(_), StoreOptions::Kube(_)) | (StoreOptions::Kube(_), StoreOptions::Etcd(_)) => return None,
    };
    let same_store = theirs.endpoints.iter().any(|endpoint| ours.endpoints.contains(endpoint));
    (same_store && theirs.prefix == ours.prefix).then(|| format!("with the network under {}", ours.prefix.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(theirs: &[u8], environment: &[u8], ours: &str) -> Option<String> {
        let ours = options(format!("loden {ours}").replace(' ', "\0").as_bytes(), b"").unwrap();
        same_network(options(theirs, environment).as_deref(), &ours)
    }

    #[test]
    fn a_flanneld_with_our_subnet_file_or_our_keys_is_in_the_way() {
        assert!(why(b"/opt/bin/flanneld\0-ip-masq\0", b"", "-iface=eth0").unwrap().contains("/run/flannel/subnet.env"));
        let store = "-etcd-endpoints=http://a:2379 -subnet-file=/run/two.env";
        assert!(why(b"flanneld\0--etcd-endpoints=http://b:1,http://a:2379\0", b"", store).unwrap().contains("/coreos.com/network"));
        assert!(why(b"flanneld\0--ip-masq\0true\0", b"", store).is_some(), "a command line that cannot be read");
        assert!(why(b"flanneld\0--kube-subnet-mgr\0", b"", "-iface=eth0").is_some());
    }

    #[test]
    fn a_flanneld_of_another_network_is_none_of_our_business() {
        let ours = "-etcd-endpoints=http://a:2379 -subnet-file=/run/two.env";
        assert_eq!(why(b"flanneld\0-etcd-endpoints\0http://a:2379\0-etcd-prefix=/one\0", b"", ours), None);
        assert_eq!(why(b"flanneld\0", b"HOME=/\0FLANNELD_ETCD_ENDPOINTS=http://b:2379\0", ours), None);
        assert!(why(b"flanneld\0", b"FLANNELD_SUBNET_FILE=/run/one.env\0", "-iface=eth0").is_some(), "the same store and prefix");
    }
}
