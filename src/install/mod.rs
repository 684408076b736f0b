//! The plugin and its configuration, installed on a host and kept there: `loden install-cni`, and a task of the agent in Kubernetes.
//!
//! A runtime that finds the configuration gives pods addresses; so it is put in place only once there is a subnet file. Both files take
//! their places whole. What somebody edits or removes is put back, against who keeps doing so ever later. A changed configuration is
//! followed; one that cannot be used is refused, and the last good one stays.

mod conflist;
mod installer;
mod plugin;
mod remove;

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::cni;
use crate::file::{self, PutError};
use crate::hints::{AUDIT, Hints, SETTLE};
use crate::reasons;
use crate::subnet_env::{ReadError, SubnetEnv};
pub use conflist::Refused;
use installer::{Finding, Installer};
pub use remove::remove;

/// What is installed where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallOptions {
    /// The configuration list to install; none is the plugin alone.
    pub conf: Option<PathBuf>,
    /// Where runtimes look for configurations.
    pub conf_dir: PathBuf,
    /// Where runtimes look for plugins.
    pub bin_dir: PathBuf,
}

impl InstallOptions {
    /// The plugin's file.
    #[must_use]
    pub fn plugin(&self) -> PathBuf {
        self.bin_dir.join(cni::PLUGIN)
    }

    /// The configuration's file.
    #[must_use]
    pub fn conflist(&self) -> PathBuf {
        self.conf_dir.join(conflist::NAME)
    }
}

/// It is not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no configuration to install.
    #[error("there is no {}: in Kubernetes it comes from the ConfigMap kube-flannel-cfg; give another place by --cni-conf", .0.display())]
    NoConf(PathBuf),
    /// The configuration cannot be used.
    #[error("{} is not installed: {why}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: Refused,
    },
    /// A file cannot be removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Put(#[from] PutError),
    /// It is too early.
    #[error("the CNI configuration is not installed, since pods would get no address: start the agent first, or wait for it with --watch")]
    NoSubnet(#[source] ReadError),
}

/// Installs once, and says what was done, a line each.
///
/// # Errors
/// [`InstallError`], the first. The plugin is installed also where the configuration cannot be.
pub fn install(options: &InstallOptions, subnet_file: &Path) -> Result<String, InstallError> {
    let mut installer = Installer::new(options.clone());
    let early = options.conf.as_ref().and_then(|_| SubnetEnv::read(subnet_file).err());
    let (findings, _) = installer.look(Instant::now(), options.conf.is_some() && early.is_none());
    let mut out = String::new();
    for finding in findings {
        match finding {
            Finding::Put { path, .. } => out.push_str(&format!("installed {}\n", path.display())),
            Finding::Failed(error) => return Err(error),
            Finding::Shadowed(name) => {
                out.push_str(&format!("# runtimes take {name} before ours: remove it from {}\n", options.conf_dir.display()))
            }
        }
    }
    match early {
        Some(error) => Err(InstallError::NoSubnet(error)),
        None if out.is_empty() => Ok("# installed already\n".to_owned()),
        None => Ok(out),
    }
}

/// Installs, and keeps what is installed; the configuration from the moment on when `ready` ends, which is when pods can have addresses.
/// It then stays, whatever becomes of the agent. What is amiss goes to `say` after each look. Never returns. Must be called within a tokio runtime.
///
/// Cancel safe: files are put whole or not at all.
pub async fn keep(options: InstallOptions, ready: impl Future<Output = ()>, mut say: impl FnMut(Vec<String>)) {
    let (plugin, conflist) = (options.plugin(), options.conflist());
    let files: Vec<&Path> = [&plugin, &conflist].into_iter().chain(&options.conf).map(PathBuf::as_path).collect();
    let (mut hints, unwatched) = Hints::of(&files);
    if let Some(error) = unwatched {
        tracing::warn!(%error, "no inotify: looking at the CNI plugin and its configuration every half minute only");
    }
    let mut installer = Installer::new(options.clone());
    let mut ready = pin!(ready);
    let mut is_ready = false;
    loop {
        hints.arm();
        // Comparing and copying a program of some megabytes is nothing to hold others up with.
        let looked = tokio::task::spawn_blocking(move || {
            let outcome = installer.look(Instant::now(), is_ready);
            (installer, outcome)
        });
        let Ok((back, (findings, again))) = looked.await else {
            tracing::error!("CNI's files are looked after no longer: start the agent again");
            return std::future::pending().await;
        };
        installer = back;
        say(installer.troubles());
        for finding in &findings {
            tell(finding, &options);
        }
        // Its directory may have been made with it, and is not watched yet.
        if findings.iter().any(|finding| matches!(finding, Finding::Put { .. })) {
            continue;
        }
        let again = again.unwrap_or_else(|| Instant::now() + AUDIT);
        tokio::select! {
            () = hints.next(None) => sleep(SETTLE).await,
            () = sleep_until(again) => {}
            () = &mut ready, if !is_ready => is_ready = true,
        }
    }
}

fn tell(finding: &Finding, options: &InstallOptions) {
    match finding {
        Finding::Put { path, in_a_row: 0 } => tracing::info!(path = %path.display(), "CNI file installed"),
        Finding::Put { path, in_a_row } if *in_a_row < FIGHT => {
            tracing::warn!(path = %path.display(), "CNI file was removed or edited: put back");
        }
        Finding::Put { path, in_a_row } => {
            tracing::warn!(path = %path.display(), times = in_a_row, "somebody keeps undoing a CNI file: is flannel's own DaemonSet still there?");
        }
        Finding::Failed(error) => tracing::error!(error = reasons::line(error), "CNI is not installed"),
        Finding::Shadowed(name) => {
            tracing::warn!(file = %options.conf_dir.join(name).display(), ours = conflist::NAME, "runtimes take another CNI configuration before ours: remove it");
        }
    }
}

/// From so many times in a row on it is a fight.
const FIGHT: u32 = 3;
/// How often the subnet file is looked for without a hint.
const SUBNET_LOOK: Duration = Duration::from_secs(1);

/// Waits until the subnet file is there and whole: what [`keep`] waits for where it is not within the agent.
pub async fn subnet(subnet_file: &Path) {
    let (mut hints, _) = Hints::of(&[subnet_file]);
    loop {
        hints.arm();
        match SubnetEnv::read(subnet_file) {
            Ok(_) => return,
            Err(error) => tracing::debug!(%error, "waiting for the subnet file"),
        }
        let _ = timeout(SUBNET_LOOK, hints.next(subnet_file.file_name())).await;
    }
}

/// A configuration is no longer than this (bytes).
const MOST: u64 = 1024 * 1024;

/// The file's text; none where it is not there.
fn read(path: &Path) -> Result<Option<String>, InstallError> {
    file::read(path, MOST).map_err(|source| InstallError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
