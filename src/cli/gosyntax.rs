//! Go's flag syntax and `FLANNELD_*` variables, brought into the one form `--name=value`.
//!
//! Go's `flag` package takes `-name` and `--name`, `=value` or a following value, and a boolean flag alone. clap knows the
//! last word on values; this pass only settles which words are names, which are values, and who wins. It is pure.
//!
//! Where Go stops reading at the first word that is no flag, and ignores all that follows, this refuses: a flag that is
//! silently ignored has cost people days (`--ip-masq true --iface eth1` sets no interface there).

use std::ffi::OsString;

/// What the pass has to know of a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagSpec {
    /// Its name, without dashes.
    pub name: String,
    /// Whether it stands alone, or takes its value after `=` only.
    pub boolean: bool,
    /// Whether each further one adds a value. Else the last one wins.
    pub repeatable: bool,
    /// Whether an empty value means that it is not given.
    pub unset_by_empty: bool,
    /// Whether a variable stands in for it.
    pub from_environment: bool,
}

/// A flag with its value, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The flag's name, without dashes.
    pub name: String,
    /// Its value. None for a flag that nobody knows, given without `=`.
    pub value: Option<String>,
    /// The variable that gave it; none on the command line.
    pub variable: Option<String>,
}

/// The words do not make flags.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// Dashes with no name behind them.
    #[error("{0:?} is no flag: -name, --name or --name=value is wanted")]
    NoName(String),
    /// The last word is a flag that needs a value.
    #[error("--{0} needs a value: write --{0}=VALUE")]
    NoValue(String),
    /// A word that belongs to no flag.
    #[error("{0:?} belongs to no flag: take it away, or write --name={0} if it is a value")]
    Stray(String),
    /// A word after a boolean flag.
    #[error("{value:?} belongs to no flag: a boolean takes its value after an equals sign, --{flag}={value}")]
    AfterBoolean {
        /// The boolean flag.
        flag: String,
        /// The word after it.
        value: String,
    },
    /// Not text.
    #[error("{what} is not UTF-8: {value:?}")]
    NotText {
        /// The variable's name, or "an argument".
        what: String,
        /// What can be shown of it.
        value: String,
    },
}

impl Given {
    /// It in the one form.
    #[must_use]
    pub fn to_argument(&self) -> String {
        let Self { name, value, variable: _ } = self;
        match value {
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        }
    }
}

/// The variable that stands in for a flag.
#[must_use]
pub(super) fn variable_of(flag: &str) -> String {
    format!("FLANNELD_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// The flags in `words`, and those that only `environment` gives.
///
/// An unknown flag ends the reading and is the last in the answer, for clap to refuse with the nearest name.
///
/// # Errors
/// [`SyntaxError`].
pub fn normalise(
    words: &[OsString],
    environment: impl Fn(&str) -> Option<OsString>,
    specs: &[FlagSpec],
) -> Result<Vec<Given>, SyntaxError> {
    let mut given = on_command_line(words, specs)?;
    for spec in specs.iter().filter(|spec| spec.from_environment) {
        let variable = variable_of(&spec.name);
        // An empty variable is as good as none, as with flanneld.
        let Some(value) = environment(&variable).filter(|value| !value.is_empty()) else { continue };
        if given.iter().all(|flag| flag.name != spec.name) {
            let value = text(&variable, value)?;
            given.push(Given { name: spec.name.clone(), value: Some(value), variable: Some(variable) });
        }
    }
    Ok(settle(given, specs))
}

/// The flags as they stand, one by one.
pub(super) fn on_command_line(words: &[OsString], specs: &[FlagSpec]) -> Result<Vec<Given>, SyntaxError> {
    let mut given: Vec<Given> = Vec::new();
    let mut boolean_before: Option<&str> = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let word = text("an argument", word.clone())?;
        let dashed = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
        let Some(body) = dashed else {
            return Err(match boolean_before {
                Some(flag) => SyntaxError::AfterBoolean { flag: flag.to_owned(), value: word },
                None => SyntaxError::Stray(word),
            });
        };
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        if name.is_empty() || name.starts_with('-') {
            return Err(SyntaxError::NoName(word));
        }
        let name = if name == "h" { "help" } else { name };
        let Some(spec) = specs.iter().find(|spec| spec.name == name) else {
            given.push(Given { name: name.to_owned(), value, variable: None });
            break;
        };
        let alone = spec.boolean && value.is_none();
        let value = match value {
            Some(value) => value,
            None if spec.boolean => "true".to_owned(),
            None => text("an argument", words.next().ok_or_else(|| SyntaxError::NoValue(name.to_owned()))?.clone())?,
        };
        boolean_before = alone.then_some(&spec.name);
        given.push(Given { name: name.to_owned(), value: Some(value), variable: None });
    }
    Ok(given)
}

/// The last of several wins, unless each adds; an empty value takes back what came before.
fn settle(given: Vec<Given>, specs: &[FlagSpec]) -> Vec<Given> {
    let mut settled: Vec<Given> = Vec::with_capacity(given.len());
    for flag in given {
        let spec = specs.iter().find(|spec| spec.name == flag.name);
        if spec.is_some_and(|spec| !spec.repeatable) {
            settled.retain(|earlier| earlier.name != flag.name);
        }
        let emptied = spec.is_some_and(|spec| spec.unset_by_empty) && flag.value.as_deref() == Some("");
        if !emptied {
            settled.push(flag);
        }
    }
    settled
}

fn text(what: &str, value: OsString) -> Result<String, SyntaxError> {
    value.into_string().map_err(|value| SyntaxError::NotText { what: what.to_owned(), value: value.to_string_lossy().into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> Vec<FlagSpec> {
        let spec = |name: &str, boolean, repeatable, unset_by_empty| FlagSpec {
            name: name.to_owned(),
            boolean,
            repeatable,
            unset_by_empty,
            from_environment: name != "help",
        };
        vec![
            spec("ip-masq", true, false, false),
            spec("iface", false, true, true),
            spec("public-ip", false, false, true),
            spec("etcd-prefix", false, false, false),
            spec("v", false, false, false),
            spec("help", true, false, false),
        ]
    }

    fn read(words: &[&str], environment: &[(&str, &str)]) -> Result<Vec<String>, SyntaxError> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let lookup = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        normalise(&words, lookup, &specs()).map(|given| given.iter().map(Given::to_argument).collect())
    }

    #[test]
    fn every_way_to_write_a_flag_in_go_means_the_same() {
        for words in [&["-v", "5"][..], &["--v", "5"], &["-v=5"], &["--v=5"]] {
            assert_eq!(read(words, &[]).unwrap(), ["--v=5"], "{words:?}");
        }
        for words in [&["-ip-masq"][..], &["--ip-masq"], &["-ip-masq=true"]] {
            assert_eq!(read(words, &[]).unwrap(), ["--ip-masq=true"], "{words:?}");
        }
        assert_eq!(read(&["-h"], &[]).unwrap(), ["--help=true"]);
        assert_eq!(read(&["--etcd-prefix", "-odd=name"], &[]).unwrap(), ["--etcd-prefix=-odd=name"]);
    }

    #[test]
    fn the_last_one_wins_and_repeatable_ones_add_up() {
        assert_eq!(read(&["-v=1", "-iface=a", "-v=2", "-iface", "b"], &[]).unwrap(), ["--iface=a", "--v=2", "--iface=b"]);
    }

    #[test]
    fn an_empty_value_unsets_what_has_no_default_and_is_kept_for_the_rest() {
        assert_eq!(read(&["--public-ip=1.2.3.4", "--public-ip=", "--iface=", "--etcd-prefix="], &[]).unwrap(), ["--etcd-prefix="]);
    }

    #[test]
    fn the_command_line_wins_over_the_environment() {
        let environment = [("FLANNELD_IP_MASQ", "true"), ("FLANNELD_IFACE", "eth1"), ("FLANNELD_V", ""), ("FLANNELD_HELP", "true")];
        assert_eq!(read(&["-iface=eth0"], &environment).unwrap(), ["--iface=eth0", "--ip-masq=true"]);
        assert_eq!(read(&["-iface="], &environment).unwrap(), ["--ip-masq=true"]);
    }

    #[test]
    fn words_that_are_no_flags_are_refused_with_the_remedy() {
        for (words, wanted) in [
            (&["--ip-masq", "true"][..], "--ip-masq=true"),
            (&["--ip-masq=true", "x"], "--name=x"),
            (&["x"], "\"x\" belongs to no flag"),
            (&["-"], "\"-\" is no flag"),
            (&["--"], "\"--\" is no flag"),
            (&["---v=1"], "\"---v=1\" is no flag"),
            (&["-=1"], "\"-=1\" is no flag"),
            (&["--v"], "--v needs a value"),
        ] {
            let error = read(words, &[]).unwrap_err().to_string();
            assert!(error.contains(wanted), "{words:?}: {error}");
        }
    }

    #[test]
    fn an_unknown_flag_ends_the_reading() {
        assert_eq!(read(&["--ifcae", "eth0", "--v"], &[]).unwrap(), ["--ifcae"]);
    }

    proptest::proptest! {
        #[test]
        fn what_comes_out_means_the_same_when_read_again(words in proptest::collection::vec("-{0,2}(v|iface|ip-masq|public-ip|x)?=?[a-z-]{0,3}", 0..6)) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            if let Ok(once) = read(&words, &[]) {
                let again: Vec<&str> = once.iter().map(String::as_str).collect();
                proptest::prop_assert_eq!(read(&again, &[]).unwrap(), once);
            }
        }
    }
}
