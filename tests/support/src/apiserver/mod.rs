//! A stand-in for Kubernetes' API server, as far as Nodes go: for tests that need no cluster.
//!
//! It keeps every version of every Node as etcd does, so that lists in pages are of one revision, watches go on from
//! where they were, and what was compacted is 410 Gone; writes are guarded by the resource version. It passes the store
//! contract beside the real server, which is what says that it is honest. It knows no users: only what a test forbids.

mod faults;
mod hands;
mod patch;
mod refusal;
mod serve;
mod watch;
mod world;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow};
use axum::Router;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::{oneshot, watch as notify};

use self::faults::Faults;
use self::refusal::Refusal;
use self::world::World;
use crate::Namespace;

/// A stand-in API server over plain HTTP. What it holds stays over [`Self::stop`] and [`Self::start`], and goes with this.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    namespace: Option<Arc<Namespace>>,
    address: String,
    running: Option<Running>,
}

/// The thread that serves, with the network of its namespace.
#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

/// What the requests and the test's hands both reach.
#[derive(Debug)]
struct Shared {
    world: Mutex<World>,
    faults: Mutex<Faults>,
    requests: Mutex<Vec<String>>,
    sent: AtomicU64,
    changed: notify::Sender<()>,
}

impl ApiServer {
    /// Starts one on the loopback of the test's own namespace, on a free port.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn alone() -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Self::new(None, format!("127.0.0.1:{port}"))
    }

    /// Starts one within a namespace, at an address and port of it.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn on(namespace: Arc<Namespace>, address: &str) -> Result<Self> {
        Self::new(Some(namespace), address.to_owned())
    }

    fn new(namespace: Option<Arc<Namespace>>, address: String) -> Result<Self> {
        let (world, faults, requests) = (Mutex::default(), Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { world, faults, requests, sent: AtomicU64::new(0), changed: notify::Sender::new(()) });
        let mut server = Self { shared, namespace, address, running: None };
        server.start()?;
        Ok(server)
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it: connections break, the port is closed.
    pub fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }

    /// Starts it again at the same address with what it held.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(&mut self) -> Result<()> {
        self.stop();
        let bind = || TcpListener::bind(&self.address).with_context(|| format!("cannot listen at {}", self.address));
        let listener = match &self.namespace {
            Some(namespace) => namespace.within(bind)?,
            None => bind()?,
        };
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let serve = move || {
            let router =
                Router::new().fallback(move |method, uri, headers, body| serve::answer(Arc::clone(&shared), method, uri, headers, body));
            runtime.block_on(async {
                tokio::select! {
                    _ = std::future::IntoFuture::into_future(axum::serve(listener, router)) => (),
                    _ = stopped => (),
                }
            });
            // With the runtime go the connections.
        };
        let thread = thread::Builder::new().name("apiserver".to_owned()).spawn(serve).map_err(|error| anyhow!("no thread: {error}"))?;
        self.running = Some(Running { stop, thread });
        Ok(())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut self.world());
        self.changed.send_replace(());
        result
    }

    fn misbehave(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults());
        self.changed.send_replace(());
    }

    /// Returns when it does not hang, or no longer.
    async fn while_hanging(&self) {
        let mut changed = self.changed.subscribe();
        while self.faults().hang {
            let _ = changed.changed().await;
        }
    }

    fn note_request(&self, method: &Method, path: &str, watch: bool) {
        let verb = if watch { "WATCH" } else { method.as_str() };
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{verb} {path}"));
    }

    /// Whether this request is let through.
    fn admit(&self, verb: &str, resource: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut faults = self.faults();
        if let Some(code) = faults.codes.pop_front() {
            return Err(Refusal::on_demand(code));
        }
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if faults.token.as_deref().is_some_and(|token| shown != Some(token)) {
            return Err(Refusal::unauthorized());
        }
        if faults.forbidden.iter().any(|(no_verb, no_resource)| no_verb == verb && no_resource == resource) {
            return Err(Refusal::forbidden(verb, resource));
        }
        Ok(())
    }

    fn write(&self, change: impl FnOnce(&mut World) -> Result<Value, Refusal>) -> Result<Response, Refusal> {
        let written = self.change(change)?;
        if std::mem::take(&mut self.faults().lose_reply) {
            return Ok(serve::cut_off(String::new()));
        }
        Ok(self.json(200, &written))
    }

    fn json(&self, code: u16, value: &Value) -> Response {
        self.text(code, value.to_string())
    }

    fn text(&self, code: u16, text: String) -> Response {
        self.sent(text.len());
        let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (code, [(header::CONTENT_TYPE, "application/json")], text).into_response()
    }

    fn sent(&self, bytes: usize) {
        self.sent.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
