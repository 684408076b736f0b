//! The plugin: a copy of this program under the name `flannel`, in the directory where container runtimes look for plugins.
//!
//! It takes its place whole, by rename, and is closed for writing before: who calls it at that moment runs the old one or the new one.

use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::cni;
use crate::file::{self, PutError};

/// This program's own file, also after it has been replaced.
const OURSELVES: &str = "/proc/self/exe";
const FILE: file::Kind = file::Kind { flag: "--cni-bin-dir", mode: 0o755, lasting: true };
/// What others may do with it: read and execute.
const EXECUTABLE: u32 = 0o555;

/// What tells whether a file has changed since it was last read: a change of content or mode changes its times.
pub(super) type Fingerprint = (u64, u64, u64, i64, i64, i64, i64);

pub(super) fn fingerprint(metadata: &Metadata) -> Fingerprint {
    let Metadata { .. } = metadata;
    (metadata.dev(), metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec())
}

/// Copies this program there.
///
/// # Errors
/// [`PutError`]; what was there stays.
pub(super) fn put(path: &Path) -> Result<(), PutError> {
    file::put(path, FILE, |file| io::copy(&mut File::open(OURSELVES)?, file).map(drop))
}

/// Whether the file is this program, to be executed by all.
///
/// # Errors
/// When either cannot be read. A file that is not there is not this program.
pub(super) fn is_this_program(path: &Path) -> io::Result<bool> {
    let there = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let (ours, metadata) = (File::open(OURSELVES)?, there.metadata()?);
    if !metadata.is_file() || metadata.mode() & EXECUTABLE != EXECUTABLE || metadata.len() != ours.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (BufReader::new(ours), BufReader::new(there));
    let (mut expected, mut found) = ([0; CHUNK], [0; CHUNK]);
    loop {
        let (length, other_length) = (fill(&mut one, &mut expected)?, fill(&mut other, &mut found)?);
        if length != other_length || expected.get(..length) != found.get(..length) {
            return Ok(false);
        }
        if length < CHUNK {
            return Ok(true);
        }
    }
}

/// Whether runtimes can call what is there: also flannel's own, which does for the time that ours cannot be put.
pub(super) fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0 && metadata.mode() & EXECUTABLE == EXECUTABLE)
}

const CHUNK: usize = 64 * 1024;

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Whether the file is this program in any version: what it would tell a person stands in it. flannel's own plugin has the same name.
///
/// # Errors
/// When it cannot be read. A file that is not there is not ours.
pub(super) fn is_ours(path: &Path) -> io::Result<bool> {
    let mark = cni::MARK.as_bytes();
    let mut file = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    // Each piece begins with the end of the one before: the mark may stand across both.
    let mut piece = vec![0; CHUNK];
    let mut kept = 0;
    loop {
        let length = kept + fill(&mut file, piece.get_mut(kept..).unwrap_or_default())?;
        let have = piece.get(..length).unwrap_or_default();
        if have.windows(mark.len()).any(|window| window == mark) {
            return Ok(true);
        }
        if length < CHUNK {
            return Ok(false);
        }
        kept = mark.len() - 1;
        piece.copy_within(length - kept..length, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_copy_is_this_program_until_a_byte_or_its_mode_differs() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("bin/flannel");
        assert!(!is_this_program(&path).unwrap());
        put(&path).unwrap();
        assert!(is_this_program(&path).unwrap());
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(!is_this_program(&path).unwrap());
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let mut content = fs::read(&path).unwrap();
        *content.last_mut().unwrap() ^= 1;
        fs::write(&path, content).unwrap();
        assert!(!is_this_program(&path).unwrap());
    }

    #[test]
    fn ours_is_told_by_its_mark_wherever_that_stands() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("flannel");
        assert!(!is_ours(&path).unwrap());
        for before in [0, CHUNK - cni::MARK.len(), CHUNK - 3, CHUNK, 2 * CHUNK - 7] {
            let mut content = vec![b'C'; before];
            content.extend(cni::MARK.as_bytes());
            content.extend([0; 100]);
            fs::write(&path, &content).unwrap();
            assert!(is_ours(&path).unwrap(), "{before}");
            content.truncate(before + cni::MARK.len() - 1);
            fs::write(&path, &content).unwrap();
            assert!(!is_ours(&path).unwrap(), "{before}");
        }
    }
}
