//! What the runtime asks for: CNI's variables, checked before anything is done with them.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::failure::{Code, Failure};

/// The command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Make a container's interface.
    Add,
    /// Take it down.
    Del,
    /// Say whether it is as it was made.
    Check,
    /// Say whether an ADD could be served.
    Status,
    /// Forget what belongs to none of the attachments that are named.
    Gc,
    /// Say which versions are spoken.
    Version,
}

/// The commands by their names.
const VERBS: [(&str, Verb); 6] = [
    ("ADD", Verb::Add),
    ("DEL", Verb::Del),
    ("CHECK", Verb::Check),
    ("STATUS", Verb::Status),
    ("GC", Verb::Gc),
    ("VERSION", Verb::Version),
];

impl fmt::Display for Verb {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = VERBS.iter().find(|(_, verb)| verb == self).map_or("", |(name, _)| name);
        out.write_str(name)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The command.
    pub verb: Verb,
    /// The container: letters, digits, `_`, `.` and `-`, so that it can be a file's name. Empty where the command is about none.
    pub container: String,
    /// Where the other plugins are.
    pub path: Vec<PathBuf>,
}

const COMMAND: &str = "CNI_COMMAND";
const CONTAINER: &str = "CNI_CONTAINERID";
const NETNS: &str = "CNI_NETNS";
const INTERFACE: &str = "CNI_IFNAME";
const PATH: &str = "CNI_PATH";

/// The kernel's IFNAMSIZ (include/uapi/linux/if.h) less the zero at the end.
const INTERFACE_MAX: usize = 15;

impl Call {
    /// What the variables say; none where there is no command: then no runtime calls, but a person.
    ///
    /// # Errors
    /// [`Code::Environment`] with the variables that are missing or wrong.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>, Failure> {
        let wrong = |message: String| Err(Failure::new(Code::Environment, message));
        let text = |name| variable(name).map(|value| value.to_string_lossy().into_owned()).unwrap_or_default();
        let command = text(COMMAND);
        if command.is_empty() {
            return Ok(None);
        }
        let Some((_, verb)) = VERBS.into_iter().find(|(name, _)| *name == command) else {
            return wrong(format!("{COMMAND} is {command:?}: ADD, DEL, CHECK, STATUS, GC and VERSION are known"));
        };
        let wanted: &[&str] = match verb {
            Verb::Add | Verb::Check => &[CONTAINER, NETNS, INTERFACE, PATH],
            Verb::Del => &[CONTAINER, INTERFACE, PATH],
            Verb::Status | Verb::Gc => &[PATH],
            Verb::Version => &[],
        };
        let missing: Vec<&str> = wanted.iter().copied().filter(|name| text(name).is_empty()).collect();
        if !missing.is_empty() {
            return wrong(format!("{verb} needs {}, which is not set: a container runtime sets it", missing.join(", ")));
        }
        let about_one = wanted.contains(&CONTAINER);
        let container = if about_one { text(CONTAINER) } else { String::new() };
        if about_one && !is_name(&container) {
            return wrong(format!("{CONTAINER} is {container:?}: letters, digits, _ . and - are wanted, the first a letter or a digit"));
        }
        if about_one && !is_interface(&text(INTERFACE)) {
            return wrong(format!("{INTERFACE} is {:?}, which no interface can be called", text(INTERFACE)));
        }
        let path = std::env::split_paths(&variable(PATH).unwrap_or_default()).filter(|folder| !folder.as_os_str().is_empty()).collect();
        Ok(Some(Self { verb, container, path }))
    }
}

/// Whether it can name a container or a network: as the specification has it, "Network configuration format".
#[must_use]
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// Whether an interface can be called so: dev_valid_name (net/core/dev.c, v6.18).
fn is_interface(text: &str) -> bool {
    text.len() <= INTERFACE_MAX && !matches!(text, "" | "." | "..") && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Call>, Failure> {
        Call::read(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    const ADD: [(&str, &str); 5] =
        [(COMMAND, "ADD"), (CONTAINER, "c-1_x.y"), (NETNS, "/run/netns/x"), (INTERFACE, "eth0"), (PATH, "/opt/cni/bin:/usr/lib/cni:")];

    #[test]
    fn each_command_needs_what_the_specification_says() {
        for (name, verb) in VERBS {
            let mut variables = ADD;
            variables[0].1 = name;
            assert_eq!(read(&variables).unwrap().unwrap().verb, verb);
            let needed: Vec<&str> =
                (1..5).filter(|one| read(&[&variables[..*one], &variables[one + 1..]].concat()).is_err()).map(|one| ADD[one].0).collect();
            let wanted: &[&str] = match verb {
                Verb::Add | Verb::Check => &[CONTAINER, NETNS, INTERFACE, PATH],
                Verb::Del => &[CONTAINER, INTERFACE, PATH],
                Verb::Status | Verb::Gc => &[PATH],
                Verb::Version => &[],
            };
            assert_eq!(needed, wanted, "{name}");
        }
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&ADD).unwrap().unwrap().path, ["/opt/cni/bin", "/usr/lib/cni"].map(PathBuf::from));
    }

    #[test]
    fn what_would_leave_its_folder_or_is_no_interface_is_refused() {
        for (place, values) in [
            (1, &["../../etc/passwd", ".", "..", ".x", "a/b", "-x", "a b", "a\0b", "ä"][..]),
            (3, &["..", "a/b", "a:b", "0123456789abcdef", "a b"]),
            (0, &["add", "REMOVE"]),
        ] {
            for value in values {
                let mut variables = ADD;
                variables[place].1 = value;
                let failure = read(&variables).unwrap_err();
                assert_eq!(failure.code, Code::Environment, "{value}");
                assert!(failure.to_string().contains(ADD[place].0), "{failure}");
            }
        }
    }
}
