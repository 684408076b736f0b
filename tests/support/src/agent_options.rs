//! Which agent to start, and how.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::agent::HEALTH_PORT;
use crate::{ApiServer, Etcd};

/// The program of an agent, its arguments and environment.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    pub(crate) program: PathBuf,
    pub(crate) verb: Option<&'static str>,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) under: Vec<String>,
    pub(crate) health_port: u16,
    pub(crate) subnet_file: Option<String>,
}

impl AgentOptions {
    /// `loden agent` on this store, with the health server on. The program is `$LODEN_BIN`, else the `loden` of the build
    /// that the running program is part of.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn loden(etcd: &Etcd) -> Result<Self> {
        Ok(Self::new(loden_binary()?, Some("agent")).at(etcd.endpoint()))
    }

    /// The same, with the store behind this URL, or several with commas between them.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn loden_at(endpoints: &str) -> Result<Self> {
        Ok(Self::new(loden_binary()?, Some("agent")).at(endpoints))
    }

    /// `loden agent` on the Nodes of a Kubernetes cluster, as the agent of this one, with the network configuration in a file.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn loden_in_kubernetes(server: &ApiServer, node: &str, net_conf: &Path) -> Result<Self> {
        Ok(Self::new(loden_binary()?, Some("agent")).on_nodes(server, node, net_conf))
    }

    /// The same of another agent that takes the same flags.
    #[must_use]
    pub fn other_in_kubernetes(program: impl Into<PathBuf>, server: &ApiServer, node: &str, net_conf: &Path) -> Self {
        Self::new(program.into(), None).on_nodes(server, node, net_conf)
    }

    fn on_nodes(self, server: &ApiServer, node: &str, net_conf: &Path) -> Self {
        let options = self.env("NODE_NAME", node).args(["--kube-subnet-mgr", "--kube-api-url", &server.url()]);
        let net_conf = net_conf.display().to_string();
        options.args(["--net-config-path", &net_conf, "--healthz-port", &HEALTH_PORT.to_string()])
    }

    /// Another agent that takes the same flags, such as flanneld.
    #[must_use]
    pub fn other(program: impl Into<PathBuf>, etcd: &Etcd) -> Self {
        Self::new(program.into(), None).at(etcd.endpoint())
    }

    /// The agent's program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The agent's flags.
    #[must_use]
    pub fn flags(&self) -> &[String] {
        &self.args
    }

    /// Another program in its place, with the same arguments.
    #[must_use]
    pub fn with_program(self, program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), ..self }
    }

    fn new(program: PathBuf, verb: Option<&'static str>) -> Self {
        let (args, env, under) = (Vec::new(), Vec::new(), Vec::new());
        Self { program, verb, args, env, under, health_port: HEALTH_PORT, subnet_file: None }
    }

    fn at(self, endpoints: &str) -> Self {
        self.args(["--etcd-endpoints", endpoints]).args(["--healthz-port", &HEALTH_PORT.to_string()])
    }

    /// Beside another agent of its host: with this health port and subnet file.
    #[must_use]
    pub fn beside(self, health_port: u16, subnet_file: &str) -> Self {
        let options = self.args(["--healthz-port", &health_port.to_string(), "--subnet-file", subnet_file]);
        Self { health_port, subnet_file: Some(subnet_file.to_owned()), ..options }
    }

    /// With further arguments.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Started by another program, which becomes it: `setpriv …`, or `strace …`.
    #[must_use]
    pub fn under<A: Into<String>>(mut self, command: impl IntoIterator<Item = A>) -> Self {
        self.under = command.into_iter().map(Into::into).collect();
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Test binaries lie in `target/PROFILE/deps`, the demo beside the agent in `target/PROFILE`.
fn loden_binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("LODEN_BIN") {
        return PathBuf::from(path).canonicalize().context("LODEN_BIN names no file");
    }
    let me = env::current_exe()?;
    for folder in me.ancestors().skip(1).take(2) {
        let candidate = folder.join("loden");
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!("no loden beside {}: run `make build`, or set LODEN_BIN", me.display())
}
