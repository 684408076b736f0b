//! An agent that runs on a host.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::process::{Process, output};
use crate::{AgentOptions, Host, http, wait_for};

/// Where the health server listens: the port that flannel's manifests use.
pub(crate) const HEALTH_PORT: u16 = 8471;
/// Longer than an orderly end can take.
const END: Duration = Duration::from_secs(10);
/// How much of the log is shown when something went wrong.
const TAIL_LINES: usize = 40;

/// A running agent. Dropped, it is killed, and what it wrote in the kernel stays.
#[derive(Debug)]
pub struct Agent {
    host: Host,
    options: AgentOptions,
    process: Process,
    log: PathBuf,
}

impl Agent {
    pub(crate) fn start(host: Host, options: AgentOptions) -> Result<Self> {
        let log = match options.health_port {
            HEALTH_PORT => "agent.log".to_owned(),
            other => format!("agent-{other}.log"),
        };
        let log = host.files().join(log);
        let process = launch(&host, &options, &log)?;
        Ok(Self { host, options, process, log })
    }

    /// The host that it runs on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What its threads have used of the CPU since it was started, those that have ended left out.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu(&self) -> Result<Duration> {
        let mut sum = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            // Nanoseconds on a CPU come first (Documentation/scheduler/sched-stats.rst). A thread may end meanwhile.
            let Ok(schedstat) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            sum += Duration::from_nanos(schedstat.split(' ').next().context("schedstat is empty")?.parse()?);
        }
        Ok(sum)
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Errors
    /// After the deadline, or as soon as the agent has ended.
    pub fn wait_ready(&mut self, deadline: Duration) -> Result<()> {
        let mut ended = None;
        let name = self.host.name().to_owned();
        wait_for(&format!("the agent on {name} to be ready"), deadline, || {
            ended = self.process.ended()?;
            if ended.is_some() {
                return Ok(());
            }
            let (code, body) = self.get("/readyz")?;
            ensure!(code == 200, "/readyz says {code} {}", body.trim());
            Ok(())
        })?;
        ended.map_or(Ok(()), |how| Err(anyhow!("the agent on {name} has ended: {how}")))
    }

    /// The status code and body of a GET from its health server.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        http::get(&self.host, SocketAddr::from((Ipv4Addr::LOCALHOST, self.options.health_port)), path)
    }

    /// The value of a metric as `/metrics` has it; `name` may carry labels: `loden_heals_total{kind="route"}`.
    ///
    /// # Errors
    /// When the server does not answer or has no such metric.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let (_, body) = self.get("/metrics")?;
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.with_context(|| format!("no metric {name} among\n{body}"))?;
        value.trim().parse().with_context(|| format!("metric {name} is {value:?}"))
    }

    /// `loden status --json`, whatever it exits with: an agent that is not ready says so by that too.
    ///
    /// # Errors
    /// When it prints no JSON: with what it said.
    pub fn status_json(&self) -> Result<Value> {
        let subnet_file = self.options.subnet_file.iter().flat_map(|path| ["--subnet-file", path]);
        let done = self.host.command(&self.options.program).args(["status", "--json"]).args(subnet_file).output()?;
        serde_json::from_slice(&done.stdout)
            .with_context(|| format!("the status is no JSON: {} {}", done.status, String::from_utf8_lossy(&done.stderr).trim()))
    }

    /// Runs the agent's program on its host with other arguments, such as `plan`, and returns what it prints.
    ///
    /// # Errors
    /// When it fails: with what it said.
    pub fn ask(&self, args: &[&str]) -> Result<String> {
        output(self.host.command(&self.options.program).args(args))
    }

    /// The same, with the flags that the agent was given: for `release`.
    ///
    /// # Errors
    /// Those of [`Self::ask`].
    pub fn ask_with_flags(&self, verb: &str) -> Result<String> {
        let flags = self.options.args.iter().map(String::as_str);
        self.ask(&std::iter::once(verb).chain(flags).collect::<Vec<_>>())
    }

    /// SIGKILL: no last words.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        self.process.end(Signal::SIGKILL, END)
    }

    /// SIGTERM, and its exit status.
    ///
    /// # Errors
    /// When it does not end.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.end(Signal::SIGTERM, END)
    }

    /// Sends it a signal, such as SIGSTOP.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)?;
        if signal != Signal::SIGSTOP {
            return Ok(());
        }
        // A thread that runs on another CPU goes on until it next leaves the kernel.
        wait_for("the agent to stop", END, || {
            for task in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
                let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
                ensure!(status.lines().any(|line| line.starts_with("State:\tT")), "a thread runs still");
            }
            Ok(())
        })
    }

    /// How it ended; none while it runs.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.ended()
    }

    /// Starts it again; one that still runs is killed first. The log goes on in the same file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.kill9()?;
        self.process = launch(&self.host, &self.options, &self.log)?;
        Ok(())
    }

    /// What it was started with.
    #[must_use]
    pub fn options(&self) -> &AgentOptions {
        &self.options
    }

    /// What the next start will be given.
    pub fn options_mut(&mut self) -> &mut AgentOptions {
        &mut self.options
    }

    /// All that it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map_or_else(|error| format!("no log: {error}"), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Whether a line of the log contains the text.
    #[must_use]
    pub fn log_contains(&self, text: &str) -> bool {
        self.log().lines().any(|line| line.contains(text))
    }

    /// The last lines of the log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let skip = lines.len().saturating_sub(TAIL_LINES);
        lines.into_iter().skip(skip).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Agent {
    #[expect(clippy::print_stderr, reason = "the harness keeps it for the report of a failed test")]
    fn drop(&mut self) {
        if self.host.options().show_logs || thread::panicking() {
            eprintln!("--- log of the agent on {}, process {} ---\n{}", self.host.name(), self.pid(), self.log_tail());
        }
    }
}

fn launch(host: &Host, options: &AgentOptions, log: &PathBuf) -> Result<Process> {
    let AgentOptions { program, verb, args, env, under, health_port: _, subnet_file: _ } = options;
    if !program.is_file() {
        bail!("there is no agent {}", program.display());
    }
    let log: File = OpenOptions::new().create(true).append(true).open(log)?;
    let mut words = under.iter().map(OsStr::new).chain([program.as_os_str()]);
    let mut command: Command = host.command(words.next().unwrap_or_default());
    command.args(words);
    command.args(verb).args(args).envs(env.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Process::start(&mut command)
}
