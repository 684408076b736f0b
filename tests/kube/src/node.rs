//! A node: a host with kubelet, containerd and kube-proxy, in process and mount namespaces of its own and a cgroup of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use testkit::{Host, Lab, Process, output, wait_for};

use crate::control::{Control, PODS};
use crate::parts::Parts;

/// A killed node's processes are gone by then.
const END: Duration = Duration::from_secs(10);

impl Body {
    fn switch_on(&self, host: &Host) -> Result<Process> {
        let Self { disk, group, images, script } = self;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", host.pid()));
        command.args(["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child=KILL"]);
        command.arg(script).arg(disk).arg(group).arg(images);
        let log = fs::OpenOptions::new().create(true).append(true).open(disk.join("log"))?;
        Process::start(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log))
    }
}

/// A node. Dropped, it is killed, with all that runs on it; its cgroups are removed.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) host: Host,
    /// Its processes end with this.
    power: Process,
    body: Body,
}

/// What is left of a node when it is switched off.
#[derive(Debug, Clone)]
struct Body {
    disk: PathBuf,
    group: String,
    images: PathBuf,
    script: PathBuf,
}

impl Node {
    /// Starts one. That it has come to the cluster is for others to wait for.
    pub(crate) fn start(parts: &Parts, control: &Control, host: Host, files: &Path, proxy_mode: &str) -> Result<Self> {
        let name = host.name().to_owned();
        let disk = files.join(&name);
        let group = format!("{}/{name}", group()?);
        let conf = disk.join("etc/loden-test");
        fs::create_dir_all(&conf)?;
        control.admit(&name, &conf)?;
        fs::write(conf.join("containerd.toml"), CONTAINERD)?;
        fs::write(conf.join("kubelet.yaml"), KUBELET.replace("$GROUP", &group))?;
        let ip = control.of_families(&[&host.address().to_string(), &host.address_v6().to_string()]);
        let kubelet = parts.program("kubelet").display().to_string();
        fs::write(
            conf.join("kubelet"),
            format!(
                "exec {kubelet} --config=/etc/loden-test/kubelet.yaml --kubeconfig=/etc/loden-test/{name}.conf \
                 --hostname-override={name} --node-ip={ip} --root-dir=/var/lib/kubelet --cert-dir=/var/lib/kubelet/pki\n"
            ),
        )?;
        let proxy = parts.program("kube-proxy").display().to_string();
        let pods = control.of_families(&PODS);
        fs::write(
            conf.join("kube-proxy"),
            format!(
                "exec {proxy} --kubeconfig=/etc/loden-test/kube-proxy.conf --hostname-override={name} --cluster-cidr={pods} \
                 --proxy-mode={proxy_mode} {THE_MACHINES}\n"
            ),
        )?;
        let body = Body { disk, group, images: parts.images.clone(), script: parts.here.join("node") };
        Ok(Self { power: body.switch_on(&host)?, host, body })
    }

    pub(crate) fn name(&self) -> &str {
        self.host.name()
    }

    /// Kills whatever runs on it, and starts it with nothing but its disk and address.
    pub(crate) fn reboot(mut self, lab: &Lab) -> Result<Self> {
        self.power.end(Signal::SIGKILL, END)?;
        let (host, body) = (self.host.clone(), self.body.clone());
        drop(self);
        let host = lab.replace(host)?;
        Ok(Self { power: body.switch_on(&host)?, host, body })
    }

    /// The process that is its process 1.
    fn init(&self) -> Result<u32> {
        let unshare = self.power.pid();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"))?;
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).with_context(|| format!("{} does not run", self.name()))
    }

    /// Runs a command on it as root would, and returns what it prints.
    pub(crate) fn run(&self, argv: &[&str]) -> Result<String> {
        let mut command = Command::new("nsenter");
        let namespaces = ["--mount", "--pid", "--net", "--uts", "--ipc", "--"];
        output(command.args(["--target", &self.init()?.to_string()]).args(namespaces).args(argv))
            .with_context(|| format!("on {}", self.name()))
    }

    /// The ids of all processes in its cgroup, or in one below it whose name has this in it.
    pub(crate) fn processes(&self, part: &str) -> Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // One that has just ended has none.
            let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            if groups.lines().any(|line| line.contains(&self.body.group) && line.contains(part)) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    fn empty(&self) -> Result<()> {
        let left = self.processes("")?;
        anyhow::ensure!(left.is_empty(), "processes {left:?} are left");
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What cannot be ended or removed goes with the sandbox, and with the next run of tests/kube/run.
        let _ = self.power.end(Signal::SIGKILL, END);
        let _ = wait_for("the node's processes to be gone", END, || self.empty());
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = remove_groups(&hierarchy.path().join(&self.body.group));
        }
    }
}

/// The cgroup of all nodes of this run; the next run knows by the number whether it is still one.
fn group() -> Result<String> {
    Ok(format!("loden-kube-{}", std::env::var("LODEN_SANDBOX_PID").context("this runs in tests/support/sandbox only")?))
}

/// A cgroup goes when those in it are gone.
fn remove_groups(group: &Path) -> std::io::Result<()> {
    for inner in fs::read_dir(group)?.flatten().filter(|inner| inner.path().is_dir()) {
        remove_groups(&inner.path())?;
    }
    fs::remove_dir(group)
}

/// Of conntrack's settings, these are the whole machine's.
const THE_MACHINES: &str = "--conntrack-max-per-core=0 --conntrack-min=0 --conntrack-tcp-timeout-established=0 \
                            --conntrack-tcp-timeout-close-wait=0 --oom-score-adj=0";

/// No capability to lower a score of the OOM killer's is to be had in every sandbox.
const CONTAINERD: &str = r#"
version = 2
oom_score = 0
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.k8s.io/pause:3.10"
disable_apparmor = true
restrict_oom_score_adj = true
tolerate_missing_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#;

/// The node's disk is a part of the machine's: how full that is is none of its business.
const KUBELET: &str = r#"
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$GROUP
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
resolvConf: ""
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 1Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%, imagefs.inodesFree: 0%}
"#;
