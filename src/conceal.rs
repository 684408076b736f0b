//! Takes a password off the command line and out of the environment, where `ps` and `/proc` show them.
//!
//! A process cannot safely unsay what it was started with, but it can start itself anew: same process, same program, and the
//! password in a file that has no name. Until then, for the first milliseconds, the password shows; a password file never does.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::cli::{self, Options, PasswordSource};

/// Starts the program anew in this process if it was given a password, and does not return then. Else, and where that
/// cannot be done, it changes nothing. To be called before any thread is started.
pub fn password(options: &Options) {
    let Some(PasswordSource::Given(secret)) =
        options.store.etcd().and_then(|etcd| etcd.credentials.as_ref()).map(|credentials| &credentials.password)
    else {
        return;
    };
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if cli::shows_password(&arguments) {
        tracing::warn!("--etcd-password stood on the command line for all to see: give --etcd-password-file instead");
    }
    let error = match file_with(secret.reveal()) {
        Ok((_open, path)) => start_anew(&cli::with_password_file(&arguments, &path)),
        Err(error) => error,
    };
    tracing::warn!(%error, "the password stays in /proc, for root and this account to read: give --etcd-password-file instead");
}

/// A file in memory, and the name by which this process, and what it becomes, reads it while it is open.
fn file_with(secret: &str) -> io::Result<(File, PathBuf)> {
    // It is not closed on exec: that is what it is for.
    let mut file = File::from(memfd_create("etcd-password", MFdFlags::empty())?);
    file.write_all(secret.as_bytes())?;
    let path = Path::new("/proc/self/fd").join(file.as_raw_fd().to_string());
    // Where no /proc is mounted it would be lost.
    path.try_exists()?.then_some((file, path)).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// Returns only when it cannot be done.
fn start_anew(arguments: &[OsString]) -> io::Error {
    let Some((called, words)) = arguments.split_first() else { return io::Error::from(io::ErrorKind::InvalidInput) };
    match std::env::current_exe() {
        Ok(program) => Command::new(program).arg0(called).args(words).env_remove(cli::PASSWORD_VARIABLE).exec(),
        Err(error) => error,
    }
}
