//! The network configuration list that container runtimes read: checked before it is put where they do.

use std::io;
use std::path::Path;

use serde_json::Value;

use crate::cni;

/// Its name in the runtimes' directory: flannel's.
pub(super) const NAME: &str = "10-flannel.conflist";
/// What runtimes read there: the configurations' extensions (libcni's `ConfFiles`); of all, the first by name is in force.
const READ: [&str; 3] = ["conf", "conflist", "json"];

/// A list that cannot be installed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no JSON.
    #[error("it is no JSON: {0}")]
    Json(String),
    /// A field is missing, or is something else.
    #[error("{0}")]
    Field(String),
    /// It leaves our plugin out.
    #[error("none of its plugins is of type {}, so pods would get no address of the overlay", cni::PLUGIN)]
    NotOurs,
}

/// Whether runtimes can use it, and call our plugin by it.
///
/// # Errors
/// [`Refused`].
pub(super) fn check(text: &str) -> Result<(), Refused> {
    let list: Value = serde_json::from_str(text).map_err(|error| Refused::Json(error.to_string()))?;
    let field = |message: &str| Err(Refused::Field(message.to_owned()));
    if list.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
        return field("it has no name");
    }
    let Some(plugins) = list.get("plugins").and_then(Value::as_array) else { return field("it has no list of plugins") };
    let types: Option<Vec<&str>> = plugins.iter().map(|plugin| plugin.get("type")?.as_str()).collect();
    match types {
        None => field("one of its plugins has no type"),
        Some(types) if !types.contains(&cni::PLUGIN) => Err(Refused::NotOurs),
        Some(_) => Ok(()),
    }
}

/// The configuration that runtimes take instead of ours: the first by name.
///
/// # Errors
/// When the directory cannot be listed.
pub(super) fn before_ours(directory: &Path) -> io::Result<Option<String>> {
    let mut first: Option<String> = None;
    for entry in directory.read_dir()? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let read = Path::new(&name).extension().is_some_and(|extension| READ.iter().any(|one| *one == extension));
        if read && name.as_str() < first.as_deref().unwrap_or(NAME) {
            first = Some(name);
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_runtimes_could_not_use_is_refused_with_what_is_wrong() {
        for (text, named) in [
            ("", "no JSON"),
            (r#"{"plugins":[{"type":"flannel"}]}"#, "no name"),
            (r#"{"name":"x","type":"flannel"}"#, "no list of plugins"),
            (r#"{"name":"x","plugins":[{"type":"flannel"},{}]}"#, "no type"),
            (r#"{"name":"x","plugins":[]}"#, "of type flannel"),
            (r#"{"name":"x","plugins":[{"type":"bridge"}]}"#, "of type flannel"),
        ] {
            let error = check(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
        assert_eq!(check(r#"{"name":"x","plugins":[{"type":"flannel","delegate":{}},{"type":"portmap"}]}"#), Ok(()));
    }

    #[test]
    fn what_runtimes_take_before_ours_is_the_first_by_name_of_what_they_read() {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str| std::fs::write(root.path().join(name), "{}").unwrap();
        for name in [NAME, "99-x.conf", "00-x.conflist.bak", ".10-flannel.conflist.tmp"] {
            put(name);
        }
        assert_eq!(before_ours(root.path()).unwrap(), None);
        for name in ["10-calico.conflist", "05-x.json"] {
            put(name);
            assert_eq!(before_ours(root.path()).unwrap().as_deref(), Some(name));
        }
    }
}
