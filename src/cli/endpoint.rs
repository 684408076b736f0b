//! Where etcd is and under which prefix: `--etcd-endpoints` and `--etcd-prefix`.

use std::fmt;
use std::str::FromStr;

/// One etcd server. Carries no credentials, so it can be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// Its host name or address, an IPv6 address in brackets.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
}

/// One or more etcd servers, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints(pub Vec<Endpoint>);

/// Not a URL of an etcd server. What it shows of the URL has no user or password in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Nothing between two commas, or nothing at all.
    #[error("an endpoint is empty: give URLs with a comma between, such as http://10.0.0.1:2379,http://10.0.0.2:2379")]
    Empty,
    /// Neither `http://` nor `https://`.
    #[error("{0:?} has no http:// or https:// in front: write http://{0} or https://{0}")]
    NoScheme(String),
    /// A scheme that etcd's API is not spoken over.
    #[error("{0}:// is no way to reach etcd: http:// or https:// is wanted")]
    Scheme(String),
    /// User and password in the URL.
    #[error("the endpoint at {0} has credentials in it: give them by --etcd-username and --etcd-password-file")]
    Credentials(String),
    /// No port.
    #[error("{0:?} has no port: write {0}:2379 if etcd listens at its usual one")]
    NoPort(String),
    /// Something else.
    #[error("{url:?} is no endpoint: {reason}")]
    Malformed {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(EndpointError::Empty);
        }
        let shown = text.rsplit_once('@').map_or(text, |(_, host)| host);
        let Some((scheme, rest)) = text.split_once("://") else { return Err(EndpointError::NoScheme(shown.to_owned())) };
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            other => return Err(EndpointError::Scheme(other.to_owned())),
        };
        if rest.contains('@') {
            return Err(EndpointError::Credentials(shown.to_owned()));
        }
        let malformed = |reason| EndpointError::Malformed { url: text.to_owned(), reason };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(|c: char| matches!(c, '/' | '?' | '#' | '\\') || c.is_whitespace() || c.is_control()) {
            return Err(malformed("only a host and a port can stand there"));
        }
        // The port's colon is the last one, and not one of an IPv6 address.
        let Some((host, port)) = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')) else {
            return Err(EndpointError::NoPort(text.trim_end_matches('/').to_owned()));
        };
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match inner {
            Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_err() => return Err(malformed("no IPv6 address in the brackets")),
            None if host.is_empty() => return Err(malformed("it names no host")),
            None if host.contains([':', '[', ']']) => return Err(malformed("an IPv6 address has to stand in brackets")),
            _ => {}
        }
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        match port.parse() {
            Ok(port) if digits && port != 0 => Ok(Self { tls, host: host.to_owned(), port }),
            _ => Err(malformed("its port is no number from 1 to 65535")),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tls, host, port } = self;
        write!(out, "{}://{host}:{port}", if *tls { "https" } else { "http" })
    }
}

impl FromStr for Endpoints {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// The prefix that all of the cluster's keys share, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdPrefix(String);

/// Not a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no prefix: names with slashes between are wanted, such as /coreos.com/network")]
pub struct PrefixError(String);

impl EtcdPrefix {
    /// It as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EtcdPrefix {
    type Err = PrefixError;

    /// Cleans it as flanneld does: no slash at the end and none twice. A missing slash in front stays missing.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty()).collect();
        let bad = names.is_empty() || names.iter().any(|name| matches!(*name, "." | "..")) || text.contains(char::is_control);
        if bad {
            return Err(PrefixError(text.to_owned()));
        }
        let front = if text.starts_with('/') { "/" } else { "" };
        Ok(Self(format!("{front}{}", names.join("/"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_with_a_comma_between() {
        let endpoints: Endpoints = "http://127.0.0.1:4001, https://etcd.example:2379/,http://[fd00::1]:2379".parse().unwrap();
        let shown: Vec<String> = endpoints.0.iter().map(Endpoint::to_string).collect();
        assert_eq!(shown, ["http://127.0.0.1:4001", "https://etcd.example:2379", "http://[fd00::1]:2379"]);
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_the_remedy() {
        for (text, wanted) in [
            ("", "is empty"),
            ("http://a:1,,http://b:1", "is empty"),
            ("10.0.0.1:2379", "write http://10.0.0.1:2379"),
            ("unix://run/etcd.sock", "http:// or https://"),
            ("http://a", "write http://a:2379"),
            ("http://[fd00::1]", "write http://[fd00::1]:2379"),
            ("http://a:0", "1 to 65535"),
            ("http://a:65536", "1 to 65535"),
            ("http://a:+1", "1 to 65535"),
            ("http://:2379", "no host"),
            ("http://fd00::1:2379", "brackets"),
            ("http://[fd00::z]:2379", "brackets"),
            ("http://a:2379/v3", "only a host and a port"),
        ] {
            let error = text.parse::<Endpoints>().unwrap_err().to_string();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
    }

    #[test]
    fn credentials_in_a_url_are_refused_and_not_repeated() {
        for text in ["http://root:hunter2@etcd:2379", "root:hunter2@etcd:2379"] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains("etcd:2379") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_prefix_is_cleaned_and_never_empty() {
        for (text, clean) in [("/coreos.com/network", "/coreos.com/network"), ("/a//b/", "/a/b"), ("a/b", "a/b")] {
            assert_eq!(text.parse::<EtcdPrefix>().unwrap().as_str(), clean);
        }
        assert!(["", "/", "//", "/a/../b", "/a/\n"].into_iter().all(|text| text.parse::<EtcdPrefix>().is_err()));
    }
}
