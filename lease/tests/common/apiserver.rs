//! A real kube-apiserver on a real etcd, one for a whole test program: it takes seconds to start.

#![expect(clippy::expect_used, clippy::panic, reason = "tests say what went wrong by failing")]

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use testkit::{Etcd, wait_for};

/// It lists its own types and makes its own certificate before it is ready.
const START: Duration = Duration::from_secs(60);
const TOKEN: &str = "tester";

/// What runs, until the test program ends and its sandbox with it.
pub(crate) struct ApiServer {
    _etcd: Etcd,
    _process: Child,
    _files: TempDir,
    /// How it is reached, with every right.
    pub(crate) kubeconfig: PathBuf,
}

static RUNNING: OnceLock<ApiServer> = OnceLock::new();
static TURN: Mutex<()> = Mutex::new(());

/// The server, for one test at a time.
pub(crate) fn take() -> (&'static ApiServer, MutexGuard<'static, ()>) {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    (RUNNING.get_or_init(start), turn)
}

/// The program that `KUBE_APISERVER_BIN` names, if it names one.
pub(crate) fn binary() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("KUBE_APISERVER_BIN")?);
    assert!(path.is_file(), "KUBE_APISERVER_BIN: no kube-apiserver at {}", path.display());
    Some(path)
}

fn start() -> ApiServer {
    let binary = binary().expect("KUBE_APISERVER_BIN is set");
    let etcd = Etcd::alone(testkit::EtcdOptions::default()).unwrap_or_else(|error| panic!("{error:#}"));
    let files = TempDir::new().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    };
    let pair = rcgen::KeyPair::generate().expect("a key");
    let (key, public) = (file("key", &pair.serialize_pem()), file("public", &pair.public_key_pem()));
    let tokens = file("tokens", &format!("{TOKEN},tester,1,system:masters\n"));
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let log = File::create(files.path().join("log")).expect("a file");
    let mut command = Command::new(binary);
    command.args(["--bind-address=127.0.0.1", "--service-account-issuer=https://issuer", "--service-cluster-ip-range=10.96.0.0/16"]);
    command.args([&format!("--secure-port={port}"), &format!("--etcd-servers={}", etcd.endpoint())]);
    for (flag, path) in [
        ("cert-dir", files.path()),
        ("token-auth-file", &tokens),
        ("service-account-key-file", &public),
        ("service-account-signing-key-file", &key),
    ] {
        command.arg(format!("--{flag}={}", path.display()));
    }
    command.args(["--authorization-mode=RBAC", "--advertise-address=127.0.0.1"]);
    let mut process = command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log).spawn().expect("it runs");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "k", "cluster": { "server": format!("https://127.0.0.1:{port}"), "insecure-skip-tls-verify": true } }],
        "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "u" } }],
        "users": [{ "name": "u", "user": { "token": TOKEN } }],
    });
    let kubeconfig = file("kubeconfig", &kubeconfig.to_string());
    wait_until_ready(&mut process, &files, port);
    ApiServer { _etcd: etcd, _process: process, _files: files, kubeconfig }
}

/// It says so in its log when it has registered itself; the port is open before that.
fn wait_until_ready(process: &mut Child, files: &TempDir, port: u16) {
    let log = files.path().join("log");
    let ready = || {
        if let Ok(Some(how)) = process.try_wait() {
            panic!("kube-apiserver has ended: {how}; its log: {}", read(&log));
        }
        std::net::TcpStream::connect(("127.0.0.1", port))?;
        let text = read(&log);
        anyhow::ensure!(text.contains("Caches are synced"), "its caches are not filled");
        Ok(())
    };
    wait_for("kube-apiserver to serve", START, ready).unwrap_or_else(|error| panic!("{error:#}; its log: {}", read(&log)));
}

fn read(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}
