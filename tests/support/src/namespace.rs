//! A network and mount namespace, held by a process that does nothing.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::process::{Process, output};

/// Where the holders' process ids stand by name, for `sandbox --enter`.
const NAMES: &str = "/run/names";

/// A network and mount namespace. The kernel takes it down when this, and all that runs in it, is gone.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    holder: Process,
    net: Network,
}

impl Namespace {
    /// Makes a namespace, with lo up, after running the shell commands of `setup` in it.
    ///
    /// # Errors
    /// When it cannot be made or `setup` fails: with what the shell said.
    pub fn new(name: &str, setup: &str) -> Result<Self> {
        // The holder ends when this process does: its standard input is closed then.
        let script = format!("set -e\nip link set lo up\n{setup}\necho made\nexec cat >/dev/null");
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "--propagation", "private", "sh", "-c", &script]);
        unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut holder = Process::start(&mut unshare)?;
        let child = holder.child();
        let (Some(said), Some(complaints)) = (child.stdout.take(), child.stderr.take()) else { bail!("no pipe to the holder of {name}") };
        let mut first = String::new();
        BufReader::new(said).read_line(&mut first)?;
        if first != "made\n" {
            bail!("cannot make namespace {name}: {first}{}", std::io::read_to_string(complaints)?.trim());
        }
        let net = Network::of(holder.pid())?;
        // For people only; where two labs use one name, the later one is entered.
        let _ = fs::write(PathBuf::from(NAMES).join(name), format!("{}\n", holder.pid()));
        Ok(Self { name: name.to_owned(), holder, net })
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id of its holder: `nsenter --target PID --net --mount`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.holder.pid()
    }

    /// A command that will run in here. Its process id is the program's own.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid().to_string(), "--net", "--mount", "--"]).arg(program);
        command
    }

    /// Runs a command in here to its end and returns its standard output.
    ///
    /// # Errors
    /// When it fails: with its command line and standard error.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        let (program, args) = argv.split_first().context("no command given")?;
        output(self.command(program).args(args)).with_context(|| format!("on {}", self.name))
    }

    /// `ip -json -details ARGS…`, parsed.
    ///
    /// # Errors
    /// Those of [`Self::run`].
    pub fn ip_json(&self, args: &[&str]) -> Result<Value> {
        self.json(&[&["ip", "-json", "-details"], args].concat())
    }

    /// `bridge -json ARGS…`, parsed.
    ///
    /// # Errors
    /// Those of [`Self::run`].
    pub fn bridge_json(&self, args: &[&str]) -> Result<Value> {
        self.json(&[&["bridge", "-json"], args].concat())
    }

    fn json(&self, argv: &[&str]) -> Result<Value> {
        let text = self.run(argv)?;
        // iproute2 prints nothing at all where a list is empty.
        if text.trim().is_empty() {
            return Ok(Value::Array(Vec::new()));
        }
        serde_json::from_str(&text).with_context(|| format!("{argv:?} did not print JSON: {text}"))
    }

    /// Runs the lines with `ip -batch`: many changes for the price of one process.
    ///
    /// # Errors
    /// When one of them fails; those after it are not run.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        let mut command = self.command("ip");
        command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut ip = command.spawn().context("cannot run ip")?;
        ip.stdin.take().context("no pipe to ip")?.write_all(lines.as_bytes())?;
        let done = ip.wait_with_output()?;
        ensure!(done.status.success(), "ip -batch on {}: {}\n{lines}", self.name, String::from_utf8_lossy(&done.stderr).trim());
        Ok(())
    }

    /// Calls `job` on a thread of its own whose network is this one. A socket made there stays here, wherever it is used.
    ///
    /// # Errors
    /// When the namespace cannot be entered, and those of `job`.
    pub fn within<T: Send>(&self, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.net.within(job).with_context(|| format!("on {}", self.name))
    }

    /// Moves the calling thread's network here until the guard is dropped: for clients that make their sockets on this
    /// thread, such as a current-thread runtime.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter(&self) -> Result<Entered> {
        let home = File::open("/proc/thread-self/ns/net")?;
        setns(&self.net.0, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter the network of {}", self.name))?;
        Ok(Entered { home, this_thread: PhantomData })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = fs::remove_file(PathBuf::from(NAMES).join(&self.name));
    }
}

/// A network that somebody else has made: it lasts at least as long as this.
#[derive(Debug)]
pub struct Network(File);

impl Network {
    /// That of a process.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        Ok(Self(File::open(format!("/proc/{pid}/ns/net")).with_context(|| format!("no network of process {pid}"))?))
    }

    /// Calls `job` on a thread of its own whose network is this one. A socket made there stays here, wherever it is used, and so does
    /// a process.
    ///
    /// # Errors
    /// When the network cannot be entered, and those of `job`.
    pub fn within<T: Send>(&self, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).context("cannot enter the network")?;
                job()
            });
            thread.join().map_err(|_| anyhow!("the thread in another network panicked"))?
        })
    }
}

/// While it lives, its thread's network is another namespace's. It cannot leave its thread.
#[derive(Debug)]
pub struct Entered {
    home: File,
    this_thread: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        // Whence we came; that namespace is open, so it is there.
        let _ = setns(&self.home, CloneFlags::CLONE_NEWNET);
    }
}
