//! The control plane: API server, controller manager and scheduler, on the switch, with a real etcd.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use testkit::{Etcd, Lab, Namespace, Process, output, wait_for};

use crate::access::Access;
use crate::parts::Parts;

/// The API server is up in four seconds; on a machine that builds at the same time it takes longer.
const START: Duration = Duration::from_secs(60);
/// What is told to end has ended by then.
const END: Duration = Duration::from_secs(20);

/// Addresses of pods and services, of each family; the nodes' come out of the pods'.
pub(crate) const PODS: [&str; 2] = ["10.244.0.0/16", "fc00:244::/48"];
const SERVICES: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];
/// The first of the services is the API server itself.
const SELF: [&str; 2] = ["10.96.0.1", "fd00:10:96::1"];

/// Where the API server writes down what the agent asks of it, a JSON object a line, and which requests those are.
const AUDIT: &str = "audit.log";
const AUDITED: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: ["system:serviceaccount:kube-flannel:loden"]}
- {level: None}
"#;

/// A running control plane.
#[derive(Debug)]
pub(crate) struct Control {
    parts: Parts,
    access: Access,
    files: PathBuf,
    switch: Arc<Namespace>,
    families: usize,
    server: Option<Process>,
    _others: Vec<Process>,
    etcd: Etcd,
}

impl Control {
    /// Starts one on the switch, for nodes of these names, with one address family or two, and waits until it serves.
    pub(crate) fn start(parts: &Parts, lab: &Lab, files: &Path, nodes: impl Iterator<Item = String>, families: usize) -> Result<Self> {
        fs::create_dir_all(files)?;
        let names: Vec<_> = SELF.iter().chain(&[Lab::GATEWAY, Lab::GATEWAY_V6]).map(|&name| name.to_owned()).collect();
        let access = Access::new(files, &format!("https://{}:6443", Lab::GATEWAY), &names, nodes)?;
        fs::write(files.join("audit.yaml"), AUDITED)?;
        let (parts, files, switch) = (parts.clone(), files.to_owned(), Arc::clone(lab.switch()));
        let mut control = Self { parts, access, files, switch, families, server: None, _others: Vec::new(), etcd: lab.etcd()? };
        control.start_server()?;
        let admin = format!("--kubeconfig={}", control.access.file("admin.conf"));
        let alone = [admin.as_str(), "--leader-elect=false", "--authentication-skip-lookup"];
        let key = format!("--service-account-private-key-file={}", control.access.file("accounts.key"));
        let ca = format!("--root-ca-file={}", control.access.file("ca.pem"));
        let pods = format!("--cluster-cidr={}", control.of_families(&PODS));
        let services = format!("--service-cluster-ip-range={}", control.of_families(&SERVICES));
        let manager = [&alone[..], &["--allocate-node-cidrs", &pods, &services, &key, &ca]].concat();
        control._others = vec![control.run("kube-controller-manager", &manager)?, control.run("kube-scheduler", &alone)?];
        Ok(control)
    }

    /// Starts the API server, where none runs, and waits until it serves.
    pub(crate) fn start_server(&mut self) -> Result<()> {
        let file = |name: &str| self.access.file(name);
        let args = [
            format!("--etcd-servers={}", self.etcd.endpoint()),
            format!("--advertise-address={}", Lab::GATEWAY),
            format!("--service-cluster-ip-range={}", self.of_families(&SERVICES)),
            format!("--cert-dir={}", self.files.display()),
            format!("--tls-cert-file={}", file("server.pem")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--token-auth-file={}", file("tokens.csv")),
            format!("--service-account-key-file={}", file("accounts.pub")),
            format!("--service-account-signing-key-file={}", file("accounts.key")),
            format!("--audit-policy-file={}", file("audit.yaml")),
            format!("--audit-log-path={}", file(AUDIT)),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--allow-privileged".to_owned(),
        ];
        self.server = Some(self.run("kube-apiserver", &args)?);
        wait_for("the API server to serve", START, || {
            if let Some(status) = self.server.as_mut().map(Process::ended).transpose()?.flatten() {
                return Ok(Err(format!("the API server has ended: {status}: {}", self.log_tail("kube-apiserver"))));
            }
            self.kubectl(&["get", "--raw=/readyz"]).map(|_| Ok(()))
        })?
        .map_err(anyhow::Error::msg)
    }

    /// Ends the API server at once.
    pub(crate) fn kill_server(&mut self) -> Result<()> {
        self.server.take().context("no API server runs")?.end(Signal::SIGKILL, END).map(drop)
    }

    /// What a node is given to be one: kubeconfigs for itself and for kube-proxy.
    pub(crate) fn admit(&self, node: &str, folder: &Path) -> Result<()> {
        self.access.kubeconfig(node, folder)?;
        self.access.kubeconfig("kube-proxy", folder)
    }

    /// These, with a comma between them where there are two families.
    pub(crate) fn of_families(&self, both: &[&str; 2]) -> String {
        both.iter().take(self.families).copied().collect::<Vec<_>>().join(",")
    }

    /// `kubectl ARGS…`, and what it prints.
    pub(crate) fn kubectl<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<String> {
        output(self.client().args(args))
    }

    /// `kubectl get ARGS… -o json`.
    pub(crate) fn get(&self, args: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], args].concat())?;
        serde_json::from_str(&text).with_context(|| format!("kubectl get {args:?} did not print JSON"))
    }

    /// The API server's version: `v1.34.3`.
    pub(crate) fn version(&self) -> Result<String> {
        let version: Value = serde_json::from_str(&self.kubectl(&["version", "-o", "json"])?)?;
        let said = version.pointer("/serverVersion/gitVersion").and_then(Value::as_str);
        said.map(str::to_owned).with_context(|| format!("no version in {version}"))
    }

    /// `kubectl apply -f -` with this on its standard input.
    pub(crate) fn apply(&self, manifest: &str) -> Result<String> {
        self.apply_with(&[], manifest)
    }

    /// The same with further arguments.
    pub(crate) fn apply_with(&self, args: &[&str], manifest: &str) -> Result<String> {
        let mut command = self.client();
        command.args(["apply", "-f", "-"]).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut kubectl = command.spawn().context("cannot run kubectl")?;
        kubectl.stdin.take().context("no pipe to kubectl")?.write_all(manifest.as_bytes())?;
        let done = kubectl.wait_with_output()?;
        if !done.status.success() {
            bail!("kubectl apply: {}\n{manifest}", String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// kubectl with all but its arguments; it keeps what it knows in a folder of the test's.
    pub(crate) fn client(&self) -> Command {
        let mut command = self.switch.command(self.parts.program("kubectl"));
        command.env("HOME", &self.files).env("KUBECONFIG", self.access.file("admin.conf"));
        command
    }

    /// What loden's service account has asked for: verb and resource, and the code that it was answered with.
    pub(crate) fn audit(&self) -> Result<BTreeSet<(String, u64)>> {
        let log = fs::read_to_string(self.files.join(AUDIT)).unwrap_or_default();
        let mut asked = BTreeSet::new();
        for line in log.lines() {
            let request: Value = serde_json::from_str(line).context("a line of the audit log")?;
            let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let resource = format!("{}/{}", text("/objectRef/resource"), text("/objectRef/subresource"));
            let code = request.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or_default();
            asked.insert((format!("{} {}", text("/verb"), resource.trim_end_matches('/')), code));
        }
        Ok(asked)
    }

    fn run<A: AsRef<OsStr>>(&self, name: &str, args: &[A]) -> Result<Process> {
        let log = OpenOptions::new().create(true).append(true).open(self.files.join(format!("{name}.log")))?;
        let mut command = self.switch.command(self.parts.program(name));
        command.args(args).current_dir(&self.files).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Process::start(&mut command)
    }

    /// The last that it said.
    fn log_tail(&self, name: &str) -> String {
        let log = fs::read_to_string(self.files.join(format!("{name}.log"))).unwrap_or_default();
        log.lines().rev().take(5).collect::<Vec<_>>().join(" / ")
    }
}
