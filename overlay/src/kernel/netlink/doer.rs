//! Who did it: the kernel's notifications of routes, neighbours and addresses carry the port of the socket that asked for the change.
//!
//! A process's first netlink socket has its process id for a port (`netlink_autobind`, net/netlink/af_netlink.c, v6.18), as it is in that
//! process's own namespace of them. Further sockets have large numbers. 0 is the kernel itself.

use std::fs;
use std::sync::Arc;

/// Process ids are at most this (`PID_MAX_LIMIT`, include/linux/threads.h, v6.18).
const PID_MAX: u32 = 4 * 1024 * 1024;

/// Names whoever has a port. Remembers the last one: changes come in floods.
#[derive(Debug, Default)]
pub(super) struct Doers {
    own: u32,
    last: Option<(u32, Arc<str>)>,
}

impl Doers {
    /// All but the one with this port.
    pub(super) fn other_than(own: u32) -> Self {
        Self { own, last: None }
    }

    /// Who has this port; none for the kernel, for ourselves, and where the port is no process id.
    pub(super) fn of(&mut self, port: u32) -> Option<Arc<str>> {
        if port == 0 || port == self.own || port > PID_MAX {
            return None;
        }
        match &self.last {
            Some((last, who)) if *last == port => Some(Arc::clone(who)),
            _ => {
                let who: Arc<str> = name(port).into();
                self.last = Some((port, Arc::clone(&who)));
                Some(who)
            }
        }
    }
}

fn name(pid: u32) -> String {
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{} (process {pid})", name.trim()),
        Err(_) => format!("process {pid}, which has ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_the_kernel_nor_we_are_named_and_who_is_gone_is_named_by_its_number() {
        let me = std::process::id();
        let ours = me + 1;
        let mut doers = Doers::other_than(ours);
        assert_eq!((doers.of(0), doers.of(ours), doers.of(u32::MAX)), (None, None, None));
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(doers.of(me).as_deref(), Some(format!("{} (process {me})", own.trim()).as_str()));
        assert_eq!(doers.of(PID_MAX).as_deref(), Some("process 4194304, which has ended"));
    }
}
