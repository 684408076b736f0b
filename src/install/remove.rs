//! What was installed, removed: if it is ours.

use std::io;
use std::path::Path;

use super::{InstallError, InstallOptions, conflist, plugin};

/// Removes the configuration and the plugin, and returns what was removed, or left, a line each.
///
/// The plugin is told by a mark in it: flannel's own has the same name. The configuration is a text that others wrote; it is removed where
/// the plugin that it names is ours, for without that it would let every pod fail. It goes first: if this is stopped, it can be told again.
///
/// # Errors
/// [`InstallError`] where a file cannot be read or removed.
pub fn remove(options: &InstallOptions) -> Result<Vec<String>, InstallError> {
    let (plugin, list) = (options.plugin(), options.conflist());
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| InstallError::Read { path, source }
    };
    if !plugin::is_ours(&plugin).map_err(failed(&plugin))? {
        let left = list.exists().then(|| format!("# {} is left alone: its plugin is not ours", list.display()));
        return Ok(left.into_iter().collect());
    }
    let mut done = Vec::new();
    match super::read(&list) {
        Ok(Some(text)) if conflist::check(&text).is_ok() => del(&list, &mut done)?,
        Ok(None) => {}
        Ok(Some(_)) | Err(_) => done.push(format!("# {} is left alone: it does not name our plugin", list.display())),
    }
    del(&plugin, &mut done)?;
    Ok(done)
}

fn del(path: &Path, done: &mut Vec<String>) -> Result<(), InstallError> {
    match std::fs::remove_file(path) {
        Ok(()) => done.push(format!("rm {}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(InstallError::Remove { path: path.to_owned(), source }),
    }
    Ok(())
}
