//! Keeping the file in place: notices when somebody removes or edits it.
//!
//! inotify on the directory is a hint to look; what counts is what the file says. A look every half minute catches what
//! inotify does not tell (a file system mounted over it). Against somebody who keeps undoing it, reports come ever
//! slower: never a busy loop.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tokio::time::{Instant, sleep, sleep_until};

use crate::file::{self, PutError};
use crate::hints::{AUDIT, Hints, SETTLE};
use crate::pace::Pace;

/// Everybody may read it: CNI plugins and Docker's scripts do.
const FILE: file::Kind = file::Kind { flag: "--subnet-file", mode: 0o644, lasting: true };
/// More than the file ever holds (bytes): six lines of about 50.
const MOST: u64 = 64 * 1024;

/// Somebody undid the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disturbance {
    /// What they did.
    pub harm: Harm,
    /// How many times in a row, with no calm between: from the third on it is a fight.
    pub in_a_row: u32,
}

/// What was done to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// It is not there.
    Removed,
    /// It says something else.
    Edited,
}

/// The file, its content and its watch.
#[derive(Debug)]
pub struct SubnetFile {
    path: PathBuf,
    wanted: Option<String>,
    hints: Hints,
    pace: Pace,
    /// Whether the last attempt to write it failed.
    failed: bool,
}

impl SubnetFile {
    /// The file at `path`. Nothing is written yet. Must be called within a tokio runtime.
    ///
    /// Without inotify (its instances used up) the file is looked at every half minute only; the error says so.
    #[must_use]
    pub fn new(path: PathBuf) -> (Self, Option<io::Error>) {
        let (hints, error) = Hints::of(&[&path]);
        (Self { path, wanted: None, hints, pace: Pace::default(), failed: false }, error)
    }

    /// Makes the file say `content`. Returns whether it had to be written.
    ///
    /// # Errors
    /// [`PutError`]; the file that was there stays, and [`changed`](Self::changed) tells again, later and later.
    pub async fn ensure(&mut self, content: &str) -> Result<bool, PutError> {
        self.wanted = Some(content.to_owned());
        if harm(&self.path, content).is_none() {
            return Ok(false);
        }
        let (path, content) = (self.path.clone(), content.to_owned());
        match tokio::task::spawn_blocking(move || file::put(&path, FILE, |file| file.write_all(content.as_bytes()))).await {
            Ok(Ok(())) => {
                // Our own failures to write were nobody's disturbances.
                if std::mem::take(&mut self.failed) {
                    self.pace = Pace::default();
                }
                Ok(true)
            }
            Ok(Err(error)) => {
                self.failed = true;
                Err(error)
            }
            // The task neither panics nor is it cancelled while the runtime lives; the next look settles it.
            Err(_) => Ok(false),
        }
    }

    /// Waits until the file no longer says what [`ensure`](Self::ensure) was told. Before the first `ensure`, for ever.
    ///
    /// Cancel safe: what happens in between is seen by the next call.
    pub async fn changed(&mut self) -> Disturbance {
        loop {
            self.hints.arm();
            let Some(wanted) = &self.wanted else { return std::future::pending().await };
            if harm(&self.path, wanted).is_some() {
                sleep_until(self.pace.next()).await;
                // By now it may have been put right.
                if let Some(harm) = harm(&self.path, wanted) {
                    return Disturbance { harm, in_a_row: self.pace.report(Instant::now()) };
                }
            }
            tokio::select! {
                () = self.hints.next(self.path.file_name()) => sleep(SETTLE).await,
                () = sleep(AUDIT) => {}
            }
        }
    }
}

fn harm(path: &Path, wanted: &str) -> Option<Harm> {
    match read(path) {
        Ok(Some(text)) if text == wanted => None,
        Ok(None) => Some(Harm::Removed),
        Ok(Some(_)) | Err(_) => Some(Harm::Edited),
    }
}

/// The file's text, or none when it is not there.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    file::read(path, MOST)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(5);

    async fn in_place(path: &Path) -> SubnetFile {
        let (mut file, error) = SubnetFile::new(path.to_owned());
        assert!(error.is_none(), "{error:?}");
        assert!(file.ensure("a=1\n").await.unwrap());
        assert!(!file.ensure("a=1\n").await.unwrap(), "written twice");
        file
    }

    async fn told(file: &mut SubnetFile) -> Harm {
        timeout(DEADLINE, file.changed()).await.unwrap().harm
    }

    #[tokio::test]
    async fn removal_and_edits_are_told_and_put_right() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("subnet.env");
        let mut file = in_place(&path).await;
        type Act = fn(&Path);
        let remove: Act = |path| fs::remove_file(path).unwrap();
        let edit: Act = |path| fs::write(path, "b=2\n").unwrap();
        let rename: Act = |path| fs::rename(path, path.with_extension("old")).unwrap();
        for (harm, act) in [(Harm::Removed, remove), (Harm::Edited, edit), (Harm::Removed, rename)] {
            let (told, ()) = tokio::join!(told(&mut file), async {
                tokio::task::yield_now().await;
                act(&path);
            });
            assert_eq!(told, harm);
            assert!(file.ensure("a=1\n").await.unwrap());
            assert_eq!(fs::read_to_string(&path).unwrap(), "a=1\n");
        }
    }

    #[tokio::test]
    async fn a_directory_that_goes_and_comes_back_stays_watched() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("flannel/subnet.env");
        let mut file = in_place(&path).await;
        for _ in 0..2 {
            let (told, ()) = tokio::join!(told(&mut file), async {
                tokio::task::yield_now().await;
                fs::remove_dir_all(root.path().join("flannel")).unwrap();
            });
            assert_eq!(told, Harm::Removed);
            assert!(file.ensure("a=1\n").await.unwrap());
        }
    }

    #[tokio::test]
    async fn what_the_file_already_says_is_no_change() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("subnet.env");
        let mut file = in_place(&path).await;
        fs::write(&path, "a=1\n").unwrap();
        fs::write(root.path().join("other"), "").unwrap();
        assert!(timeout(SETTLE * 20, file.changed()).await.is_err());
    }
}
