//! A real dockerd on a host, with files and sockets of its own, and containers from a file system that is made here.
//!
//! It runs in the host's network, but not among the host's mounts: those hide the cgroups. Everything that it starts
//! is in the sandbox's process namespace and ends with it at the latest; its cgroups have a name of their own and are removed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::{Host, wait_for};

/// dockerd is up in a second, and ends its containers in another.
const PATIENCE: Duration = Duration::from_secs(20);

/// Mounts of its own: data that outlives a restart, and `/etc` and `/run` that it may write to. The arguments are a folder, then dockerd's words.
const STAGE: &str = r#"
set -e
files=$1
shift
mkdir -p "$files/lib" "$files/etc" "$files/work"
mount --bind "$files/lib" /var/lib
mount -t overlay -o "lowerdir=/etc,upperdir=$files/etc,workdir=$files/work" overlay /etc
mount -t tmpfs -o mode=755 tmpfs /run
exec "$@"
"#;

/// A running dockerd. Dropped, it is ended, with its containers.
#[derive(Debug)]
pub(crate) struct Docker {
    child: Child,
    log: PathBuf,
    group: String,
}

impl Docker {
    /// Starts one with these options, and waits until it answers.
    pub(crate) fn start(host: &Host, options: &[String]) -> Result<Self> {
        let map = fs::read_to_string("/proc/self/uid_map")?;
        ensure!(map.split_whitespace().eq(["0", "0", "4294967295"]), "dockerd needs root itself, not a user namespace's");
        let files = host.files().join("docker");
        fs::create_dir_all(&files)?;
        let log = files.join("log");
        let group = format!("loden-docker-{}-{}", std::env::var("LODEN_SANDBOX_PID").unwrap_or_default(), host.name());
        let out = File::create(&log)?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", host.pid()));
        command.args(["unshare", "--mount", "--propagation", "private", "sh", "-c", STAGE, "sh"]).arg(&files);
        command.args(["dockerd", "--data-root", "/var/lib/docker", "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid"]);
        command.args(["-H", "unix:///run/docker.sock", "--cgroup-parent", &format!("/{group}")]).args(options);
        let child = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn().context("cannot run nsenter")?;
        let mut docker = Self { child, log, group };
        wait_for("dockerd to answer", PATIENCE, || {
            if let Some(status) = docker.child.try_wait()? {
                return Ok(Err(format!("dockerd has ended: {status}: {}", docker.log_tail())));
            }
            docker.ask(["version"]).map(Ok)
        })?
        .map_err(anyhow::Error::msg)?;
        Ok(docker)
    }

    /// `docker ARGS…`, and what it prints.
    pub(crate) fn ask<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<String> {
        let mut command = self.client();
        finish(command.args(args))
    }

    /// Runs a container from a file system with nothing but busybox.
    pub(crate) fn run(&self, name: &str) -> Result<DockerContainer> {
        let root = tempfile::tempdir()?;
        let bin = root.path().join("bin");
        fs::create_dir(&bin)?;
        fs::copy("/bin/busybox", bin.join("busybox")).context("no /bin/busybox: apt-get install busybox-static")?;
        let mut tar = Command::new("tar").arg("-C").arg(root.path()).args(["-c", "."]).stdout(Stdio::piped()).spawn()?;
        let layer = tar.stdout.take().context("no pipe from tar")?;
        let mut client = self.client();
        finish(client.args(["import", "-", "loden-test"]).stdin(layer))?;
        tar.wait()?;
        // Process 1 of a container ignores what it has no handler for.
        let sleep = ["--stop-signal", "KILL", "--name", name, "loden-test", "/bin/busybox", "sleep", "86400"];
        self.ask(["run", "--detach"].iter().chain(&sleep))?;
        let told = |what: &str| Ok::<_, anyhow::Error>(self.ask(["inspect", "--format", what, name])?.trim().to_owned());
        let address = told("{{.NetworkSettings.IPAddress}}")?;
        Ok(DockerContainer {
            name: name.to_owned(),
            pid: told("{{.State.Pid}}")?.parse()?,
            address: address.parse().with_context(|| format!("the address of {name} is {address:?}"))?,
        })
    }

    /// Ends it, with its containers.
    pub(crate) fn end(mut self) -> Result<()> {
        self.terminate()
    }

    fn client(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.child.id().to_string(), "--mount", "docker", "-H", "unix:///run/docker.sock"]);
        command
    }

    fn terminate(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
            wait_for("dockerd to end", PATIENCE, || self.child.try_wait()?.context("it still runs"))?;
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().rev().take(5).collect::<Vec<_>>().join(" / ")
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if self.terminate().is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // One in each hierarchy. What cannot be removed has a process in it, which goes with the sandbox.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = remove_groups(&hierarchy.path().join(&self.group));
        }
        let _ = remove_groups(&Path::new("/sys/fs/cgroup").join(&self.group));
    }
}

/// A cgroup goes when those in it are gone.
fn remove_groups(group: &Path) -> std::io::Result<()> {
    for inner in fs::read_dir(group)?.flatten().filter(|inner| inner.path().is_dir()) {
        remove_groups(&inner.path())?;
    }
    fs::remove_dir(group)
}

/// A container of Docker's.
#[derive(Debug)]
pub(crate) struct DockerContainer {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    pid: u32,
}

impl DockerContainer {
    /// Runs a command in the container's network.
    pub(crate) fn run(&self, argv: &[&str]) -> Result<String> {
        finish(Command::new("nsenter").arg(format!("--net=/proc/{}/ns/net", self.pid)).args(argv))
    }

    /// The MTU of its interface.
    pub(crate) fn mtu(&self) -> Result<u16> {
        let links = self.run(&["ip", "-o", "link", "show", "eth0"])?;
        let mtu = links.split("mtu ").nth(1).and_then(|rest| rest.split(' ').next());
        mtu.and_then(|mtu| mtu.parse().ok()).with_context(|| format!("no MTU in {links}"))
    }

    /// One ping with "don't fragment", of a packet of this size in all: 20 bytes of it are IPv4's, 8 ICMP's.
    pub(crate) fn ping(&self, to: Ipv4Addr, size: u16) -> Result<()> {
        let payload = (size - 28).to_string();
        self.run(&["ping", "-c1", "-W1", "-n", "-M", "do", "-s", &payload, &to.to_string()]).map(drop)
    }
}

fn finish(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !done.status.success() {
        bail!("{command:?}: {} {}", String::from_utf8_lossy(&done.stderr).trim(), String::from_utf8_lossy(&done.stdout).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
