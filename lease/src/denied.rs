//! A file that was refused: why, and what opens it.
//!
//! The agent gives up the rights that override a file's mode, so that being root is not enough to read another account's key.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// Why a file was closed to us, and what opens it: to be put behind the error. Empty for errors of another kind.
#[derive(Debug)]
pub struct Denied(Option<Refused>);

#[derive(Debug)]
struct Refused {
    path: PathBuf,
    owner: u32,
    group: u32,
    mode: u32,
    us: u32,
}

impl Denied {
    /// Looks at the file if it was refused.
    #[must_use]
    pub fn of(path: &Path, error: &io::Error) -> Self {
        if error.kind() != io::ErrorKind::PermissionDenied {
            return Self(None);
        }
        let mode = fs::metadata(path).ok().map(|file| Refused {
            path: path.to_owned(),
            owner: file.uid(),
            group: file.gid(),
            mode: file.mode() & 0o7777,
            us: geteuid().as_raw(),
        });
        Self(mode)
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Some(Refused { path, owner, group, mode, us })) = self else { return Ok(()) };
        write!(
            out,
            "; {} belongs to user {owner} and group {group} with mode {mode:04o}, and loden is user {us} and overrides no mode: \
             chown it to {us}, or chmod it",
            path.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_file_is_told_with_its_owner_and_mode_and_others_are_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let denied = |kind| Denied::of(file.path(), &io::Error::from(kind)).to_string();
        let text = denied(io::ErrorKind::PermissionDenied);
        assert!(text.contains("mode 0600") && text.contains(&format!("chown it to {}", geteuid())), "{text}");
        assert_eq!(denied(io::ErrorKind::NotFound), "");
    }
}
