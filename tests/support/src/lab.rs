//! A switch with an underlay network, on which hosts stand.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use anyhow::{Result, ensure};

use crate::{ApiServer, Etcd, EtcdOptions, Host, Namespace};

/// A switch and its underlay: 192.168.77.0/24 and fd77::/64. Labs share nothing with each other.
#[derive(Debug)]
pub struct Lab {
    switch: Arc<Namespace>,
    options: LabOptions,
    hosts: AtomicU8,
}

static QUIET: AtomicBool = AtomicBool::new(false);

/// Keeps the agents' logs of later labs to themselves: for programs that are no tests, and show what they found out.
pub fn quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// What a lab can be like.
#[derive(Debug, Clone, Copy)]
pub struct LabOptions {
    /// The underlay's MTU.
    pub mtu: u32,
    /// Whether an agent's log goes to standard error when the agent is dropped. cargo's test harness shows that of a
    /// failed test alone; a program that is no test says [`quiet`].
    pub show_logs: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self { mtu: 1500, show_logs: !QUIET.load(Ordering::Relaxed) }
    }
}

impl Lab {
    /// The switch's own IPv4 address, the hosts' default gateway, where etcd listens.
    pub const GATEWAY: &str = "192.168.77.254";
    /// The switch's own IPv6 address.
    pub const GATEWAY_V6: &str = "fd77::fe";

    /// A lab as most tests want it.
    ///
    /// # Errors
    /// Outside the sandbox, and where the kernel refuses.
    pub fn new() -> Result<Self> {
        Self::with(LabOptions::default())
    }

    /// A lab of this kind.
    ///
    /// # Errors
    /// Those of [`Self::new`].
    pub fn with(options: LabOptions) -> Result<Self> {
        ensure!(
            env::var_os("LODEN_SANDBOX").is_some(),
            "not in a sandbox, where nothing of the machine can be touched: run this by `make test` or `make demo`, or by `tests/support/sandbox COMMAND`"
        );
        let switch = Namespace::new("switch", "")?;
        // With an address of its own: a bridge without one takes the lowest of its ports', another one whenever a host is
        // plugged in, and the hosts that are there already would speak to the old one until they ask anew.
        switch.ip_batch(&format!(
            "link add br0 address 02:00:00:00:ff:fe mtu {} type bridge\n\
             addr add {}/24 dev br0\n\
             addr add {}/64 dev br0 nodad\n\
             link set br0 up\n",
            options.mtu,
            Self::GATEWAY,
            Self::GATEWAY_V6
        ))?;
        Ok(Self { switch: Arc::new(switch), options, hosts: AtomicU8::new(0) })
    }

    /// The switch's namespace: the bridge `br0` with a port named after each host.
    #[must_use]
    pub fn switch(&self) -> &Arc<Namespace> {
        &self.switch
    }

    /// Plugs a further host in. The Nth has the address 192.168.77.N. Names are at most eleven characters long.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn host(&self, name: &str) -> Result<Host> {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed) + 1;
        Host::new(&self.switch, name, number, self.options)
    }

    /// Another host in the place of this one: the same name, MAC and address, and nothing else of it, as after a boot. What still runs on
    /// the old one has no link any more.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn replace(&self, host: Host) -> Result<Host> {
        let (name, number) = (host.name().to_owned(), host.number());
        let mac = host.run(&["cat", "/sys/class/net/eth0/address"])?;
        self.switch.ip_batch(&format!("link del {name}\n"))?;
        drop(host);
        let host = Host::new(&self.switch, &name, number, self.options)?;
        host.ip_batch(&format!("link set eth0 address {mac}"))?;
        Ok(host)
    }

    /// Starts an etcd on the switch, at <http://192.168.77.254:2379>.
    ///
    /// # Errors
    /// When etcd is missing or does not start.
    pub fn etcd(&self) -> Result<Etcd> {
        self.etcd_with(EtcdOptions::default())
    }

    /// Starts an etcd of this kind on the switch.
    ///
    /// # Errors
    /// Those of [`Self::etcd`].
    pub fn etcd_with(&self, options: EtcdOptions) -> Result<Etcd> {
        Etcd::on(Arc::clone(&self.switch), Self::GATEWAY, options)
    }

    /// Starts a stand-in API server on the switch, at <http://192.168.77.254:6443>.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn api_server(&self) -> Result<ApiServer> {
        ApiServer::on(Arc::clone(&self.switch), &format!("{}:6443", Self::GATEWAY))
    }
}
