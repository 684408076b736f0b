//! Hints that a file may have changed: inotify on the directories in which files stand.
//!
//! A hint is no more than that: what counts is what the file says. A directory that goes and comes back, and another that is put in its
//! place, are watched again by [`Hints::arm`]. What inotify does not tell (a file system mounted over it), a look each [`AUDIT`] does.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchDescriptor, WatchMask};

/// How often to look without a hint.
pub const AUDIT: Duration = Duration::from_secs(30);
/// How long a writer is left to finish after a hint; also what bounds the looks that a flood of hints causes.
pub const SETTLE: Duration = Duration::from_millis(10);

/// The directories of some files, watched.
#[derive(Debug)]
pub struct Hints {
    events: Option<EventStream<[u8; 4096]>>,
    directories: Vec<(PathBuf, Option<WatchDescriptor>)>,
}

impl Hints {
    /// For the directories in which these files stand; [`arm`](Self::arm) begins. Must be called within a tokio runtime.
    ///
    /// Without inotify (its instances used up) there never is a hint; the error says so.
    #[must_use]
    pub fn of(files: &[&Path]) -> (Self, Option<io::Error>) {
        let (events, error) = match Inotify::init().and_then(|inotify| inotify.into_event_stream([0; 4096])) {
            Ok(events) => (Some(events), None),
            Err(error) => (None, Some(error)),
        };
        let mut directories: Vec<PathBuf> = files.iter().map(|file| directory_of(file).to_owned()).collect();
        directories.sort();
        directories.dedup();
        (Self { events, directories: directories.into_iter().map(|directory| (directory, None)).collect() }, error)
    }

    /// Watches the directories that now stand at their paths. Asking again for the same ones changes nothing in the kernel.
    pub fn arm(&mut self) {
        let Some(events) = &self.events else { return };
        let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVE | WatchMask::DELETE | WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
        let mut watches = events.watches();
        for (directory, watched) in &mut self.directories {
            let now = watches.add(&*directory, mask | WatchMask::ONLYDIR).ok();
            if let Some(old) = watched.take().filter(|old| Some(old) != now.as_ref()) {
                // One whose directory is gone has been removed by the kernel.
                let _ = watches.remove(old);
            }
            *watched = now;
        }
    }

    /// Waits for something that may concern the file `name`, or without a name, any file.
    pub async fn next(&mut self, name: Option<&OsStr>) {
        while let Some(events) = &mut self.events {
            match events.next().await {
                // What has no name concerns the directory, or says that events were lost.
                Some(Ok(event)) if name.is_none() || event.name.is_none() || event.name.as_deref() == name => return,
                Some(Ok(_)) => {}
                // A stream that fails once would fail at once again: from here on the regular look has to do.
                Some(Err(_)) | None => self.events = None,
            }
        }
        std::future::pending().await
    }
}

fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
