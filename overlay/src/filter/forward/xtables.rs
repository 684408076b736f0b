//! Runs iptables-legacy's programs: no shell, fixed arguments, a deadline.
//!
//! They are the one way to the rules of the old kernel interface that does not put us in their lock's place. For what iptables holds in
//! nf_tables no program is run.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use lease::Family;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::super::family::facts;

/// How long a program may take. It may have to wait for another's lock.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long it is to wait for the lock itself (seconds).
const LOCK: &str = "5";

/// What it may print (bytes): some 100 000 rules.
const MOST: u64 = 16 * 1024 * 1024;

/// Where such programs are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program could not be run, or said no.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// There is none.
    #[error("{names} is needed for rules that iptables-legacy holds, and is not there: install iptables")]
    Missing { names: String },
    /// It failed.
    #[error("{program}: {reason}")]
    Failed { program: String, reason: String },
}

/// The tables that iptables-legacy has in this network; none where the kernel has no such thing.
pub(super) fn tables(family: Family) -> io::Result<Vec<String>> {
    match std::fs::read_to_string(format!("/proc/thread-self/net/{}", facts(family).legacy_tables)) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// `iptables-legacy-save -t TABLE`.
pub(super) async fn save(family: Family, table: &str) -> Result<String, ToolError> {
    run_legacy(family, "save", &["-t", table], "").await
}

/// `iptables-legacy-restore --noflush`, one transaction for a table.
pub(super) async fn restore(family: Family, text: &str) -> Result<(), ToolError> {
    run_legacy(family, "restore", &["-w", LOCK, "--noflush"], text).await.map(drop)
}

/// Runs the program by its full name, or by its short one where that is of the legacy kind.
async fn run_legacy(family: Family, what: &str, args: &[&str], input: &str) -> Result<String, ToolError> {
    let base = facts(family).xtables;
    let (long, short) = (format!("{base}-legacy-{what}"), format!("{base}-{what}"));
    match run(&long, args, input).await {
        Err(ToolError::Missing { .. }) => {}
        done => return done,
    }
    match run(&short, &["--version"], "").await {
        // Since 1.8 it says of which kind it is; before there was but one.
        Ok(version) if !version.contains("nf_tables") => run(&short, args, input).await,
        _ => Err(ToolError::Missing { names: long }),
    }
}

async fn run(program: &str, args: &[&str], input: &str) -> Result<String, ToolError> {
    let failed = |reason: String| ToolError::Failed { program: program.to_owned(), reason };
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", PATH).env("LC_ALL", "C").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    tracing::debug!(program, ?args, input, "run");
    let ran = async {
        let mut child = command.spawn()?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let give = async {
            if let Some(mut stdin) = stdin {
                // One that does not read its input says why in other ways.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let (mut out, mut complaint) = (Vec::new(), Vec::new());
        let hear = async {
            if let Some(stdout) = stdout {
                stdout.take(MOST).read_to_end(&mut out).await?;
            }
            Ok::<_, io::Error>(())
        };
        let hear_complaint = async {
            if let Some(stderr) = stderr {
                stderr.take(MOST).read_to_end(&mut complaint).await?;
            }
            Ok::<_, io::Error>(())
        };
        let ((), heard, complained) = tokio::join!(give, hear, hear_complaint);
        heard.and(complained)?;
        Ok::<_, io::Error>((child.wait().await?, out, complaint))
    };
    match tokio::time::timeout(DEADLINE, ran).await {
        Err(_) => Err(failed(format!("no end after {} s", DEADLINE.as_secs()))),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Err(ToolError::Missing { names: program.to_owned() }),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok((status, out, _))) if status.success() => Ok(String::from_utf8_lossy(&out).into_owned()),
        Ok(Ok((status, _, complaint))) => {
            let said = String::from_utf8_lossy(&complaint);
            Err(failed(format!("{status}: {}", said.trim().lines().last().unwrap_or_default())))
        }
    }
}
