//! What a failed call to the API server means for the next one.

use std::error::Error as StdError;

use kube::Error;

use super::ask::Right;
use crate::store::StoreError;
use crate::store::causes::with_causes;

/// Why a call failed, sorted by what helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// No answer, or one that only says that it cannot answer now: another attempt helps.
    Unreachable(String),
    /// It does not know who we are (401). A token is renewed in its file before it ends: reading that again helps.
    Unknown(String),
    /// We may not do that (403), or have not what it takes to ask. A person has to act.
    Denied(String),
    /// It is not there (404).
    Missing(String),
    /// Somebody else has written meanwhile (409).
    Conflict,
    /// The history that was asked for is gone (410): listing helps.
    Gone,
    /// An answer that makes no sense to us.
    Protocol(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(status) => Self::from_status(status.code, &status.message),
            Error::SerdeError(error) => Self::Protocol(format!("an answer that cannot be read: {error}")),
            Error::FromUtf8(error) => Self::Protocol(format!("an answer that is no UTF-8: {error}")),
            Error::BuildRequest(error) => Self::Protocol(error.to_string()),
            Error::HttpError(error) => Self::Protocol(error.to_string()),
            // What these two say of themselves is no more than their names.
            Error::Service(error) => Self::from_cause(error.as_ref()),
            Error::HyperError(error) => Self::from_cause(&error),
            Error::ReadEvents(error) => Self::from_cause(&error),
            Error::Auth(error) => Self::Denied(with_causes(error.to_string(), error.source())),
            Error::RustlsTls(error) => Self::Denied(with_causes(error.to_string(), error.source())),
            other => Self::Unreachable(with_causes(other.to_string(), other.source())),
        }
    }
}

impl Failure {
    fn from_cause(error: &(dyn StdError + 'static)) -> Self {
        Self::Unreachable(with_causes(error.to_string(), error.source()))
    }

    /// What a `Status` of the API server means: HTTP's codes, as the API conventions use them
    /// (<https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md>, "HTTP Status codes").
    pub(super) fn from_status(code: u16, message: &str) -> Self {
        let text = || crate::excerpt(message);
        match code {
            401 => Self::Unknown(text()),
            403 => Self::Denied(text()),
            404 => Self::Missing(text()),
            409 => Self::Conflict,
            410 => Self::Gone,
            429 | 500.. => Self::Unreachable(format!("it answers {code}: {}", text())),
            _ => Self::Protocol(format!("it answers {code}: {}", text())),
        }
    }

    /// Whether who asked for this has got nothing to go by.
    pub(super) fn is_useless(&self, right: Right) -> bool {
        !self.is_answer() || (right.is_of_all_nodes() && matches!(self, Self::Missing(_) | Self::Protocol(_)))
    }

    /// Whether the server was there to say so.
    pub(super) fn is_answer(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Unknown(_) | Self::Denied(_) => false,
            Self::Missing(_) | Self::Conflict | Self::Gone | Self::Protocol(_) => true,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(text) | Self::Denied(text) | Self::Missing(text) | Self::Protocol(text) => out.write_str(text),
            Self::Unknown(text) => {
                write!(out, "it does not take our credentials ({text}): is the token, or the kubeconfig, of this cluster and still valid?")
            }
            Self::Conflict => out.write_str("the Node was written by others each time"),
            Self::Gone => out.write_str("the history is no longer there"),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let text = failure.to_string();
        match failure {
            Failure::Unreachable(_) | Failure::Conflict => Self::Unavailable(text),
            Failure::Unknown(_) | Failure::Denied(_) => Self::Denied(text),
            Failure::Missing(_) | Failure::Gone | Failure::Protocol(_) => Self::Protocol(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_says_what_helps() {
        let said = |code| Failure::from_status(code, "x");
        assert_eq!(said(410), Failure::Gone);
        assert_eq!(said(409), Failure::Conflict);
        assert!(matches!(said(404), Failure::Missing(_)) && matches!(said(422), Failure::Protocol(_)));
        for code in [429, 500, 503, 504] {
            assert!(matches!(said(code), Failure::Unreachable(_)), "{code}");
        }
        assert!(matches!(StoreError::from(said(401)), StoreError::Denied(text) if text.contains("token")));
        assert!(matches!(StoreError::from(said(403)), StoreError::Denied(_)));
    }
}
