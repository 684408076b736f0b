//! One agent for one thing: a name that one process of a network namespace holds, and the kernel gives back however that process ends.
//!
//! The name is that of an abstract Unix socket. It belongs to the network namespace, as the devices and routes do that it
//! stands for; it needs no file, so it also holds between containers that share the host's network and nothing else.

use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use sha2::{Digest, Sha256};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

/// A name of ours. It is free again when this is dropped.
#[derive(Debug)]
pub struct Lock {
    name: String,
    _held: JoinSet<()>,
}

/// The name cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent has it.
    #[error("process {0} has it")]
    Held(i32),
    /// The system refuses.
    #[error("cannot make the socket that says so")]
    Io(#[from] io::Error),
}

impl Lock {
    /// Takes a name. None where somebody has it who is neither root nor our own account, or who does not answer as an agent does:
    /// whoever may open a socket could keep us from starting with it. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(name: &str) -> Result<Option<Self>, LockError> {
        let address = address(name);
        for _ in 0..TRIES {
            match StdListener::bind_addr(&SocketAddr::from_abstract_name(&address)?) {
                Ok(listener) => {
                    listener.set_nonblocking(true)?;
                    let listener = UnixListener::from_std(listener)?;
                    let mut held = JoinSet::new();
                    // Who knocks wants to know whose it is, and that is told by the kernel.
                    held.spawn(async move { while listener.accept().await.is_ok() {} });
                    return Ok(Some(Self { name: name.to_owned(), _held: held }));
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => match holder(&address).map_err(io::Error::from)? {
                    Some((pid, uid)) if uid == 0 || uid == geteuid().as_raw() => return Err(LockError::Held(pid)),
                    Some((pid, uid)) => {
                        tracing::warn!(name, pid, uid, "a process of another user holds this name: going on without it");
                        return Ok(None);
                    }
                    // It has just been given back, or just been taken by one that does not listen yet.
                    None => std::thread::yield_now(),
                },
                Err(error) => return Err(error.into()),
            }
        }
        tracing::warn!(name, "a socket that is no agent's holds this name: going on without it");
        Ok(None)
    }

    /// The names of this network namespace that begin so, with who holds them.
    ///
    /// # Errors
    /// When the kernel's list of sockets cannot be read.
    pub fn others(prefix: &str) -> io::Result<Vec<(String, i32)>> {
        let mut found = Vec::new();
        for name in names(&std::fs::read_to_string("/proc/net/unix")?).filter(|name| name.starts_with(prefix)) {
            if let Some((pid, _)) = holder(&address(name))? {
                found.push((name.to_owned(), pid));
            }
        }
        Ok(found)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// How often a name is tried whose holder does not listen. An agent listens at once.
const TRIES: u32 = 1_000;

/// The longest name that is shown as it is. An address has 108 bytes, the zero in front among them (unix(7)).
const NAME_MAX: usize = 80;

/// The socket's address, as `ss -xl` shows it behind an `@`.
fn address(name: &str) -> String {
    if name.len() <= NAME_MAX {
        return format!("loden/{name}");
    }
    let digest: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("loden/{digest}")
}

/// The names among the kernel's sockets: an abstract address stands at the end of its line, behind an `@` (proc_net_unix(5)).
fn names(sockets: &str) -> impl Iterator<Item = &str> {
    sockets.lines().filter_map(|line| line.split_once(" @loden/").map(|(_, name)| name))
}

/// Process and user of whoever holds the address; process 0 where it is in another pid namespace, or does not answer. None where nobody
/// listens there.
fn holder(address: &str) -> Result<Option<(i32, u32)>, Errno> {
    let knocker = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    match connect(knocker.as_raw_fd(), &UnixAddr::new_abstract(address.as_bytes())?) {
        Ok(()) => {
            let credentials = getsockopt(&knocker, PeerCredentials)?;
            Ok(Some((credentials.pid(), credentials.uid())))
        }
        // It hangs, and many have knocked.
        Err(Errno::EAGAIN) => Ok(Some((0, 0))),
        // Not any more, or not yet.
        Err(Errno::ECONNREFUSED) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_one_holders_until_that_lets_it_go() {
        // One that fits an address, and one that does not.
        for name in [format!("test {}", std::process::id()), format!("test {} {}", std::process::id(), "x".repeat(500))] {
            holds(&name).await;
        }
    }

    async fn holds(name: &str) {
        let lock = Lock::take(name).unwrap().unwrap();
        assert_eq!(lock.name(), name);
        for _ in 0..300 {
            assert!(matches!(Lock::take(name), Err(LockError::Held(pid)) if u32::try_from(pid) == Ok(std::process::id())));
            tokio::task::yield_now().await;
        }
        assert!(Lock::take(&format!("{name}/other")).unwrap().is_some());
        let seen = Lock::others(name).unwrap().into_iter().any(|(seen, pid)| seen == name && u32::try_from(pid) == Ok(std::process::id()));
        assert_eq!(seen, name.len() <= NAME_MAX, "a name that is shown as it is can be found");
        drop(lock);
        // The task is gone at the runtime's next turn.
        while Lock::take(name).is_err() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_socket_of_the_name_on_which_nobody_listens_keeps_nobody_out() {
        let name = format!("test {} mute", std::process::id());
        let mute = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        nix::sys::socket::bind(mute.as_raw_fd(), &UnixAddr::new_abstract(address(&name).as_bytes()).unwrap()).unwrap();
        assert!(Lock::take(&name).unwrap().is_none());
        drop(mute);
        assert!(Lock::take(&name).unwrap().is_some());
    }
}
