//! How etcd is reached: what the user said, checked before the first connection so that a mistake is named at once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{ConnectOptions, TlsOptions};

use super::pem::{self, PemError};

/// How long a TCP connection and its TLS handshake may take. Within one attempt of a call.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// How often the connection is probed by HTTP/2 pings. etcd cuts connections that ping more often than it likes, every 2 s
/// for one; at 10 s and above it never did, and a hung server is still found within a quarter of a minute.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How long the answer to such a ping may take.
const PING_DEADLINE: Duration = Duration::from_secs(5);

/// How etcd is reached.
#[derive(Debug, Clone, Default)]
pub struct EtcdOptions {
    /// Where etcd listens, `http://HOST:PORT` or `https://HOST:PORT`. They are tried in turn.
    pub endpoints: Vec<String>,
    /// What all keys begin with, such as `/coreos.com/network`.
    pub prefix: String,
    /// The authorities that the server's certificate is checked with; the system's own where there is none.
    pub ca_file: Option<PathBuf>,
    /// The certificate to show to the server.
    pub cert_file: Option<PathBuf>,
    /// The certificate's key.
    pub key_file: Option<PathBuf>,
    /// Who to log in as.
    pub username: Option<String>,
    /// And with what.
    pub password: Option<Secret>,
}

/// A password. It prints as dots.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The password itself.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// What a file holds, without the line's end.
    ///
    /// # Errors
    /// [`OptionsError::Password`] naming the file.
    pub fn from_file(path: &Path) -> Result<Self, OptionsError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| OptionsError::Password { file: path.to_owned(), reason: error.to_string() })?;
        Ok(Self(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("…")
    }
}

/// The options cannot be meant like this.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// No endpoint.
    #[error("no etcd endpoint is given: http://HOST:PORT is wanted, or several with commas between them")]
    NoEndpoint,
    /// Not an endpoint.
    #[error("etcd endpoint {endpoint:?} {reason}")]
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A certificate without its key, or the other way round.
    #[error("the etcd client {given} file is given without the {missing} file: both are needed")]
    HalfIdentity {
        /// What is there.
        given: &'static str,
        /// What is not.
        missing: &'static str,
    },
    /// A password without a user.
    #[error("an etcd password is given without a user name")]
    NoUser,
    /// A user without a password.
    #[error("an etcd user name is given without a password")]
    NoPassword,
    /// A TLS file that cannot be used.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The password's file cannot be read.
    #[error("the etcd password cannot be read from {}: {reason}", file.display())]
    Password {
        /// Which file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The options, checked and in the client's terms.
pub(super) struct Settings {
    /// At least one, each with its scheme.
    pub(super) endpoints: Vec<String>,
    pub(super) prefix: String,
    pub(super) connect: ConnectOptions,
    pub(super) login: Option<(String, Secret)>,
}

impl Settings {
    /// The client's options; with a token unless the server turned out to know no users.
    pub(super) fn connect_options(&self, with_login: bool) -> ConnectOptions {
        match &self.login {
            Some((user, Secret(password))) if with_login => self.connect.clone().with_user(user, password),
            Some(_) | None => self.connect.clone(),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Settings").field("endpoints", &self.endpoints).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl EtcdOptions {
    pub(super) fn check(self) -> Result<Settings, OptionsError> {
        let Self { endpoints, prefix, ca_file, cert_file, key_file, username, password } = self;
        let identity = match (cert_file, key_file) {
            (Some(cert), Some(key)) => Some(pem::identity(&cert, &key)?),
            (None, None) => None,
            (Some(_), None) => return Err(OptionsError::HalfIdentity { given: "certificate", missing: "key" }),
            (None, Some(_)) => return Err(OptionsError::HalfIdentity { given: "key", missing: "certificate" }),
        };
        let authorities = ca_file.as_deref().map(pem::authorities).transpose()?;
        // With http:// throughout, the files are of no use; flanneld takes that, and the caller has said so.
        let plain = endpoints.iter().all(|endpoint| endpoint.trim().starts_with("http://"));
        let tls_wanted = !plain && (identity.is_some() || authorities.is_some());
        let endpoints: Vec<String> = endpoints
            .iter()
            .map(|endpoint| endpoint.trim())
            .filter(|endpoint| !endpoint.is_empty())
            .map(|endpoint| check_endpoint(endpoint, tls_wanted))
            .collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(OptionsError::NoEndpoint);
        }
        let mut connect = ConnectOptions::new()
            .with_connect_timeout(CONNECT_DEADLINE)
            .with_keep_alive(PING_INTERVAL, PING_DEADLINE)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        if endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
            let tls = TlsOptions::new();
            let tls = match authorities {
                Some(authorities) => tls.ca_certificate(authorities),
                None => tls.with_native_roots(),
            };
            connect = connect.with_tls(identity.into_iter().fold(tls, TlsOptions::identity));
        }
        let login = match (username.filter(|user| !user.is_empty()), password.filter(|password| !password.0.is_empty())) {
            (Some(user), Some(password)) => Some((user, password)),
            (None, None) => None,
            (Some(_), None) => return Err(OptionsError::NoPassword),
            (None, Some(_)) => return Err(OptionsError::NoUser),
        };
        Ok(Settings { endpoints, prefix: prefix.trim_end_matches('/').to_owned(), connect, login })
    }
}

/// The endpoint with its scheme: https where TLS files are given and it has none.
fn check_endpoint(endpoint: &str, tls_wanted: bool) -> Result<String, OptionsError> {
    let wrong = |reason| OptionsError::Endpoint { endpoint: endpoint.to_owned(), reason };
    let (scheme, place) = endpoint.split_once("://").unwrap_or((if tls_wanted { "https" } else { "http" }, endpoint));
    let place = place.trim_end_matches('/');
    if scheme == "http" && tls_wanted {
        return Err(wrong("is not encrypted, but others are: write https:// for all, or for none"));
    }
    if scheme != "http" && scheme != "https" {
        return Err(wrong("has a scheme that is neither http nor https"));
    }
    if place.is_empty() || place.contains(|c: char| c.is_whitespace() || c == '/' || c == '@') {
        return Err(wrong("is not of the form http://HOST:PORT"));
    }
    Ok(format!("{scheme}://{place}"))
}
