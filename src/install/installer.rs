//! One look at what is installed: what is wrong is put right, unless somebody keeps undoing it; then ever later.
//!
//! No clock but the one that is passed in, no task, no waiting: that is [`super::keep`]'s.

use std::io::Write;
use std::path::{Path, PathBuf};

use tokio::time::Instant;

use super::plugin::{self, Fingerprint};
use super::{InstallError, InstallOptions, conflist};
use crate::file::{self, PutError};
use crate::pace::Pace;
use crate::reasons;

/// For all to read: runtimes, and people.
const CONFLIST: file::Kind = file::Kind { flag: "--cni-conf-dir", mode: 0o644, lasting: true };

/// What a look has done or found, to be told.
#[derive(Debug)]
pub(super) enum Finding {
    /// This file was put in place; somebody had undone it so many times in a row, 0 for a first time or a new content.
    Put {
        /// The file.
        path: PathBuf,
        /// The times.
        in_a_row: u32,
    },
    /// It cannot be done.
    Failed(InstallError),
    /// The runtimes take this configuration instead of ours.
    Shadowed(String),
}

impl Finding {
    /// What it is that goes on until somebody does something: told once.
    fn trouble(&self) -> Option<String> {
        match self {
            Self::Put { .. } => None,
            Self::Failed(error) => Some(reasons::line(error)),
            Self::Shadowed(name) => Some(format!("runtimes take the CNI configuration {name} before ours: remove it")),
        }
    }
}

/// How one of the files was found.
enum Seen {
    /// As it should be.
    Right,
    /// Not so, and it is for this moment to try again.
    Later(Instant),
    /// There is something to tell.
    Found(Finding),
}

/// A file that is kept.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// Whether we have put it, or found it right, with the content that it is to have now.
    ours: bool,
    pace: Pace,
}

impl Kept {
    fn new(path: PathBuf) -> Self {
        Self { path, ours: false, pace: Pace::default() }
    }

    /// Puts it, unless that was tried, or undone, too lately.
    fn put(&mut self, now: Instant, put: impl FnOnce(&Path) -> Result<(), PutError>) -> Seen {
        if !self.pace.is_due(now) {
            return Seen::Later(self.pace.next());
        }
        let in_a_row = self.pace.report(now);
        let undone = std::mem::replace(&mut self.ours, false);
        Seen::Found(match put(&self.path) {
            Ok(()) => {
                // Our own failures, and what was there before, were nobody's disturbances.
                if !undone {
                    self.pace = Pace::default();
                }
                self.ours = true;
                Finding::Put { path: self.path.clone(), in_a_row: if undone { in_a_row } else { 0 } }
            }
            // It is tried again later and later: the attempt itself is a hint that something has changed.
            Err(error) => Finding::Failed(error.into()),
        })
    }
}

/// What is installed, and what was seen of it.
#[derive(Debug)]
pub(super) struct Installer {
    options: InstallOptions,
    plugin: Kept,
    /// The plugin's file when it was last found right: to compare it again takes milliseconds.
    right: Option<Fingerprint>,
    conflist: Kept,
    /// The last configuration that could be used.
    wanted: Option<String>,
    /// What trouble was told last of plugin, source and configuration, so that it is not told again.
    told: [Option<String>; 3],
}

impl Installer {
    /// Nothing is looked at yet.
    #[must_use]
    pub(super) fn new(options: InstallOptions) -> Self {
        let (plugin, conflist) = (Kept::new(options.plugin()), Kept::new(options.conflist()));
        Self { options, plugin, right: None, conflist, wanted: None, told: [None, None, None] }
    }

    /// Looks, and puts right what is wrong: the plugin, and where `ready` the configuration. Returns what there is to tell, and when to
    /// look again if nothing happens before.
    pub(super) fn look(&mut self, now: Instant, ready: bool) -> (Vec<Finding>, Option<Instant>) {
        let mut seen = vec![self.plugin(now)];
        if ready {
            seen.push(self.source());
            // One that names a plugin that is not there would make the Node ready, and fail every pod on it.
            if plugin::is_executable(&self.plugin.path) {
                seen.push(self.conflist(now));
            }
        }
        let (mut findings, mut again) = (Vec::new(), None);
        for (seen, told) in seen.into_iter().zip(&mut self.told) {
            match seen {
                Seen::Right => *told = None,
                Seen::Later(then) => again = Some(again.map_or(then, |other: Instant| other.min(then))),
                Seen::Found(finding) => {
                    let text = finding.trouble();
                    if text.is_none() || *told != text {
                        findings.push(finding);
                    }
                    *told = text;
                }
            }
        }
        (findings, again)
    }

    /// What is amiss and stays so until somebody does something.
    pub(super) fn troubles(&self) -> Vec<String> {
        self.told.iter().flatten().cloned().collect()
    }

    fn plugin(&mut self, now: Instant) -> Seen {
        let path = &self.plugin.path;
        let print = path.symlink_metadata().ok().map(|metadata| plugin::fingerprint(&metadata));
        if print.is_some() && print == self.right {
            return Seen::Right;
        }
        match plugin::is_this_program(path) {
            Ok(true) => {
                (self.right, self.plugin.ours) = (print, true);
                Seen::Right
            }
            Ok(false) => {
                self.right = None;
                self.plugin.put(now, plugin::put)
            }
            Err(source) => Seen::Found(Finding::Failed(InstallError::Read { path: path.clone(), source })),
        }
    }

    /// Takes over the configuration that is to be installed, if it can be used; one that was taken over before stays in force otherwise.
    fn source(&mut self) -> Seen {
        match self.options.conf.as_deref().map(usable).transpose() {
            Ok(Some(text)) if self.wanted.as_ref() != Some(&text) => {
                self.wanted = Some(text);
                (self.conflist.ours, self.conflist.pace) = (false, Pace::default());
                Seen::Right
            }
            Ok(_) => Seen::Right,
            Err(error) => Seen::Found(Finding::Failed(error)),
        }
    }

    fn conflist(&mut self, now: Instant) -> Seen {
        let Some(wanted) = &self.wanted else { return Seen::Right };
        if !matches!(super::read(&self.conflist.path), Ok(Some(text)) if text == *wanted) {
            return self.conflist.put(now, |path| file::put(path, CONFLIST, |file| file.write_all(wanted.as_bytes())));
        }
        self.conflist.ours = true;
        match conflist::before_ours(&self.options.conf_dir) {
            Ok(Some(other)) => Seen::Found(Finding::Shadowed(other)),
            Ok(None) | Err(_) => Seen::Right,
        }
    }
}

/// The text of a configuration that can be installed.
fn usable(path: &Path) -> Result<String, InstallError> {
    let text = super::read(path)?.ok_or_else(|| InstallError::NoConf(path.to_owned()))?;
    conflist::check(&text).map_err(|why| InstallError::Refused { path: path.to_owned(), why })?;
    Ok(text)
}
