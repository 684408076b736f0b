//! What a failed call to etcd means for the next one.

use std::error::Error as _;

use etcd_client::Error;

use crate::store::StoreError;
use crate::store::causes::with_causes;

// gRPC status codes, https://grpc.io/docs/guides/status-codes/.
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const FAILED_PRECONDITION: i32 = 9;
const OUT_OF_RANGE: i32 = 11;
const UNIMPLEMENTED: i32 = 12;
const UNAUTHENTICATED: i32 = 16;

/// Why a call failed, sorted by what helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// No answer, or one that only says that this server cannot answer now: another attempt helps, elsewhere if possible.
    Unreachable(String),
    /// Our token has ended: logging in anew helps.
    Token(String),
    /// The server knows no users, and we gave one: going without helps.
    NoUsers,
    /// The history that was asked for is gone, or is not there yet: listing helps.
    Compacted,
    /// No such etcd lease.
    LeaseGone,
    /// Not allowed. A person has to act.
    Denied(String),
    /// An answer that makes no sense to us.
    Protocol(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::GRpcStatus(status) => match Self::from_status(i32::from(status.code()), status.message()) {
                Self::Unreachable(text) => Self::Unreachable(with_causes(text, status.source())),
                other => other,
            },
            Error::LeaseKeepAliveError(text) if text.contains("lease not found") => Self::LeaseGone,
            Error::InvalidArgs(text) => Self::Protocol(text),
            Error::InvalidUri(error) => Self::Protocol(error.to_string()),
            Error::TransportError(error) => Self::Unreachable(with_causes(error.to_string(), error.source())),
            other => Self::Unreachable(with_causes(other.to_string(), other.source())),
        }
    }
}

impl Failure {
    /// The texts are etcd's own (`api/v3rpc/rpctypes/error.go`, the same in 3.4 and 3.5), without which the codes are not enough.
    fn from_status(code: i32, message: &str) -> Self {
        let text = || message.trim_start_matches("etcdserver: ").to_owned();
        match code {
            UNAUTHENTICATED => Self::Token(text()),
            PERMISSION_DENIED => Self::Denied(text()),
            INVALID_ARGUMENT if message.contains("authentication failed") || message.contains("user name is empty") => Self::Denied(text()),
            FAILED_PRECONDITION if message.contains("authentication is not enabled") => Self::NoUsers,
            OUT_OF_RANGE if message.contains("compacted") || message.contains("future revision") => Self::Compacted,
            NOT_FOUND if message.contains("lease not found") => Self::LeaseGone,
            INVALID_ARGUMENT | OUT_OF_RANGE | NOT_FOUND | FAILED_PRECONDITION | UNIMPLEMENTED => Self::Protocol(text()),
            _ if message.contains("invalid auth token") => Self::Token(text()),
            _ => Self::Unreachable(text()),
        }
    }

    /// Why a server ended a watch. etcd 3.4 speaks of the token, 3.5 of the permission when it is the token that has ended.
    pub(super) fn from_cancel(reason: &str) -> Self {
        if reason.contains("invalid auth token") || reason.contains("permission denied") {
            Self::Token(reason.trim_start_matches("etcdserver: ").to_owned())
        } else {
            Self::Unreachable(format!("the server ended the watch: {reason}"))
        }
    }

    /// Whether the server was there to say so.
    pub(super) fn is_answer(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Denied(_) | Self::Token(_) => false,
            Self::NoUsers | Self::Compacted | Self::LeaseGone | Self::Protocol(_) => true,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(text) | Self::Token(text) | Self::Denied(text) | Self::Protocol(text) => out.write_str(text),
            Self::NoUsers => out.write_str("the server has no users"),
            Self::Compacted => out.write_str("the history has been compacted"),
            Self::LeaseGone => out.write_str("no such lease"),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let text = failure.to_string();
        match failure {
            Failure::Unreachable(_) => Self::Unavailable(text),
            Failure::Token(_) | Failure::Denied(_) | Failure::NoUsers => Self::Denied(text),
            Failure::Compacted | Failure::LeaseGone | Failure::Protocol(_) => Self::Protocol(text),
        }
    }
}
