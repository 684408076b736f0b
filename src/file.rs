//! Writing a file so that readers see the old one or the new one, whole, whatever happens in between.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use lease::Denied;

/// The file was not written. The one that was there is still there.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {step} failed{}{}", path.display(), remedy(source, flag), Denied::of(directory(path), source))]
pub struct PutError {
    path: PathBuf,
    flag: &'static str,
    step: &'static str,
    source: io::Error,
}

fn remedy(error: &io::Error, flag: &str) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room on its file system".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => format!("; its file system is read-only: give another place by {flag}"),
        io::ErrorKind::PermissionDenied => format!("; run as root, or give another place by {flag}"),
        io::ErrorKind::IsADirectory => "; a directory is in its place: remove it".to_owned(),
        _ => String::new(),
    }
}

/// A file that the agent writes.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// The flag that says where it stands.
    pub flag: &'static str,
    /// Who may read it, as chmod(2) has it.
    pub mode: u32,
    /// Whether it has to outlive a power cut, which costs milliseconds.
    pub lasting: bool,
}

const DIRECTORY_MODE: u32 = 0o755;

/// Puts a file in place: into a temporary file beside it, to the disk where that is asked for, and over the old one by rename. A missing
/// directory is made.
///
/// # Errors
/// [`PutError`]; the old file stays in force then, and nothing is left beside it.
pub fn put(path: &Path, kind: Kind, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), PutError> {
    let Kind { flag, mode, lasting } = kind;
    let failed = |step| move |source| PutError { path: path.to_owned(), flag, step, source };
    let directory = directory(path);
    let temporary = temporary(path);

    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(failed("making its directory"))?;
    // One that a crash left behind.
    let _ = fs::remove_file(&temporary);
    write_new(&temporary, mode, write)
        .and_then(|file| if lasting { file.sync_all() } else { Ok(()) })
        .map_err(failed("writing a temporary file beside it"))
        .and_then(|()| fs::rename(&temporary, path).map_err(failed("renaming the temporary file to it")))
        .inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })?;
    if lasting {
        // The rename itself too. It is done in any case, so a file system that cannot sync is no failure.
        let _ = File::open(directory).and_then(|directory| directory.sync_all());
    }
    Ok(())
}

/// Where the file is written before it takes its place: what a crash leaves behind.
#[must_use]
pub fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    directory(path).join(format!(".{name}.tmp"))
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write_new(path: &Path, mode: u32, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // Whatever the umask was.
    file.set_permissions(Permissions::from_mode(mode))?;
    write(&mut file)?;
    Ok(file)
}

/// A file's text up to so many bytes, or none when it is not there. Never waits, and never reads without end, whatever stands there.
///
/// # Errors
/// What the file system says; that it is no regular file, or no text.
pub fn read(path: &Path, most: u64) -> io::Result<Option<String>> {
    let regular = match path.metadata() {
        Ok(metadata) => metadata.is_file(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !regular {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut text = String::new();
    File::open(path)?.take(most).read_to_string(&mut text)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use super::*;

    fn put(path: &Path, content: &str) -> Result<(), PutError> {
        let kind = Kind { flag: "--some-file", mode: 0o644, lasting: true };
        super::put(path, kind, |file| file.write_all(content.as_bytes()))
    }

    fn names(directory: &Path) -> Vec<String> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("made/on/demand/subnet.env");
        for content in ["one\n", "two\n"] {
            put(&path, content).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        let directory = path.parent().unwrap();
        assert_eq!(names(directory), ["subnet.env"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_temporary_file_of_a_crash_is_no_obstacle() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(".subnet.env.tmp"), "half").unwrap();
        put(&root.path().join("subnet.env"), "whole").unwrap();
        assert_eq!(names(root.path()), ["subnet.env"]);
    }

    #[test]
    fn a_directory_in_its_place_is_an_error_that_names_it_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("subnet.env");
        fs::create_dir(&path).unwrap();
        let error = put(&path, "x").unwrap_err().to_string();
        assert!(error.contains("subnet.env") && error.contains("remove it"), "{error}");
        assert_eq!(names(root.path()), ["subnet.env"]);
    }

    /// Not a test by itself: what the next one runs where it has a small file system of its own.
    #[test]
    #[ignore = "run by another test in a mount namespace of its own"]
    fn on_a_small_disk() {
        let directory = PathBuf::from(std::env::var_os("SMALL_DISK").unwrap());
        let path = directory.join("subnet.env");
        put(&path, "old").unwrap();
        let mut filler = File::create(directory.join("filler")).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
        drop(filler);
        let error = put(&path, "new").unwrap_err().to_string();
        assert!(error.contains("make room"), "{error}");
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(&directory).len()), ("old", 2));

        let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&directory).status().unwrap();
        assert!(remounted.success());
        let error = put(&path, "new").unwrap_err().to_string();
        assert!(error.contains("read-only") && error.contains("--some-file"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }

    #[test]
    fn a_full_or_read_only_disk_is_told_and_leaves_the_old_file_in_force() {
        let root = tempfile::tempdir().unwrap();
        let script = "mount -t tmpfs -o size=64k small \"$SMALL_DISK\" && exec \"$0\" --exact file::tests::on_a_small_disk --ignored";
        let done = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .env("SMALL_DISK", root.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    }
}
