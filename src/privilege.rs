//! What this process may do: gives up, for good, every right that the agent has no use for.
//!
//! What stays is `CAP_NET_ADMIN`, the right to a port below 1024 where one is asked for, and where CNI's files are installed the right to
//! do so into directories that are another account's. `CAP_NET_RAW` stays where it is given, but
//! is not in force: it is for iptables-legacy, which is started where another program's rules of that kind drop the overlay's packets,
//! and takes it up by itself. The kernel keeps these sets for each
//! thread and hands them on to threads that are started later, so this has to come before any is. A file that is another
//! account's and not readable for ours is closed to us from then on, whoever we are: [`lease::Denied`] says so.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;

/// The first port that anybody may listen on, unless `net.ipv4.ip_unprivileged_port_start` says otherwise (ip(7)).
const FIRST_FREE_PORT: u16 = 1024;

/// What is never granted on a file that we make.
const OTHERS_WRITE: Mode = Mode::S_IWGRP.union(Mode::S_IWOTH);

/// The rights cannot be had, or not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The one that everything needs is not there.
    #[error(
        "CAP_NET_ADMIN is missing, without which no device or route can be made (this is user {uid}): \
         run as root, or give it: AmbientCapabilities=CAP_NET_ADMIN in the systemd unit, \
         securityContext.capabilities.add: [NET_ADMIN] in Kubernetes, --cap-add NET_ADMIN in Docker"
    )]
    Missing {
        /// Who we are.
        uid: u32,
    },
    /// The kernel refused a change.
    #[error("cannot give up the capabilities that are not needed: {step} failed")]
    Kernel {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: CapsError,
    },
    /// The kernel refused to keep us from gaining rights.
    #[error("cannot give up gaining privileges (PR_SET_NO_NEW_PRIVS)")]
    NoNewPrivileges(#[source] nix::Error),
}

/// Gives up all rights but those that the agent needs. To be called before any thread is started.
///
/// # Errors
/// [`PrivilegeError`]; that a right is missing is told with the ways to give it.
pub fn narrow(health_port: Option<u16>, installs: bool) -> Result<(), PrivilegeError> {
    let kernel = |step| move |source| PrivilegeError::Kernel { step, source };
    let have = caps::read(None, CapSet::Permitted).map_err(kernel("reading them"))?;
    if !have.contains(&Capability::CAP_NET_ADMIN) {
        return Err(PrivilegeError::Missing { uid: geteuid().as_raw() });
    }
    // What we make is for all to read and for us to write, whatever the umask that we were given; a secret is none of it.
    umask(OTHERS_WRITE);
    let keep: CapsHashSet = needed(health_port, installs).intersection(&have).copied().collect();
    let for_iptables = have.get(&Capability::CAP_NET_RAW).copied();
    let may: CapsHashSet = keep.iter().copied().chain(for_iptables).collect();
    set_no_new_privs().map_err(PrivilegeError::NoNewPrivileges)?;
    // What this set bounds is what a program may have that is started. Without CAP_SETPCAP it stays as it was given.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(kernel("reading them"))? {
        for capability in caps::runtime::thread_all_supported().difference(&may) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(kernel("narrowing the bounding set"))?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(kernel("clearing the ambient set"))?;
    caps::clear(None, CapSet::Inheritable).map_err(kernel("clearing the inheritable set"))?;
    caps::set(None, CapSet::Effective, &keep).map_err(kernel("narrowing the effective set"))?;
    caps::set(None, CapSet::Permitted, &may).map_err(kernel("narrowing the permitted set"))
}

fn needed(health_port: Option<u16>, installs: bool) -> CapsHashSet {
    let port = health_port.filter(|port| *port < FIRST_FREE_PORT).map(|_| Capability::CAP_NET_BIND_SERVICE);
    let others_directories = installs.then_some(Capability::CAP_DAC_OVERRIDE);
    [Capability::CAP_NET_ADMIN].into_iter().chain(port).chain(others_directories).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_below_1024_and_cni_s_directories_are_the_reasons_for_a_second_capability() {
        assert_eq!(needed(None, false), CapsHashSet::from([Capability::CAP_NET_ADMIN]));
        assert_eq!(needed(Some(8471), false).len(), 1);
        assert!(needed(Some(80), false).contains(&Capability::CAP_NET_BIND_SERVICE));
        assert!(needed(None, true).contains(&Capability::CAP_DAC_OVERRIDE));
    }
}
