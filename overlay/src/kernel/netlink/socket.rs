//! A netlink socket: how it is opened, sent to and read from, with a deadline on each await.

use std::io;
use std::time::Duration;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use rtnetlink::MulticastGroup;

use crate::kernel::KernelError;

/// How long the kernel may take for an answer. It does the work within `send`; this is for a bug, not for load.
const ANSWER: Duration = Duration::from_secs(10);

/// Room for one datagram. The kernel fills at most 32 KiB of a dump (`netlink_dump`, net/netlink/af_netlink.c, v6.18);
/// a single link with many attributes stays below that.
const DATAGRAM: usize = 64 * 1024;

/// Room for unread notifications: some 20 000. Doubled by the kernel for its own bookkeeping (socket(7)).
const EVENT_BUFFER: usize = 16 * 1024 * 1024;

/// A socket, and the datagram that was read last.
pub(crate) struct Socket {
    inner: TokioSocket,
    datagram: Vec<u8>,
}

impl Socket {
    /// For requests, and dumps with filters (strict checking).
    pub(crate) fn for_requests() -> Result<Self, KernelError> {
        Self::open(NETLINK_ROUTE, &[]).map_err(io_error("open a netlink socket"))
    }

    /// For the notifications of these multicast groups.
    pub(crate) fn for_events(groups: &[MulticastGroup]) -> Result<Self, KernelError> {
        let groups: Vec<u32> = groups.iter().copied().map(number).collect();
        Self::events(NETLINK_ROUTE, &groups)
    }

    /// For transactions on the filter of at most so many bytes, and its dumps. As with the receive buffer, the system's limit holds
    /// where we have no rights over the initial user namespace.
    pub(crate) fn for_filter(transaction: usize) -> Result<Self, KernelError> {
        let socket = Self::open(NETLINK_NETFILTER, &[]).map_err(io_error("open a socket to nf_tables"))?;
        if setsockopt(socket.inner.socket_ref(), sockopt::SndBufForce, &transaction).is_err() {
            let _ = setsockopt(socket.inner.socket_ref(), sockopt::SndBuf, &transaction);
        }
        Ok(socket)
    }

    /// For the notifications of a group of nfnetlink.
    pub(crate) fn for_filter_events(group: u32) -> Result<Self, KernelError> {
        Self::events(NETLINK_NETFILTER, &[group])
    }

    /// The longest datagram that the send buffer takes: the kernel keeps some of it for itself (`netlink_sendmsg`,
    /// net/netlink/af_netlink.c, v6.18).
    pub(crate) fn largest(&self) -> usize {
        getsockopt(self.inner.socket_ref(), sockopt::SndBuf).map_or(DATAGRAM, |buffer| buffer / 2)
    }

    fn events(protocol: isize, groups: &[u32]) -> Result<Self, KernelError> {
        let socket = Self::open(protocol, groups).map_err(io_error("subscribe to the kernel's notifications"))?;
        // Beyond the system's limit only with CAP_NET_ADMIN over the initial user namespace; else as much as that limit allows.
        // Neither is needed: a buffer that overruns costs one more dump.
        if setsockopt(socket.inner.socket_ref(), sockopt::RcvBufForce, &EVENT_BUFFER).is_err() {
            let _ = setsockopt(socket.inner.socket_ref(), sockopt::RcvBuf, &EVENT_BUFFER);
        }
        Ok(socket)
    }

    fn open(protocol: isize, groups: &[u32]) -> io::Result<Self> {
        let mut inner = TokioSocket::new(protocol)?;
        let socket = inner.socket_mut();
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        socket.set_netlink_get_strict_chk(true)?;
        for group in groups {
            socket.add_membership(*group)?;
        }
        Ok(Self { inner, datagram: Vec::with_capacity(DATAGRAM) })
    }

    /// Its port: what it does is told under this number.
    pub(crate) fn port(&self) -> Result<u32, KernelError> {
        let mut address = SocketAddr::new(0, 0);
        self.inner.socket_ref().get_address(&mut address).map_err(io_error("name a netlink socket"))?;
        Ok(address.port_number())
    }

    /// Sends one datagram. The kernel works it off before this returns.
    pub(crate) async fn send(&mut self, call: &'static str, bytes: &[u8]) -> Result<(), KernelError> {
        match tokio::time::timeout(ANSWER, self.inner.send(bytes)).await {
            Ok(sent) => sent.map(|_| ()).map_err(io_error(call)),
            Err(_) => Err(timeout(call)),
        }
    }

    /// Reads the next datagram.
    pub(crate) async fn receive(&mut self, call: &'static str) -> Result<Received<'_>, KernelError> {
        match tokio::time::timeout(ANSWER, self.wait(call)).await {
            Ok(received) => received,
            Err(_) => Err(timeout(call)),
        }
    }

    /// Waits for the next datagram for as long as it takes. Cancel safe: it is read in one piece or not at all.
    pub(crate) async fn wait(&mut self, call: &'static str) -> Result<Received<'_>, KernelError> {
        self.datagram.clear();
        let read = self.inner.recv(&mut self.datagram).await;
        received(call, read, &self.datagram)
    }

    /// Reads the next datagram if there is one.
    pub(crate) fn take(&mut self, call: &'static str) -> Result<Option<Received<'_>>, KernelError> {
        self.datagram.clear();
        match self.inner.socket_ref().recv(&mut self.datagram, 0) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            read => received(call, read.map(|_| ()), &self.datagram).map(Some),
        }
    }
}

/// What a read came back with.
pub(crate) enum Received<'a> {
    Datagram(&'a [u8]),
    /// Messages were lost: the socket's buffer was full (`ENOBUFS`).
    Overrun,
}

fn received<'a>(call: &'static str, read: io::Result<()>, datagram: &'a [u8]) -> Result<Received<'a>, KernelError> {
    match read {
        Ok(()) => Ok(Received::Datagram(datagram)),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => Ok(Received::Overrun),
        Err(error) => Err(io_error(call)(error)),
    }
}

#[expect(clippy::as_conversions, reason = "the numbers of a C enum")]
fn number(group: MulticastGroup) -> u32 {
    group as u32
}

fn io_error(call: &'static str) -> impl Fn(io::Error) -> KernelError {
    move |source| KernelError::Io { call, source }
}

fn timeout(call: &'static str) -> KernelError {
    KernelError::Timeout { call, seconds: ANSWER.as_secs() }
}
