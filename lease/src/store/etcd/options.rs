//! How etcd is reached: what the user said, checked before the first connection so that a mistake is named at once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{ConnectOptions, TlsOptions};
use tracing::warn;

use super::{PemError, pem};

/// How long a TCP connection and its TLS handshake may take. The attempt of a call that it is for mostly ends before.
const CONNECT_DEADLINE: Duration = Duration::from_secs(12);

/// How often the connection is probed by HTTP/2 pings. etcd cuts connections that ping more often than every 5 s
/// (`--grpc-keepalive-min-time`).
const PING_INTERVAL: Duration = Duration::from_secs(6);

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
#[derive(Clone)]
pub struct Secret {
    text: String,
    /// Where it stands: read again for every login.
    file: Option<PathBuf>,
}

impl Secret {
    /// The password itself.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self { text, file: None }
    }

    /// What a file holds, without the line's end. It is read again whenever it is needed.
    ///
    /// # Errors
    /// [`OptionsError::Password`] naming the file.
    pub fn from_file(path: &Path) -> Result<Self, OptionsError> {
        let wrong = |reason| OptionsError::Password { file: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let text = text.trim_end_matches(['\r', '\n']).to_owned();
        if text.is_empty() {
            return Err(wrong("it is empty".to_owned()));
        }
        Ok(Self { text, file: Some(path.to_owned()) })
    }

    fn again(&self) -> Result<Self, OptionsError> {
        self.file.as_deref().map_or_else(|| Ok(self.clone()), Self::from_file)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Secret {}

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

/// The options, checked. What stands in files is read anew for every connection, since certificates and passwords change
/// while we run.
pub(super) struct Settings {
    /// At least one, each with its scheme.
    pub(super) endpoints: Vec<String>,
    pub(super) prefix: String,
    tls: Option<TlsPaths>,
    user: Option<String>,
    password: Option<Secret>,
    /// What was read last and was whole: a file that is being written is no reason to lose the store.
    last_good: Mutex<Secrets>,
    /// What is the matter with the files now, so that it is told once.
    trouble: Mutex<Option<String>>,
}

/// The TLS files. Without authorities the system's own serve.
#[derive(Debug)]
struct TlsPaths {
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

/// What the files hold.
#[derive(Clone)]
struct Secrets {
    tls: Option<TlsOptions>,
    login: Option<(String, Secret)>,
}

impl Settings {
    /// The client's options; with a token unless the server turned out to know no users. A connection that answers no ping
    /// for three quarters of our patience is dead.
    pub(super) fn connect_options(&self, with_login: bool, patience: Duration) -> ConnectOptions {
        let Secrets { tls, login } = self.secrets();
        let connect = ConnectOptions::new()
            .with_connect_timeout(CONNECT_DEADLINE)
            .with_keep_alive(PING_INTERVAL, patience * 3 / 4)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        let connect = tls.into_iter().fold(connect, ConnectOptions::with_tls);
        match login {
            Some((user, password)) if with_login => connect.with_user(user, password.text),
            Some(_) | None => connect,
        }
    }

    /// What the files hold now, or held when they were whole last.
    fn secrets(&self) -> Secrets {
        let mut good = self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match read(self.tls.as_ref(), self.user.as_ref(), self.password.as_ref()) {
            Ok(secrets) => {
                *good = secrets;
                *trouble = None;
            }
            Err(error) => {
                let text = error.to_string();
                if trouble.as_ref() != Some(&text) {
                    warn!(error = text, "what was read before is used for etcd");
                    *trouble = Some(text);
                }
            }
        }
        good.clone()
    }
}

/// Reads the files.
fn read(tls: Option<&TlsPaths>, user: Option<&String>, password: Option<&Secret>) -> Result<Secrets, OptionsError> {
    let tls = match tls {
        Some(TlsPaths { ca, identity }) => {
            let tls = match ca {
                Some(ca) => TlsOptions::new().ca_certificate(pem::authorities(ca)?),
                None => TlsOptions::new().with_native_roots(),
            };
            let identity = identity.as_ref().map(|(cert, key)| pem::identity(cert, key)).transpose()?;
            Some(identity.into_iter().fold(tls, TlsOptions::identity))
        }
        None => None,
    };
    let login = match (user, password) {
        (Some(user), Some(password)) => Some((user.clone(), password.again()?)),
        (None, None) => None,
        (Some(_), None) => return Err(OptionsError::NoPassword),
        (None, Some(_)) => return Err(OptionsError::NoUser),
    };
    Ok(Secrets { tls, login })
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
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return Err(OptionsError::HalfIdentity { given: "certificate", missing: "key" }),
            (None, Some(_)) => return Err(OptionsError::HalfIdentity { given: "key", missing: "certificate" }),
        };
        let files = TlsPaths { ca: ca_file, identity };
        // With http:// throughout, the files are of no use; flanneld takes that, and the caller has said so.
        let plain = endpoints.iter().all(|endpoint| endpoint.trim().starts_with("http://"));
        let tls_wanted = !plain && (files.identity.is_some() || files.ca.is_some());
        let endpoints: Vec<String> = endpoints
            .iter()
            .map(|endpoint| endpoint.trim())
            .filter(|endpoint| !endpoint.is_empty())
            .map(|endpoint| check_endpoint(endpoint, tls_wanted))
            .collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(OptionsError::NoEndpoint);
        }
        // Files that are of no use are looked at all the same: a mistake in them is named at once.
        let encrypted = endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
        let user = username.filter(|user| !user.is_empty());
        let password = password.filter(|password| !password.text.is_empty());
        let Secrets { tls, login } = read(Some(&files), user.as_ref(), password.as_ref())?;
        let last_good = Mutex::new(Secrets { tls: tls.filter(|_| encrypted), login });
        let tls = encrypted.then_some(files);
        let prefix = prefix.trim_end_matches('/').to_owned();
        Ok(Settings { endpoints, prefix, tls, user, password, last_good, trouble: Mutex::default() })
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
