//! `loden docker-opts`: the subnet file as options for dockerd, byte for byte as flannel's `mk-docker-opts.sh` writes them.
//!
//! A file for systemd's `EnvironmentFile=`: one variable an option (`DOCKER_OPT_BIP` and others), and all of them in one. Unlike
//! the script it refuses a subnet file that is missing or says too little: a dockerd without `--bip` takes a subnet of its own.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::file::{self, PutError};

/// dockerd's unit reads it, and whoever wants to know.
const FILE: file::Kind = file::Kind { flag: "-d", mode: 0o644, lasting: true };

/// The longest subnet file that is read (bytes): more than six lines ever have.
const LONGEST: u64 = 64 * 1024;

/// What is to be written, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerOpts {
    /// The subnet file.
    pub subnet_file: PathBuf,
    /// The file to write.
    pub docker_file: PathBuf,
    /// Whether each option gets a variable.
    pub individual: bool,
    /// The variable with all options; none where it is not wanted.
    pub combined: Option<String>,
    /// Whether `--ip-masq` is among them.
    pub ip_masq: bool,
}

/// There are no options to write, or they cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum DockerOptsError {
    /// The subnet file cannot be read.
    #[error("cannot read the subnet file {}: is the agent ready?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The subnet file lacks a line that is needed, or it says something else.
    #[error("the subnet file {}: {matter}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is the matter.
        matter: String,
    },
    /// The file for dockerd cannot be written.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl DockerOpts {
    /// Reads the subnet file, and writes the file for dockerd.
    ///
    /// # Errors
    /// [`DockerOptsError`]; a file that was there stays then.
    pub fn write(&self) -> Result<(), DockerOptsError> {
        let path = &self.subnet_file;
        let read = fs::File::open(path).and_then(|file| std::io::read_to_string(std::io::Read::take(file, LONGEST)));
        let text = read.map_err(|source| DockerOptsError::Read { path: path.clone(), source })?;
        let options = self.render(&text).map_err(|matter| DockerOptsError::Content { path: path.clone(), matter })?;
        file::put(&self.docker_file, FILE, |file| file.write_all(options.as_bytes()))?;
        Ok(())
    }

    /// What the subnet file's text comes to.
    ///
    /// # Errors
    /// The line that is missing, or its value that makes no sense.
    pub fn render(&self, subnet_file: &str) -> Result<String, String> {
        let value = |key: &str| {
            let line = subnet_file.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.ok_or_else(|| format!("it has no {key}: is this network IPv6 only?"))
        };
        let bip = value("FLANNEL_SUBNET")?;
        let is_bip = bip
            .split_once('/')
            .is_some_and(|(address, len)| address.parse::<Ipv4Addr>().is_ok() && len.parse::<u32>().is_ok_and(|len| len <= Ipv4Addr::BITS));
        if !is_bip {
            return Err(format!("FLANNEL_SUBNET is {bip:?}, which is no IPv4 address with a prefix length"));
        }
        let mtu: u32 = value("FLANNEL_MTU")?.parse().map_err(|_| "FLANNEL_MTU is no number".to_owned())?;
        let mut options = vec![("BIP", format!("--bip={bip}"))];
        if self.ip_masq {
            // Who masquerades: the agent or Docker, never both.
            options.push(("IPMASQ", format!("--ip-masq={}", value("FLANNEL_IPMASQ")? != "true")));
        }
        options.push(("MTU", format!("--mtu={mtu}")));

        let mut out = String::new();
        // Writing to a String does not fail.
        for (name, option) in options.iter().filter(|_| self.individual) {
            let _ = writeln!(out, "DOCKER_OPT_{name}=\"{option}\"");
        }
        if let Some(name) = &self.combined {
            let all: String = options.iter().map(|(_, option)| format!(" {option}")).collect();
            let _ = writeln!(out, "{name}=\"{all}\"");
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> DockerOpts {
        let (subnet_file, docker_file) = (PathBuf::from("in"), PathBuf::from("out"));
        DockerOpts { subnet_file, docker_file, individual: true, combined: Some("DOCKER_OPTS".to_owned()), ip_masq: true }
    }

    #[test]
    fn a_subnet_file_that_says_too_little_or_nonsense_is_refused_by_the_line() {
        let good = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.52.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        assert!(all().render(good).is_ok());
        for (from, to, words) in [
            ("FLANNEL_SUBNET=10.5.52.1/24", "", "no FLANNEL_SUBNET"),
            ("10.5.52.1/24", "10.5.52.1/33", "no IPv4 address"),
            ("10.5.52.1/24", "$(reboot)", "no IPv4 address"),
            ("MTU=1450", "MTU=1450\"; x", "FLANNEL_MTU is no number"),
            ("FLANNEL_IPMASQ=true", "", "no FLANNEL_IPMASQ"),
        ] {
            let error = all().render(&good.replace(from, to)).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn without_a_subnet_file_the_old_options_stay() {
        let root = tempfile::tempdir().unwrap();
        let (subnet_file, docker_file) = (root.path().join("none"), root.path().join("opts"));
        fs::write(&docker_file, "old").unwrap();
        let error = DockerOpts { subnet_file, docker_file: docker_file.clone(), ..all() }.write().unwrap_err().to_string();
        assert!(error.contains("is the agent ready"), "{error}");
        assert_eq!(fs::read_to_string(docker_file).unwrap(), "old");
    }
}
