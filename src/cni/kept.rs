//! The delegates' configurations, kept for DEL: a file for each container in `dataDir`, where flannel's own plugin has them too.
//!
//! It is there before the delegate runs, so that nothing the delegate made can be left without it; it goes when the delegate has taken
//! all of it down. A power cut may leave an empty one: it is not waited for the disk.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::config::{self, NetConf, Object};
use super::failure::{Code, Failure};
use crate::{file, reasons};

/// Root's alone: a configuration may hold what is nobody's business.
const FILE: file::Kind = file::Kind { flag: "dataDir in the network configuration", mode: 0o600, lasting: false };

/// So old is half a file only when whoever was writing it is no more.
const HALF: Duration = Duration::from_secs(60);

/// One container's.
#[derive(Debug)]
pub(super) struct Kept(PathBuf);

/// What is kept for a container.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    /// The configuration that its delegate was run with.
    Config(Object),
    /// A file that says none.
    Damaged,
    /// Nothing.
    Nothing,
}

impl Kept {
    /// That of a container, whose name can be a file's.
    #[must_use]
    pub(super) fn of(conf: &NetConf, container: &str) -> Self {
        Self(conf.data_dir.join(container))
    }

    /// Keeps it.
    ///
    /// # Errors
    /// [`Code::Io`]; then what was kept before still is.
    pub(super) fn put(&self, config: &[u8]) -> Result<(), Failure> {
        file::put(&self.0, FILE, |file| file.write_all(config)).map_err(|error| Failure::new(Code::Io, reasons::line(&error)))
    }

    /// What is kept.
    ///
    /// # Errors
    /// [`Code::Io`].
    pub(super) fn read(&self) -> Result<Found, Failure> {
        let mut text = Vec::new();
        match File::open(&self.0).and_then(|file| file.take(config::MOST).read_to_end(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(self.failed("read", &error)),
        }
        Ok(match serde_json::from_slice(&text) {
            Ok(Value::Object(config)) if config.get("type").is_some_and(Value::is_string) => Found::Config(config),
            Ok(_) | Err(_) => Found::Damaged,
        })
    }

    /// Keeps it no longer; nor what an ADD that was killed has left beside it.
    ///
    /// # Errors
    /// [`Code::Io`].
    pub(super) fn remove(&self) -> Result<(), Failure> {
        for path in [&self.0, &file::temporary(&self.0)] {
            match fs::remove_file(path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.failed("remove", &error)),
            }
        }
        Ok(())
    }

    fn failed(&self, what: &str, error: &io::Error) -> Failure {
        Failure::new(Code::Io, format!("cannot {what} {}: {error}", self.0.display()))
    }
}

/// Keeps nothing any longer of this network's containers but of those that are attached. Another network's files, and those that do not
/// say whose they are, stay: several networks share the directory.
///
/// # Errors
/// [`Code::Io`], the first; the others are removed all the same.
pub(super) fn collect(conf: &NetConf) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(Code::Io, format!("cannot list {}: {error}", conf.data_dir.display()));
    let entries = match fs::read_dir(&conf.data_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let mut first = Ok(());
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if is_stale(&path, conf) {
            first = first.and(Kept(path).remove());
        }
    }
    first
}

fn is_stale(path: &Path, conf: &NetConf) -> bool {
    let Some(container) = path.file_name().and_then(|name| name.to_str()) else { return false };
    // Half a file of an ADD that was killed, if it is not of one at this moment, of whichever network.
    if container.starts_with('.') && container.ends_with(".tmp") {
        let age = path.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|then| then.elapsed().ok());
        return age.is_some_and(|age| age > HALF);
    }
    let ours = |config: &Object| config.get("name").and_then(Value::as_str) == Some(&conf.name);
    !conf.is_attached(container) && matches!(Kept(path.to_owned()).read(), Ok(Found::Config(config)) if ours(&config))
}
