//! Health and metrics over HTTP: `/healthz` (the process lives), `/readyz` (it does its work), `/metrics`.
//!
//! Readiness is given from outside; nothing is decided here. A client cannot harm the agent: connections are few and
//! short-lived (`limit`).

mod limit;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// Whether the agent does its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// The lease is held and the data plane verified.
    Ready,
    /// It does its work, but a person should know this.
    ReadyBut(String),
    /// It does not, and this is why.
    NotReady(String),
}

impl Readiness {
    /// Whether it does its work.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Ready | Self::ReadyBut(_) => true,
            Self::NotReady(_) => false,
        }
    }
}

/// The address cannot be served on.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve health on {address}: give a free port by --healthz-port and an address of this host by --healthz-ip")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// How often, and how long apart, an address that is in use is tried again: for one second.
const BIND_TRIES: u32 = 10;
const BIND_PAUSE: Duration = Duration::from_millis(100);

/// The server, listening.
#[derive(Debug)]
pub struct Server {
    listener: limit::Limited,
}

#[derive(Debug, Clone)]
struct Shared {
    readiness: watch::Receiver<Readiness>,
    metrics: Arc<Metrics>,
}

impl Server {
    /// Listens on this address; with port 0, on a free one.
    ///
    /// # Errors
    /// [`BindError`] when it is taken or not this host's.
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let mut tries = 0..BIND_TRIES;
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                // An agent that was killed a moment ago may not be quite gone.
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && tries.next().is_some() => {
                    tokio::time::sleep(BIND_PAUSE).await
                }
                Err(source) => return Err(BindError { address, source }),
            }
        };
        Ok(Self { listener: limit::Limited::new(listener) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        axum::serve::Listener::local_addr(&self.listener)
    }

    /// Answers until dropped.
    pub async fn serve(self, readiness: watch::Receiver<Readiness>, metrics: Arc<Metrics>) {
        let routes = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(text_of_metrics))
            .with_state(Shared { readiness, metrics });
        if let Err(error) = axum::serve(self.listener, routes).await {
            tracing::error!(%error, "health is no longer served");
        }
    }
}

async fn readyz(State(Shared { readiness, metrics: _ }): State<Shared>) -> (StatusCode, String) {
    match &*readiness.borrow() {
        Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Readiness::ReadyBut(matter) => (StatusCode::OK, format!("ready, {matter}\n")),
        Readiness::NotReady(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn text_of_metrics(State(Shared { readiness: _, metrics }): State<Shared>) -> impl IntoResponse {
    // OpenMetrics 1.0, section "Text format": the media type that scrapers tell it by.
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], metrics.render())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(5);

    async fn get(address: SocketAddr, path: &str) -> String {
        let ask = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        timeout(DEADLINE, ask).await.unwrap()
    }

    /// Where a server answers, for as long as the tasks are kept.
    async fn start(readiness: watch::Receiver<Readiness>) -> (SocketAddr, JoinSet<()>) {
        let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let address = server.address().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(server.serve(readiness, Arc::new(Metrics::new())));
        (address, tasks)
    }

    #[tokio::test]
    async fn readiness_follows_what_it_is_told_and_health_does_not() {
        let (tell, told) = watch::channel(Readiness::NotReady("the lease is lost".into()));
        let (address, _tasks) = start(told).await;
        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("not ready: the lease is lost\n"), "{answer}");
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        tell.send_replace(Readiness::Ready);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        drop(tell);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn metrics_are_openmetrics_and_other_paths_are_not_found() {
        let (_tell, told) = watch::channel(Readiness::Ready);
        let (address, _tasks) = start(told).await;
        let answer = get(address, "/metrics").await;
        assert!(answer.contains("application/openmetrics-text") && answer.ends_with("# EOF\n"), "{answer}");
        assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_named_with_the_flags() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = Server::bind(address).await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--healthz-port"), "{error}");
    }

    #[tokio::test]
    async fn connections_that_ended_leave_room_for_the_next() {
        let (_tell, told) = watch::channel(Readiness::Ready);
        let (address, _tasks) = start(told).await;
        let mut idle = Vec::new();
        for _ in 0..limit::CONNECTIONS_MAX {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        drop(idle);
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    }
}
