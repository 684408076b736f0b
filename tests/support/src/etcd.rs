//! A real etcd.

use std::fs::OpenOptions;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::process::{Process, output};
use crate::{Namespace, wait_for};

/// etcd is up in a second; on a machine that builds at the same time it takes longer.
const START: Duration = Duration::from_secs(20);
/// etcd finishes what it has in hand before it ends.
const END: Duration = Duration::from_secs(10);

/// A single-member etcd. Its data stays over [`Self::restart`] and goes with this.
#[derive(Debug)]
pub struct Etcd {
    process: Process,
    place: Place,
    options: EtcdOptions,
    asks_for_users: bool,
}

/// What an etcd can be like.
#[derive(Debug, Clone, Default)]
pub struct EtcdOptions {
    /// Serve TLS with these files.
    pub tls: Option<TlsFiles>,
    /// Ask for a user and password; the user is made, with all rights.
    pub user: Option<(String, String)>,
    /// Further arguments.
    pub args: Vec<String>,
}

/// PEM files. The certificate has to serve clients too where they are asked for one.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Who signed.
    pub ca: PathBuf,
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whether clients have to show a certificate of that CA.
    pub ask_clients: bool,
}

/// Where it runs, listens and keeps its data.
#[derive(Debug)]
struct Place {
    namespace: Option<Arc<Namespace>>,
    name: String,
    listener: String,
    clients: String,
    peers: String,
    /// All members, `name=URL` with commas between them.
    cluster: String,
    files: TempDir,
}

impl Place {
    /// Whether something listens.
    fn connect(&self) -> Result<()> {
        let connect = || Ok(TcpStream::connect(&self.listener).map(drop)?);
        self.namespace.as_ref().map_or_else(connect, |namespace| namespace.within(connect))
    }
}

impl Etcd {
    /// Starts one on the loopback of the test's own namespace, on a free port: for tests that need no hosts.
    ///
    /// # Errors
    /// When etcd is missing or does not start.
    pub fn alone(options: EtcdOptions) -> Result<Self> {
        let free = || Ok::<_, anyhow::Error>(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        Self::start(None, "127.0.0.1", (free()?, free()?), options)
    }

    pub(crate) fn on(namespace: Arc<Namespace>, address: &str, options: EtcdOptions) -> Result<Self> {
        // The ports that IANA has for etcd's clients and peers.
        Self::start(Some(namespace), address, (2379, 2380), options)
    }

    fn start(namespace: Option<Arc<Namespace>>, address: &str, (clients, peers): (u16, u16), options: EtcdOptions) -> Result<Self> {
        let cluster = format!("lab=http://127.0.0.1:{peers}");
        let mut etcd = Self::member("lab", namespace, address, (clients, peers), cluster, options)?;
        etcd.wait_up()?;
        etcd.ask_for_users()?;
        Ok(etcd)
    }

    /// One of a cluster, which serves when it has met enough others.
    pub(crate) fn member(
        name: &str,
        namespace: Option<Arc<Namespace>>,
        address: &str,
        (clients, peers): (u16, u16),
        cluster: String,
        options: EtcdOptions,
    ) -> Result<Self> {
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let place = Place {
            namespace,
            name: name.to_owned(),
            listener: format!("{address}:{clients}"),
            clients: format!("{scheme}://{address}:{clients}"),
            peers: format!("http://127.0.0.1:{peers}"),
            cluster,
            files: new_files()?,
        };
        Ok(Self { process: launch(&place, &options)?, place, options, asks_for_users: false })
    }

    /// Writes all it has to a file, which goes with `self`.
    ///
    /// # Errors
    /// When etcdctl fails.
    pub fn snapshot(&self) -> Result<PathBuf> {
        let file = self.place.files.path().join("snapshot");
        self.ctl(&["snapshot", "save", &file.display().to_string()])?;
        Ok(file)
    }

    /// Starts it again with what a snapshot holds: a backup that was restored.
    ///
    /// # Errors
    /// When etcdctl fails, or it does not start.
    pub fn restart_from(&mut self, snapshot: &Path) -> Result<()> {
        self.process.end(Signal::SIGTERM, END)?;
        let data = self.place.files.path().join("data");
        std::fs::remove_dir_all(&data)?;
        let Place { name, peers, cluster, .. } = &self.place;
        let (snapshot, data) = (snapshot.display().to_string(), data.display().to_string());
        let member = ["--name", name, "--initial-cluster", cluster, "--initial-advertise-peer-urls", peers, "--data-dir", &data];
        self.ctl(&[&["snapshot", "restore", &snapshot][..], &member].concat())?;
        self.restart()
    }

    /// The URL for clients.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.place.clients
    }

    /// SIGKILL: connections break, nothing is said.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.process.end(Signal::SIGKILL, END).map(drop)
    }

    /// SIGSTOP: connections stay and nothing answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    /// Starts it again with the data that it had; one that still runs is ended first.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.process.end(Signal::SIGTERM, END)?;
        self.process = launch(&self.place, &self.options)?;
        self.wait_up()
    }

    /// Starts it again with no data at all: a store that went back in time.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart_empty(&mut self) -> Result<()> {
        self.process.end(Signal::SIGTERM, END)?;
        self.place.files = new_files()?;
        self.asks_for_users = false;
        self.restart()?;
        self.ask_for_users()
    }

    /// Runs etcdctl, with endpoint, TLS files and user given, and returns what it prints.
    ///
    /// # Errors
    /// When it fails: with what it said.
    pub fn ctl(&self, args: &[&str]) -> Result<String> {
        output(self.ctl_command()?.args(args))
    }

    /// etcdctl with all but its arguments.
    pub(crate) fn ctl_command(&self) -> Result<Command> {
        let mut command = program(&self.place, "etcdctl")?;
        command.env("ETCDCTL_API", "3").args(["--endpoints", self.endpoint()]);
        if let Some(TlsFiles { ca, cert, key, ask_clients }) = &self.options.tls {
            command.arg("--cacert").arg(ca);
            if *ask_clients {
                command.arg("--cert").arg(cert).arg("--key").arg(key);
            }
        }
        if let (true, Some((user, password))) = (self.asks_for_users, &self.options.user) {
            command.arg("--user").arg(format!("{user}:{password}"));
        }
        Ok(command)
    }

    /// etcd asks for users once there is one called root; the wanted one gets all rights too.
    fn ask_for_users(&mut self) -> Result<()> {
        let Some((user, password)) = &self.options.user else { return Ok(()) };
        for name in if user == "root" { vec!["root"] } else { vec!["root", user] } {
            self.ctl(&["user", "add", &format!("{name}:{password}")])?;
            self.ctl(&["user", "grant-role", name, "root"])?;
        }
        self.ctl(&["auth", "enable"])?;
        self.asks_for_users = true;
        Ok(())
    }

    pub(crate) fn wait_up(&mut self) -> Result<()> {
        let log = self.place.files.path().join("log");
        let mut ended = None;
        wait_for("etcd to serve", START, || {
            ended = self.process.ended()?;
            if ended.is_some() {
                return Ok(());
            }
            // etcdctl that meets a closed port tries again only after a second.
            self.place.connect()?;
            self.ctl(&["--dial-timeout=1s", "endpoint", "health"]).map(drop)
        })
        .and_then(|()| ended.map_or(Ok(()), |how| Err(anyhow!("etcd has ended: {how}"))))
        .with_context(|| format!("its log: {}", std::fs::read_to_string(log).unwrap_or_default()))
    }
}

fn new_files() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("etcd").tempdir()?)
}

fn launch(place: &Place, options: &EtcdOptions) -> Result<Process> {
    let Place { namespace: _, name, listener: _, clients, peers, cluster, files } = place;
    let mut command = program(place, "etcd")?;
    command.args(["--name", name, "--listen-client-urls", clients, "--advertise-client-urls", clients]);
    command.args(["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]);
    // With nobody to elect but itself, a member need not wait a second before it does. Five heartbeats are the least.
    let (heartbeat, election) = if cluster.contains(',') { ("100", "1000") } else { ("10", "50") };
    command.args(["--heartbeat-interval", heartbeat, "--election-timeout", election]);
    command.args(["--initial-cluster", cluster, "--data-dir"]).arg(files.path().join("data"));
    if let Some(TlsFiles { ca, cert, key, ask_clients }) = &options.tls {
        command.arg("--cert-file").arg(cert).arg("--key-file").arg(key);
        if *ask_clients {
            // The authority's file alone makes etcd ask already.
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(ca);
        }
    }
    let log = OpenOptions::new().create(true).append(true).open(files.path().join("log"))?;
    command.args(&options.args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Process::start(&mut command)
}

/// The program as a command that will run in the etcd's place.
fn program(place: &Place, name: &str) -> Result<Command> {
    let (package, found) = match name {
        "etcd" => ("etcd-server", find("etcd")),
        _ => ("etcd-client", find(name)),
    };
    let Some(path) = found else { bail!("{name} is missing: apt-get install {package}") };
    Ok(place.namespace.as_ref().map_or_else(|| Command::new(&path), |namespace| namespace.command(&path)))
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}
