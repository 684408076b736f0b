//! The sandbox leaves nothing behind, however it ends. These tests run one sandbox within another.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::wait_for;

const SOON: Duration = Duration::from_secs(5);

fn sandbox(script: &str) -> Command {
    // Whoever runs the tests may ignore SIGHUP (nohup(1)), and what is ignored stays so in a child.
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", concat!(env!("CARGO_MANIFEST_DIR"), "/sandbox"), "sh", "-c", script]);
    command
}

/// Starts the script and waits for its first line.
fn started(script: &str) -> Result<(Child, String)> {
    let mut child = sandbox(script).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut line)?;
    Ok((child, line.trim().to_owned()))
}

/// The processes whose command line contains the text, as this side sees them.
fn processes_with(text: &str) -> Result<usize> {
    let lines = std::fs::read_dir("/proc")?.filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
    Ok(lines.filter(|line| String::from_utf8_lossy(line).contains(text)).count())
}

#[test]
fn links_files_and_sysctls_stay_within_and_the_exit_status_comes_out() -> Result<()> {
    let before = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?;
    let script = "set -e
        ip link add br9 type bridge
        mkdir /run/flannel; touch /run/flannel/subnet.env
        echo $((1 - $(cat /proc/sys/net/ipv4/ip_forward))) >/proc/sys/net/ipv4/ip_forward
        exit 7";
    let status = sandbox(script).status()?;
    ensure!(status.code() == Some(7), "{status}");
    ensure!(!std::path::Path::new("/sys/class/net/br9").exists() && !std::path::Path::new("/run/flannel").exists());
    ensure!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")? == before);
    Ok(())
}

#[test]
fn killing_the_wrapper_takes_all_within_down() -> Result<()> {
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGHUP] {
        let (mut child, line) = started("sleep 1234.5 & setsid sleep 1234.5 & echo up; wait")?;
        ensure!(line == "up", "the sandbox said {line:?}");
        wait_for("both to sleep", SOON, || {
            let there = processes_with("sleep\u{0}1234.5")?;
            ensure!(there == 2, "{there} do");
            Ok(())
        })?;
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        child.wait()?;
        wait_for("all within to be gone", SOON, || {
            let left = processes_with("sleep\u{0}1234.5")?;
            ensure!(left == 0, "{left} are left after {signal}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn outside_the_sandbox_a_lab_is_refused() -> Result<()> {
    let me = std::env::current_exe()?;
    let output = Command::new(me).args(["--ignored", "--exact", "a_lab_is_made"]).env_remove("LODEN_SANDBOX").output()?;
    ensure!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(said.contains("make test"), "{said}");
    Ok(())
}

#[test]
#[ignore = "outside_the_sandbox_a_lab_is_refused runs it"]
fn a_lab_is_made() -> Result<()> {
    testkit::Lab::new().map(drop)
}
