//! The command line as clap sees it: names, defaults and help, in the groups that `--help` shows.
//!
//! Values are parsed here, each by itself; what two flags mean together is settled in [`super::options`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use overlay::Guard;

use crate::docker_opts::DockerOpts;
use crate::install::InstallOptions;

use super::InstallCniOptions;
use super::endpoint::{Endpoints, EtcdPrefix};
use super::values::{
    IfaceSelector, RenewMargin, Secret, StateFile, go_bool, ip, pattern, port, public_ipv4, public_ipv6, route_table, rule_priority,
    subnet_file,
};

/// The heading of the flags that a subcommand other than `agent` takes, but has no use for.
pub(super) const AGENT_ONLY: [&str; 7] =
    ["Lease and files", "Guard against mass removals", "Routes", "Filter", "Health", "CNI", "Accepted without effect"];

const AFTER_HELP: &str = "\
Flags are written as flanneld takes them: -flag or --flag, with =VALUE or a VALUE after it; a boolean stands alone or takes =true or =false.
Every flag can be given as a variable: FLANNELD_ and its name in upper case, with _ for -. --etcd-prefix is FLANNELD_ETCD_PREFIX. A flag wins over its variable.
Exit codes: 0 done, 1 failed, 2 a flag or its value is wrong.";

/// A VXLAN overlay agent, a drop-in replacement for flanneld.
#[derive(Debug, Parser)]
#[command(name = "loden", disable_version_flag = true, args_override_self = true)]
#[command(
    after_help = "`loden COMMAND --help` explains a command. Called by the name flanneld, loden is its agent: no command is wanted then."
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the agent: hold a subnet lease and keep the kernel in step with the other hosts' leases.
    #[command(after_help = AFTER_HELP)]
    Agent(Box<AgentFlags>),
    /// Show what the running agent holds, sees and repairs. Exits 1 when it is not ready.
    #[command(after_help = AFTER_HELP)]
    Status(StatusFlags),
    /// Print, as ip and bridge commands, what the agent would change on this host. Changes nothing.
    #[command(after_help = AFTER_HELP)]
    Plan(Box<AgentFlags>),
    /// Give this host's lease back to the store.
    #[command(after_help = AFTER_HELP)]
    Release(Box<AgentFlags>),
    /// Remove from the kernel all that is the agent's, and nothing else.
    #[command(after_help = AFTER_HELP)]
    Cleanup(Box<CleanupFlags>),
    /// Write the subnet file as options for dockerd, as flannel's mk-docker-opts.sh does.
    DockerOpts(DockerOptsFlags),
    /// Install the CNI plugin flannel, and its configuration once this host has a subnet.
    #[command(after_help = AFTER_HELP)]
    InstallCni(InstallFlags),
    /// Be the CNI plugin flannel, as under that name: reads CNI's variables and standard input.
    Cni,
    /// Print the version.
    Version,
}

/// What the agent takes. The commands that act in its place take it as well, so that its command line can be given to them.
#[derive(Debug, Args)]
pub(super) struct AgentFlags {
    #[command(flatten)]
    pub(super) etcd: EtcdFlags,
    #[command(flatten)]
    pub(super) kube: KubeFlags,
    #[command(flatten)]
    pub(super) interface: InterfaceFlags,
    #[command(flatten)]
    pub(super) lease: LeaseFlags,
    #[command(flatten)]
    pub(super) guard: GuardFlags,
    #[command(flatten)]
    pub(super) routes: RouteFlags,
    #[command(flatten)]
    pub(super) filter: FilterFlags,
    #[command(flatten)]
    pub(super) health: HealthFlags,
    #[command(flatten)]
    pub(super) logging: LoggingFlags,
    #[command(flatten)]
    pub(super) install: InstallByAgentFlags,
    #[command(flatten)]
    pub(super) idle: IdleFlags,
}

/// What `cleanup` takes besides.
#[derive(Debug, Args)]
pub(super) struct CleanupFlags {
    /// Go back to flanneld, which runs already: remove only what it does not manage, each thing once its own is in the place
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, value_parser = go_bool, help_heading = "Handover")]
    pub(super) handover: bool,
    /// Wait so long for flanneld's own; exits 1 when something had to stay
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds, help_heading = "Handover")]
    pub(super) wait: u64,
    /// When all is done, wait to be ended: for a DaemonSet, whose pods are started anew otherwise
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, value_parser = go_bool)]
    pub(super) stay: bool,
    #[command(flatten)]
    pub(super) agent: AgentFlags,
}

/// What the agent installs besides.
#[derive(Debug, Args)]
#[command(next_help_heading = "CNI")]
pub(super) struct InstallByAgentFlags {
    /// Install the CNI plugin flannel, and with the first subnet this configuration list, and keep both
    #[arg(long, value_name = "FILE")]
    pub(super) install_cni_conf: Option<PathBuf>,
    #[command(flatten)]
    pub(super) cni: CniFlags,
}

impl From<InstallByAgentFlags> for InstallOptions {
    fn from(flags: InstallByAgentFlags) -> Self {
        let InstallByAgentFlags { install_cni_conf, cni: CniFlags { cni_conf_dir, cni_bin_dir } } = flags;
        Self { conf: install_cni_conf, conf_dir: cni_conf_dir, bin_dir: cni_bin_dir }
    }
}

/// Where container runtimes look.
#[derive(Debug, Args)]
#[command(next_help_heading = "CNI")]
pub(super) struct CniFlags {
    /// Where container runtimes look for CNI configurations
    #[arg(long, value_name = "FOLDER", default_value = "/etc/cni/net.d")]
    pub(super) cni_conf_dir: PathBuf,
    /// Where they look for CNI plugins
    #[arg(long, value_name = "FOLDER", default_value = "/opt/cni/bin")]
    pub(super) cni_bin_dir: PathBuf,
}

/// What `install-cni` takes.
#[derive(Debug, Args)]
pub(super) struct InstallFlags {
    /// The configuration list to install, as 10-flannel.conflist
    #[arg(long, value_name = "FILE", default_value = "/etc/kube-flannel/cni-conf.json")]
    pub(super) cni_conf: PathBuf,
    /// The agent's subnet file: before it is there, no configuration is installed
    #[arg(long, value_name = "FILE", default_value = SUBNET_FILE, value_parser = subnet_file)]
    pub(super) subnet_file: PathBuf,
    /// Install the plugin and no configuration
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, value_parser = go_bool)]
    pub(super) plugin_only: bool,
    /// Stay: wait for the subnet file, follow the configuration, put back what somebody edits or removes
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, value_parser = go_bool)]
    pub(super) watch: bool,
    #[command(flatten)]
    pub(super) cni: CniFlags,
    #[command(flatten)]
    pub(super) logging: LoggingFlags,
}

impl From<InstallFlags> for InstallCniOptions {
    fn from(flags: InstallFlags) -> Self {
        let InstallFlags { cni_conf, subnet_file, plugin_only, watch, cni, logging } = flags;
        let CniFlags { cni_conf_dir, cni_bin_dir } = cni;
        let what = InstallOptions { conf: (!plugin_only).then_some(cni_conf), conf_dir: cni_conf_dir, bin_dir: cni_bin_dir };
        Self { what, subnet_file, watch, verbosity: logging.verbosity }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Store (etcd v3)")]
pub(super) struct EtcdFlags {
    /// Where etcd answers, with a comma between
    #[arg(long, value_name = "URLS", default_value = "http://127.0.0.1:4001,http://127.0.0.1:2379")]
    pub(super) etcd_endpoints: Endpoints,
    /// What all of the cluster's keys begin with
    #[arg(long, value_name = "PREFIX", default_value = "/coreos.com/network")]
    pub(super) etcd_prefix: EtcdPrefix,
    /// Certificates (PEM) of those who may vouch for etcd; enough by itself for TLS
    #[arg(long, value_name = "FILE")]
    pub(super) etcd_cafile: Option<PathBuf>,
    /// This host's certificate (PEM), when etcd asks for one
    #[arg(long, value_name = "FILE")]
    pub(super) etcd_certfile: Option<PathBuf>,
    /// The key to it (PEM)
    #[arg(long, value_name = "FILE")]
    pub(super) etcd_keyfile: Option<PathBuf>,
    /// User, when etcd has authentication on
    #[arg(long, value_name = "NAME")]
    pub(super) etcd_username: Option<String>,
    /// Its password, for all to see who may list processes: prefer a file
    #[arg(long, value_name = "PASSWORD")]
    pub(super) etcd_password: Option<Secret>,
    /// A file that holds the password
    #[arg(long, value_name = "FILE")]
    pub(super) etcd_password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Store (Kubernetes)")]
pub(super) struct KubeFlags {
    /// Keep the leases on Kubernetes' Nodes, not in etcd: the subnet is the Node's podCIDR. Which Node this is, the variable NODE_NAME
    /// says, else POD_NAME and POD_NAMESPACE
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = go_bool)]
    pub(super) kube_subnet_mgr: bool,
    /// URL of the API server, in place of the one that the kubeconfig or the pod's environment names
    #[arg(long, value_name = "URL")]
    pub(super) kube_api_url: Option<String>,
    /// How to reach the API server [default: as the pod's service account]
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig_file: Option<PathBuf>,
    /// What the names of the Node's annotations begin with
    #[arg(long, value_name = "PREFIX", default_value = "flannel.alpha.coreos.com")]
    pub(super) kube_annotation_prefix: String,
    /// The network configuration, which is followed when it changes
    #[arg(long, value_name = "FILE", default_value = "/etc/kube-flannel/net-conf.json")]
    pub(super) net_config_path: PathBuf,
    /// Say by the Node's condition NetworkUnavailable that its pods have a network, once they have
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", value_parser = go_bool)]
    pub(super) set_node_network_unavailable: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Interface (default: the default route's)")]
pub(super) struct InterfaceFlags {
    /// Interface between the hosts, by name or address; can be repeated, the first that is there is taken
    #[arg(long, value_name = "NAME|IP")]
    pub(super) iface: Vec<IfaceSelector>,
    /// Pattern for an address or a name, tried after every --iface; can be repeated
    #[arg(long, value_name = "REGEX", value_parser = pattern)]
    pub(super) iface_regex: Vec<regex::Regex>,
    /// Take the interface and the address by which the kernel would reach this one
    #[arg(long, value_name = "IP", value_parser = ip)]
    pub(super) iface_can_reach: Option<IpAddr>,
    /// Address that the other hosts reach this one at, when it is not the interface's
    #[arg(long, value_name = "IPV4", value_parser = public_ipv4)]
    pub(super) public_ip: Option<Ipv4Addr>,
    /// The same for IPv6
    #[arg(long, value_name = "IPV6", value_parser = public_ipv6)]
    pub(super) public_ipv6: Option<Ipv6Addr>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Lease and files")]
pub(super) struct LeaseFlags {
    /// Where the lease is written for CNI and Docker; the status socket stands beside it
    #[arg(long, value_name = "FILE", default_value = SUBNET_FILE, value_parser = subnet_file)]
    pub(super) subnet_file: PathBuf,
    /// Renew the lease at the latest when this many minutes are left, 1 to 1439
    #[arg(long, value_name = "MINUTES", default_value = "60")]
    pub(super) subnet_lease_renew_margin: RenewMargin,
    /// Where the agent keeps what it last knew, for a start while the store is away; none for nowhere [default: /var/lib/loden/state, or
    /// one beside it that is named by the subnet file, where that is not the default]
    #[arg(long, value_name = "FILE")]
    pub(super) state_file: Option<StateFile>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Guard against mass removals")]
pub(super) struct GuardFlags {
    /// Hold the removal of peers when a list of the store lacks more than this percentage of them, and at least three
    #[arg(long, value_name = "PERCENT", default_value_t = Guard::DEFAULT.percent, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(super) mass_removal_percent: u8,
    /// How many seconds it is held
    #[arg(long, value_name = "SECONDS", default_value_t = Guard::DEFAULT.hold.as_secs(), value_parser = seconds)]
    pub(super) mass_removal_hold: u64,
    /// Hold nothing: believe the store at once. For a start after a cluster was really reduced
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = go_bool)]
    pub(super) mass_removal_accept: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Routes")]
pub(super) struct RouteFlags {
    /// Put the overlay's routes into this table, which a rule leads to, and leave the main table alone
    #[arg(long, value_name = "NUMBER", value_parser = route_table)]
    pub(super) route_table: Option<u32>,
    /// The rule's priority: after 0, the table local, and before 32766, the table main
    #[arg(long, value_name = "NUMBER", default_value = "32000", value_parser = rule_priority)]
    pub(super) route_rule_priority: u32,
    /// Put a blackhole route for the own subnet
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = go_bool)]
    pub(super) ip_blackhole_route: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Filter")]
pub(super) struct FilterFlags {
    /// Masquerade what leaves the overlay, and tell CNI and Docker so by the subnet file
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = go_bool)]
    pub(super) ip_masq: bool,
    /// Masquerade without fully random ports
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = go_bool)]
    pub(super) ip_masq_fully_random_disable: bool,
    /// Let the overlay's traffic through, also where another program's forward chain drops it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", value_parser = go_bool)]
    pub(super) iptables_forward_rules: bool,
    /// Seconds between two looks at what iptables-legacy holds; all else tells of its changes
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(super) iptables_resync: u64,
    /// Drop VXLAN packets that come from no known peer, or carry a source that does not belong behind it (needs nf_tables, Linux 5.17)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = go_bool)]
    pub(super) vxlan_peers_only: bool,
    /// Keep the tunnel's own packets out of connection tracking
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = go_bool)]
    pub(super) notrack: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Health")]
pub(super) struct HealthFlags {
    /// Address to serve /healthz, /readyz and /metrics on
    #[arg(long, value_name = "IP", default_value = "0.0.0.0", value_parser = ip)]
    pub(super) healthz_ip: IpAddr,
    /// TCP port for them; 0 is off
    #[arg(long, value_name = "PORT", default_value = "0", value_parser = port)]
    pub(super) healthz_port: u16,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Logging and version")]
pub(super) struct LoggingFlags {
    /// How much to log: 0 what changes, 1 to 4 each operation, from 5 everything. RUST_LOG wins
    #[arg(long = "v", value_name = "LEVEL", default_value = "0", allow_negative_numbers = true, value_parser = level)]
    pub(super) verbosity: i32,
    /// Print the version and exit
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, value_parser = go_bool)]
    pub(super) version: bool,
}

/// klog's level is a signed 32-bit number, so flanneld takes any.
fn level(text: &str) -> Result<i32, String> {
    text.parse().map_err(|_| format!("{text:?} is no level: a number is wanted, 0 to 5"))
}

/// What flanneld takes and loden has no use for.
#[derive(Debug, Args)]
#[command(next_help_heading = "Accepted without effect")]
pub(super) struct IdleFlags {
    /// Log levels by file (klog)
    #[arg(long, value_name = "SPEC")]
    vmodule: Option<String>,
    /// Log a stack at this line (klog)
    #[arg(long = "log_backtrace_at", value_name = "FILE:LINE")]
    log_backtrace_at: Option<String>,
}

pub(super) const SUBNET_FILE: &str = "/run/flannel/subnet.env";

/// Seconds: at most ten years, so that a moment so far ahead can be reckoned.
fn seconds(text: &str) -> Result<u64, String> {
    let number: Option<u64> = text.parse().ok();
    number.filter(|seconds| *seconds <= 315_360_000).ok_or_else(|| format!("{text:?} is no number of seconds from 0 to 315360000"))
}

impl IdleFlags {
    /// Those that were given.
    pub(super) fn given(&self) -> impl Iterator<Item = &'static str> {
        let Self { vmodule, log_backtrace_at } = self;
        [(vmodule, "--vmodule"), (log_backtrace_at, "--log_backtrace_at")]
            .into_iter()
            .filter_map(|(value, flag)| value.is_some().then_some(flag))
    }
}

/// What `status` takes.
#[derive(Debug, Args)]
pub(super) struct StatusFlags {
    /// The agent's subnet file: its socket stands beside it
    #[arg(long, value_name = "FILE", default_value = SUBNET_FILE, value_parser = subnet_file)]
    pub(super) subnet_file: PathBuf,
    /// Print the whole report as one JSON document
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, value_parser = go_bool)]
    pub(super) json: bool,
}

/// What `docker-opts` takes: the letters of `mk-docker-opts.sh`, in getopts' manner (`-im` is `-i -m`).
#[derive(Debug, Args)]
pub(super) struct DockerOptsFlags {
    /// The agent's subnet file
    #[arg(short, value_name = "FILE", default_value = SUBNET_FILE, value_parser = subnet_file)]
    pub(super) f: PathBuf,
    /// The file to write, for dockerd's unit
    #[arg(short, value_name = "FILE", default_value = "/run/docker_opts.env", value_parser = subnet_file)]
    pub(super) d: PathBuf,
    /// Write each option as a variable of its own, such as DOCKER_OPT_MTU. Without -i and -c both forms are written
    #[arg(short)]
    pub(super) i: bool,
    /// Write all options into one variable, DOCKER_OPTS
    #[arg(short)]
    pub(super) c: bool,
    /// Leave --ip-masq away, which old versions of Docker do not know
    #[arg(short)]
    pub(super) m: bool,
    /// Another name for that one variable
    #[arg(short, value_name = "NAME", default_value = "DOCKER_OPTS", value_parser = variable)]
    pub(super) k: String,
}

/// A name that systemd and the shell take for a variable.
fn variable(text: &str) -> Result<String, String> {
    let good =
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    good.then(|| text.to_owned()).ok_or_else(|| format!("{text:?} is no variable's name: letters, digits and _ are wanted"))
}

impl From<DockerOptsFlags> for DockerOpts {
    fn from(flags: DockerOptsFlags) -> Self {
        let DockerOptsFlags { f, d, i, c, m, k } = flags;
        let both = !i && !c;
        Self { subnet_file: f, docker_file: d, individual: i || both, combined: (c || both).then_some(k), ip_masq: !m }
    }
}
