//! A host: a network with one link to the switch, and files of its own.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{Agent, AgentOptions, Container, Lab, LabOptions, Namespace, SubnetEnv};

/// A host. It is a [`Namespace`], with `eth0` to the switch, its own `/run`, `/var/lib` and `/etc/machine-id`; a clone is the
/// same host. The sandbox's directory for temporary files is seen by all hosts.
#[derive(Debug, Clone)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    namespace: Namespace,
    switch: Arc<Namespace>,
    number: u8,
    options: LabOptions,
    files: TempDir,
    containers: AtomicU8,
}

impl Host {
    pub(crate) fn new(switch: &Arc<Namespace>, name: &str, number: u8, options: LabOptions) -> Result<Self> {
        let files = tempfile::Builder::new().prefix(name).tempdir()?;
        let id = files.path().join("machine-id");
        // 32 hex digits, as machine-id(5) wants them.
        fs::write(&id, format!("{number:032x}\n"))?;
        let namespace = Namespace::new(name, &setup(files.path(), &id))?;
        switch.ip_batch(&format!(
            "link add {name} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {pid}\n\
             link set {name} master br0 up\n",
            mtu = options.mtu,
            pid = namespace.pid()
        ))?;
        namespace.ip_batch(&format!(
            "addr add 192.168.77.{number}/24 dev eth0\n\
             addr add fd77::{number:x}/64 dev eth0 nodad\n\
             link set eth0 up\n\
             route add default via {}\n\
             route add default via {}\n",
            Lab::GATEWAY,
            Lab::GATEWAY_V6
        ))?;
        Ok(Self(Arc::new(Inner { namespace, switch: Arc::clone(switch), number, options, files, containers: AtomicU8::new(0) })))
    }

    /// Its underlay address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 77, self.0.number)
    }

    /// Its underlay address of the other family.
    #[must_use]
    pub fn address_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(self.0.number))
    }

    /// The N of its address.
    pub(crate) fn number(&self) -> u8 {
        self.0.number
    }

    /// A directory of its own for files: logs, configurations.
    #[must_use]
    pub fn files(&self) -> &Path {
        self.0.files.path()
    }

    pub(crate) fn options(&self) -> LabOptions {
        self.0.options
    }

    pub(crate) fn next_container(&self) -> u8 {
        self.0.containers.fetch_add(1, Ordering::Relaxed)
    }

    /// Pulls the plug: the switch's end of the link goes down.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn unplug(&self) -> Result<()> {
        self.0.switch.ip_batch(&format!("link set {} down\n", self.name()))
    }

    /// Puts the plug back in.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn plug(&self) -> Result<()> {
        self.0.switch.ip_batch(&format!("link set {} up\n", self.name()))
    }

    /// What a boot does: the VTEP is gone, `/run/flannel` too, and forwarding is off. Whatever is on disk stays.
    ///
    /// # Errors
    /// When something of it cannot be done.
    pub fn boot(&self) -> Result<()> {
        let script = "ip link del flannel.1; rm -r /run/flannel; echo 0 >/proc/sys/net/ipv4/ip_forward";
        self.run(&["sh", "-ec", script]).map(drop)
    }

    /// The subnet file, `/run/flannel/subnet.env`.
    ///
    /// # Errors
    /// When it is not there or malformed.
    pub fn subnet_env(&self) -> Result<SubnetEnv> {
        self.subnet_env_at("/run/flannel/subnet.env")
    }

    /// A subnet file in another place.
    ///
    /// # Errors
    /// When it is not there or malformed.
    pub fn subnet_env_at(&self, path: &str) -> Result<SubnetEnv> {
        SubnetEnv::parse(&self.read(path)?)
    }

    /// The text of a file as this host sees it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &str) -> Result<String> {
        // The kernel shows every process's files under its entry in /proc, in that process's mount namespace.
        fs::read_to_string(format!("/proc/{}/root{path}", self.pid())).with_context(|| format!("cannot read {path} on {}", self.name()))
    }

    /// Starts an agent here.
    ///
    /// # Errors
    /// When it cannot be started. That it is ready is for [`Agent::wait_ready`] to say.
    pub fn agent(&self, options: AgentOptions) -> Result<Agent> {
        Agent::start(self.clone(), options)
    }

    /// Makes a container on this host's bridge `cni0`, as a container runtime would from the subnet file.
    ///
    /// # Errors
    /// When there is no subnet file, or the kernel refuses.
    pub fn container(&self, name: &str) -> Result<Container> {
        Container::new(self.clone(), name)
    }
}

impl Deref for Host {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.0.namespace
    }
}

/// What makes a namespace a host: an empty /run in which the directory for temporary files is still seen, an empty /var/lib, a machine-id,
/// a /sys that shows its own devices, and forwarding off, as after a boot (it is the agent's to switch on; a new namespace inherits the
/// machine's).
fn setup(files: &Path, id: &Path) -> String {
    let files = files.display();
    let id = id.display();
    let shared = std::env::temp_dir();
    let shared = shared.display();
    format!(
        "mkdir {files}/run
         mount -t tmpfs -o mode=755 tmpfs {files}/run
         mkdir -p {files}/run/tmp
         case {shared} in /run/tmp) mount --bind /run/tmp {files}/run/tmp;; esac
         mount --rbind {files}/run /run
         mount -t tmpfs -o mode=755 tmpfs /var/lib
         if [ ! -e /etc/machine-id ]; then
             mkdir {files}/etc {files}/etc-work
             mount -t overlay -o lowerdir=/etc,upperdir={files}/etc,workdir={files}/etc-work overlay /etc
             : >/etc/machine-id
         fi
         mount --bind {id} /etc/machine-id
         mount -t sysfs sysfs /sys
         echo 0 >/proc/sys/net/ipv4/ip_forward
         echo 0 >/proc/sys/net/ipv6/conf/all/forwarding"
    )
}
