//! What the command line comes to: plain values, checked against each other.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lease::Denied;
use overlay::{Guard, RouteTable};

use crate::install::InstallOptions;

use super::endpoint::{Endpoint, EtcdPrefix};
use super::flags::{
    AgentFlags, EtcdFlags, FilterFlags, GuardFlags, HealthFlags, InterfaceFlags, LeaseFlags, LoggingFlags, RouteFlags, SUBNET_FILE,
};
use super::gosyntax::Given;
use super::kube::{self, KubeOptions};
use super::values::{IfaceSelector, Secret, StateFile};

/// What the agent, and the commands that act in its place, are told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The store.
    pub store: StoreOptions,
    /// The interface between the hosts.
    pub interface: InterfaceOptions,
    /// Where the lease is written for CNI and Docker.
    pub subnet_file: PathBuf,
    /// How long before its end the lease is renewed at the latest.
    pub renew_margin: Duration,
    /// Where the last state is kept; none for nowhere.
    pub state_file: Option<PathBuf>,
    /// Whether a store is believed that suddenly lacks peers.
    pub guard: Guard,
    /// Where the overlay's routes go.
    pub routes: RouteOptions,
    /// Whether what leaves the overlay is masqueraded: `FLANNEL_IPMASQ` says so too.
    pub ip_masq: bool,
    /// Whether that is done with ports that cannot be guessed.
    pub fully_random: bool,
    /// Whether the overlay's packets are let through where another program drops them.
    pub forward_rules: bool,
    /// How often what tells nobody of its changes is looked at.
    pub resync: Duration,
    /// Whether VXLAN comes in from known peers only.
    pub vxlan_peers_only: bool,
    /// Whether the tunnel's packets are kept out of connection tracking.
    pub notrack: bool,
    /// Where health and metrics are served; none when that is off.
    pub healthz: Option<SocketAddr>,
    /// What is installed for container runtimes: nothing without a configuration.
    pub install: InstallOptions,
    /// How much is logged, as klog counts: see [`crate::logging`].
    pub verbosity: i32,
    /// The flags that were given and have no effect: for one warning at the start.
    pub without_effect: Vec<String>,
}

/// Where the overlay's routes go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteOptions {
    /// A table of their own, with the rule that leads there; none is the main table.
    pub table: Option<RouteTable>,
    /// Whether packets to those of our own addresses that no container has are dropped.
    pub blackhole: bool,
}

/// Which store, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreOptions {
    /// etcd.
    Etcd(EtcdOptions),
    /// Kubernetes' Nodes.
    Kube(KubeOptions),
}

impl StoreOptions {
    /// Its name, for scrapers.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Etcd(_) => "etcd",
            Self::Kube(_) => "kubernetes",
        }
    }

    /// etcd's, where that is the store.
    #[must_use]
    pub fn etcd(&self) -> Option<&EtcdOptions> {
        match self {
            Self::Etcd(etcd) => Some(etcd),
            Self::Kube(_) => None,
        }
    }
}

/// How etcd is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdOptions {
    /// Its servers, in the order given. At least one.
    pub endpoints: Vec<Endpoint>,
    /// What all keys begin with.
    pub prefix: EtcdPrefix,
    /// Certificates of those who may vouch for etcd (PEM).
    pub ca_file: Option<PathBuf>,
    /// This host's certificate and the key to it (PEM).
    pub identity: Option<ClientIdentity>,
    /// User and password.
    pub credentials: Option<Credentials>,
}

/// A client certificate and the key to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificate (PEM).
    pub cert_file: PathBuf,
    /// Its key (PEM).
    pub key_file: PathBuf,
}

/// Who we are to etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// Where its password is.
    pub password: PasswordSource,
}

/// Where a password is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// Here.
    Given(Secret),
    /// In this file. Read when the agent starts, and again for every login.
    File(PathBuf),
}

/// How the interface between the hosts is chosen.
#[derive(Debug, Clone, Default)]
pub struct InterfaceOptions {
    /// Names and addresses, the first that is there is taken.
    pub selectors: Vec<IfaceSelector>,
    /// Patterns, tried after all of `selectors`.
    pub patterns: Vec<regex::Regex>,
    /// Take what the kernel would reach this address by.
    pub can_reach: Option<IpAddr>,
    /// The IPv4 address that others are told, when it is not the interface's.
    pub public_ip: Option<Ipv4Addr>,
    /// The IPv6 address that others are told, when it is not the interface's.
    pub public_ipv6: Option<Ipv6Addr>,
}

/// Two flags do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// One is given without the other.
    #[error("{given} needs {needed}: give both or neither")]
    Alone {
        /// The flag that is there.
        given: &'static str,
        /// The one that is not.
        needed: &'static str,
    },
    /// One file cannot be two things.
    #[error("--state-file names the subnet file or its status socket: give it a name of its own, such as /var/lib/loden/state")]
    StateFile,
    /// Nobody says which Node this is.
    #[error(
        "--kube-subnet-mgr needs to know its Node: set the variable NODE_NAME (in a pod from the field spec.nodeName), or POD_NAME and \
         POD_NAMESPACE (from metadata.name and metadata.namespace)"
    )]
    NoNode,
    /// Both say the same thing.
    #[error("--etcd-password and --etcd-password-file are both given: leave one away")]
    TwoPasswords,
}

/// The password's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// It cannot be read.
    #[error("cannot read --etcd-password-file {}{}", path.display(), Denied::of(path, source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There is nothing in it, or too much.
    #[error("--etcd-password-file {} holds no password: one line of at most {PASSWORD_MAX} bytes is wanted", .0.display())]
    Content(PathBuf),
}

/// Longer than any password, shorter than any file named by mistake (bytes).
const PASSWORD_MAX: usize = 4096;

impl PasswordSource {
    /// The password as it is now. A line's end after it is no part of it.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn read(&self) -> Result<Secret, PasswordError> {
        let path = match self {
            Self::Given(secret) => return Ok(secret.clone()),
            Self::File(path) => path,
        };
        let failed = |source| PasswordError::Read { path: path.clone(), source };
        let mut text = String::new();
        let most = u64::try_from(PASSWORD_MAX).unwrap_or(u64::MAX);
        File::open(path).and_then(|file| file.take(most.saturating_add(1)).read_to_string(&mut text)).map_err(failed)?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let usable = !line.is_empty() && text.len() <= PASSWORD_MAX && !line.contains('\n');
        if usable { Ok(Secret::from(line.to_owned())) } else { Err(PasswordError::Content(path.clone())) }
    }
}

impl Options {
    /// What the flags come to. `given` are those that somebody gave, by flag or variable.
    pub(super) fn of(flags: AgentFlags, given: &[Given], environment: impl Fn(&str) -> Option<OsString>) -> Result<Self, OptionsError> {
        let AgentFlags { etcd, kube, interface, lease, guard, routes, filter, health, logging, install, idle } = flags;
        let InterfaceFlags { iface, iface_regex, iface_can_reach, public_ip, public_ipv6 } = interface;
        let LeaseFlags { subnet_file, subnet_lease_renew_margin, state_file } = lease;
        let HealthFlags { healthz_ip, healthz_port } = health;
        let LoggingFlags { verbosity, version: _ } = logging;
        let RouteFlags { route_table, route_rule_priority, ip_blackhole_route } = routes;
        let FilterFlags { ip_masq, ip_masq_fully_random_disable, iptables_forward_rules, iptables_resync, vxlan_peers_only, notrack } =
            filter;
        let store = if kube.kube_subnet_mgr {
            StoreOptions::Kube(KubeOptions::of(kube, environment)?)
        } else {
            StoreOptions::Etcd(EtcdOptions::try_from(etcd)?)
        };
        let state_file = state_file.map_or_else(|| Some(state_file_of(&subnet_file)), |StateFile(path)| path);
        if state_file.as_ref().is_some_and(|state| *state == subnet_file || *state == crate::status::socket_path(&subnet_file)) {
            return Err(OptionsError::StateFile);
        }
        let mut without_effect: Vec<String> = idle.given().map(str::to_owned).collect();
        without_effect.extend(store.without_effect(given));
        Ok(Self {
            store,
            interface: InterfaceOptions { selectors: iface, patterns: iface_regex, can_reach: iface_can_reach, public_ip, public_ipv6 },
            subnet_file,
            renew_margin: subnet_lease_renew_margin.as_duration(),
            state_file,
            guard: guard.into(),
            routes: RouteOptions {
                table: route_table.map(|id| RouteTable { id, priority: route_rule_priority }),
                blackhole: ip_blackhole_route,
            },
            ip_masq,
            fully_random: !ip_masq_fully_random_disable,
            forward_rules: iptables_forward_rules,
            resync: Duration::from_secs(iptables_resync.max(1)),
            vxlan_peers_only,
            notrack,
            healthz: (healthz_port != 0).then(|| SocketAddr::new(healthz_ip, healthz_port)),
            install: install.into(),
            verbosity,
            without_effect,
        })
    }
}

/// Where the last state is kept by default: in a place that outlives a boot, which `/run` does not, and each subnet file's in its own.
const STATE_FILE: &str = "/var/lib/loden/state";

/// The place by default of the last state that belongs to a subnet file.
fn state_file_of(subnet_file: &Path) -> PathBuf {
    if subnet_file == Path::new(SUBNET_FILE) {
        return PathBuf::from(STATE_FILE);
    }
    let path = subnet_file.to_string_lossy();
    // No two paths become one name: what is not itself in it is written as its number.
    let name = path.trim_start_matches('/').chars().map(|c| match c {
        '/' => "-".to_owned(),
        c if c.is_ascii_alphanumeric() || c == '.' || c == '_' => c.to_string(),
        c => format!("%{:X}", u32::from(c)),
    });
    PathBuf::from(format!("{STATE_FILE}.{}", name.collect::<String>()))
}

impl From<GuardFlags> for Guard {
    fn from(flags: GuardFlags) -> Self {
        let GuardFlags { mass_removal_percent, mass_removal_hold, mass_removal_accept } = flags;
        if mass_removal_accept {
            return Self::OFF;
        }
        Self { percent: mass_removal_percent, hold: Duration::from_secs(mass_removal_hold) }
    }
}

impl StoreOptions {
    /// The flags that are of the other store, or of no use with this one.
    fn without_effect(&self, given: &[Given]) -> Vec<String> {
        let (idle, why): (fn(&str) -> bool, _) = match self {
            Self::Etcd(_) => (kube::is_flag, "the store is etcd"),
            Self::Kube(_) => (|flag| flag.starts_with("etcd-") || flag == "subnet-lease-renew-margin", "the store is Kubernetes"),
        };
        let others = given.iter().filter(|given| idle(&given.name)).map(|given| format!("--{} ({why})", given.name));
        let tls = self.etcd().map(EtcdOptions::tls_without_effect).unwrap_or_default();
        others.chain(tls.into_iter().map(str::to_owned)).collect()
    }
}

impl EtcdOptions {
    /// The flags for TLS that are of no use, because no endpoint is spoken to over TLS. flanneld takes that, so it is no error.
    fn tls_without_effect(&self) -> Vec<&'static str> {
        if self.endpoints.iter().any(|endpoint| endpoint.tls) {
            return Vec::new();
        }
        let ca = self.ca_file.as_ref().map(|_| "--etcd-cafile (no endpoint is https://)");
        let identity = self.identity.as_ref().map(|_| "--etcd-certfile (no endpoint is https://)");
        ca.into_iter().chain(identity).collect()
    }
}

impl TryFrom<EtcdFlags> for EtcdOptions {
    type Error = OptionsError;

    fn try_from(flags: EtcdFlags) -> Result<Self, OptionsError> {
        let EtcdFlags {
            etcd_endpoints,
            etcd_prefix,
            etcd_cafile,
            etcd_certfile,
            etcd_keyfile,
            etcd_username,
            etcd_password,
            etcd_password_file,
        } = flags;
        let identity = match (etcd_certfile, etcd_keyfile) {
            (Some(cert_file), Some(key_file)) => Some(ClientIdentity { cert_file, key_file }),
            (Some(_), None) => return Err(OptionsError::Alone { given: "--etcd-certfile", needed: "--etcd-keyfile" }),
            (None, Some(_)) => return Err(OptionsError::Alone { given: "--etcd-keyfile", needed: "--etcd-certfile" }),
            (None, None) => None,
        };
        let password = match (etcd_password, etcd_password_file) {
            (Some(_), Some(_)) => return Err(OptionsError::TwoPasswords),
            (Some(secret), None) => Some(("--etcd-password", PasswordSource::Given(secret))),
            (None, Some(path)) => Some(("--etcd-password-file", PasswordSource::File(path))),
            (None, None) => None,
        };
        let credentials = match (etcd_username, password) {
            (Some(username), Some((_, password))) => Some(Credentials { username, password }),
            (Some(_), None) => return Err(OptionsError::Alone { given: "--etcd-username", needed: "--etcd-password-file" }),
            (None, Some((given, _))) => return Err(OptionsError::Alone { given, needed: "--etcd-username" }),
            (None, None) => None,
        };
        Ok(Self { endpoints: etcd_endpoints.0, prefix: etcd_prefix, ca_file: etcd_cafile, identity, credentials })
    }
}
