//! A TCP proxy before a store that delays, cuts connections, or answers HTTP 401 itself.

mod unauthorized;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{Etcd, Lab, Namespace};

/// How a connection is spoilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not at all.
    None,
    /// What the client says arrives so much later.
    Delay(Duration),
    /// New connections are closed at once.
    Refuse,
    /// Every request on a new connection is answered by HTTP/2 with status 401.
    Unauthorized,
}

/// A proxy on the switch, or in the test's own namespace. Dropped, it closes everything.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    namespace: Option<Arc<Namespace>>,
    server: String,
    fault: Mutex<Fault>,
    open: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

impl Proxy {
    /// On a free port of the switch.
    ///
    /// # Errors
    /// When the switch cannot be entered, or the port not be had.
    pub fn on(lab: &Lab, etcd: &Etcd) -> Result<Self> {
        Self::start(Some(Arc::clone(lab.switch())), Lab::GATEWAY, etcd)
    }

    /// On a free port of the loopback.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub fn alone(etcd: &Etcd) -> Result<Self> {
        Self::start(None, "127.0.0.1", etcd)
    }

    fn start(namespace: Option<Arc<Namespace>>, address: &str, etcd: &Etcd) -> Result<Self> {
        let (_, server) = etcd.endpoint().split_once("://").context("an endpoint has a scheme")?;
        let listen = || Ok(TcpListener::bind((address, 0))?);
        let listener = namespace.as_ref().map_or_else(listen, |namespace| namespace.within(listen))?;
        let address = listener.local_addr()?;
        let (fault, open, ended) = (Mutex::new(Fault::None), Mutex::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { namespace, server: server.to_owned(), fault, open, ended });
        let ours = Arc::clone(&shared);
        let accepting = thread::spawn(move || ours.accept(&listener));
        Ok(Self { shared, address, accepting: Some(accepting) })
    }

    /// The URL for clients.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Spoils, or stops spoiling, what is said from now on.
    pub fn set(&self, fault: Fault) {
        *lock(&self.shared.fault) = fault;
    }

    /// Cuts every connection that there is.
    pub fn cut(&self) {
        for connection in lock(&self.shared.open).drain(..) {
            // It may be closed already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let connect = || Ok(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).map(drop)?);
        // A last connection, so that the thread wakes up and ends.
        let _ = self.shared.namespace.as_ref().map_or_else(connect, |namespace| namespace.within(connect));
        self.cut();
        let _ = self.accepting.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming().flatten() {
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            let ours = Arc::clone(self);
            // It ends with the connection, which is cut when the proxy is dropped.
            thread::spawn(move || ours.serve(client));
        }
    }

    /// What goes wrong here closes the connection: that is all a client may see of it.
    fn serve(self: &Arc<Self>, client: TcpStream) -> Option<()> {
        lock(&self.open).push(client.try_clone().ok()?);
        let fault = *lock(&self.fault);
        match fault {
            Fault::Refuse => return client.shutdown(Shutdown::Both).ok(),
            Fault::Unauthorized => return unauthorized::serve(client),
            Fault::None | Fault::Delay(_) => (),
        }
        let connect = || Ok(TcpStream::connect(&self.server)?);
        let connected = self.namespace.as_ref().map_or_else(connect, |namespace| namespace.within(connect));
        let Ok(server) = connected else { return client.shutdown(Shutdown::Both).ok() };
        lock(&self.open).push(server.try_clone().ok()?);
        let (from_server, to_client) = (server.try_clone().ok()?, client.try_clone().ok()?);
        thread::spawn(move || pump(from_server, to_client));
        self.delayed(client, server)
    }

    /// Hands on what comes, in order, each piece as late as it should be.
    fn delayed(self: &Arc<Self>, mut from: TcpStream, mut to: TcpStream) -> Option<()> {
        let (sender, pieces) = mpsc::channel::<(Instant, Vec<u8>)>();
        let late = thread::spawn(move || {
            for (due, piece) in pieces {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if to.write_all(&piece).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
        let mut buffer = vec![0; 16_384];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let delay = if let Fault::Delay(delay) = *lock(&self.fault) { delay } else { Duration::ZERO };
            if sender.send((Instant::now() + delay, buffer.get(..length)?.to_vec())).is_err() {
                break;
            }
        }
        drop(sender);
        late.join().ok()
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
