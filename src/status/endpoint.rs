//! The socket's place in the file system: one agent at a time, a dead one's socket taken over, never a moment without the
//! right mode.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use lease::Denied;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::net::UnixListener;

/// The status socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another agent answers there.
    #[error("an agent is already running with this subnet file: process {pid} answers on {}; stop it, or give another --subnet-file", path.display())]
    Running {
        /// The socket.
        path: PathBuf,
        /// The other agent.
        pid: i32,
    },
    /// The system refuses.
    #[error("cannot open the status socket {}: {step} failed{}", path.display(), Denied::of(directory(path), source))]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// Only root, or whoever runs the agent, may ask: the report names every host.
const MODE: u32 = 0o600;
/// Another agent that starts at the same moment holds the directory no longer than this.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A listening socket at its path, taken away when dropped.
#[derive(Debug)]
pub(super) struct Endpoint {
    path: PathBuf,
    inode: u64,
    pub(super) listener: UnixListener,
}

impl Endpoint {
    /// Opens the socket at `path`, in place of one that nobody answers on. Must be called within a tokio runtime.
    pub(super) fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |step| move |source| BindError::Io { path: path.to_owned(), step, source };
        let directory = directory(path);
        fs::create_dir_all(directory).map_err(failed("making its directory"))?;
        // Held until the socket stands, so that of two agents that start together one sees the other's.
        let _lock = lock(directory).map_err(failed("locking its directory"))?;
        if let Some(pid) = who_answers(path) {
            return Err(BindError::Running { path: path.to_owned(), pid });
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = directory.join(format!(".{name}.tmp"));
        let _ = fs::remove_file(&temporary);
        let listener = UnixListener::bind(&temporary).map_err(failed("binding"))?;
        let placed = fs::set_permissions(&temporary, Permissions::from_mode(MODE))
            .and_then(|()| fs::metadata(&temporary))
            .and_then(|metadata| fs::rename(&temporary, path).map(|()| metadata.ino()))
            .inspect_err(|_| {
                let _ = fs::remove_file(&temporary);
            });
        Ok(Self { path: path.to_owned(), inode: placed.map_err(failed("putting it in place"))?, listener })
    }

    /// Whether it is still this socket that stands at the path.
    pub(super) fn in_place(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if self.in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn lock(directory: &Path) -> io::Result<Option<Flock<File>>> {
    let mut handle = File::open(directory)?;
    for _ in 0..LOCK_TRIES {
        match Flock::lock(handle, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((back, Errno::EWOULDBLOCK)) => handle = back,
            // A file system without locks: go on without.
            Err((_, Errno::EOPNOTSUPP | Errno::ENOLCK)) => return Ok(None),
            Err((_, error)) => return Err(error.into()),
        }
        thread::sleep(LOCK_PAUSE);
    }
    // Somebody holds the directory for good. That is no agent that is starting.
    Ok(None)
}

/// The process that listens at `path`, if one does.
fn who_answers(path: &Path) -> Option<i32> {
    let stream = std::os::unix::net::UnixStream::connect(path).ok()?;
    // The credentials of whoever called listen(2).
    Some(getsockopt(&stream, PeerCredentials).map_or(0, |credentials| credentials.pid()))
}
