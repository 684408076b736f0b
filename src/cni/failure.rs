//! What the plugin answers when it cannot do what it was asked: CNI's error object, on standard output.

use std::fmt::Display;

use serde_json::json;

/// What kind of failure it is: the codes of CNI's specification, "Error", and from 100 on a plugin's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The configuration is of a version that we do not speak, or in which there is no such command.
    IncompatibleVersion,
    /// There is no such container.
    UnknownContainer,
    /// A variable that should tell what to do does not.
    Environment,
    /// A file cannot be read or written.
    Io,
    /// What came on standard input is no JSON.
    Decode,
    /// The configuration cannot be used.
    Config,
    /// Nothing is wrong but that it is too early.
    TryAgainLater,
    /// The plugin cannot serve an ADD.
    NotAvailable,
    /// The delegate cannot be run, or did not end by itself.
    Delegate,
}

impl Code {
    /// As the specification numbers it.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnknownContainer => 3,
            Self::Environment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::Config => 7,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
            Self::Delegate => 100,
        }
    }
}

/// It was not done, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure it is.
    pub code: Code,
    message: String,
    remedy: String,
}

impl Failure {
    /// What failed, without a remedy beyond what it says.
    pub fn new(code: Code, message: impl Display) -> Self {
        Self { code, message: message.to_string(), remedy: String::new() }
    }

    /// The same with what would mend it.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Display) -> Self {
        Self { remedy: remedy.to_string(), ..self }
    }

    /// The same as a failure of another kind: what it means is for who asked.
    #[must_use]
    pub(super) fn with_code(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// The error object, for a configuration of this version.
    #[must_use]
    pub fn json(&self, version: &str) -> String {
        let Self { code, message, remedy } = self;
        let mut object = json!({ "cniVersion": version, "code": code.number(), "msg": format!("flannel: {message}") });
        if !remedy.is_empty()
            && let Some(fields) = object.as_object_mut()
        {
            fields.insert("details".to_owned(), remedy.as_str().into());
        }
        format!("{object}\n")
    }
}
