//! The same hosts, left to whoever wants to try something.

use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::fs::symlink;
use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::cast::{Cast, VTEP};
use crate::tale::Tale;

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

/// Brings the hosts up, says what can be done with them, and waits: for Enter where there is a terminal, else for SIGINT
/// or SIGTERM.
pub(crate) fn open() -> Result<()> {
    // Blocked before there is any thread, so that none is killed by them.
    let mut ends = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| ends.add(signal));
    ends.thread_block()?;

    let tale = Tale::new();
    tale.title("loden: a playground", "Three hosts, two containers each, as namespaces. This machine's own network is out of reach.");
    let mut cast = Cast::new()?;
    if let Err(error) = cast.enter(&HOSTS) {
        tale.failed(&error, &cast.logs());
        return Err(error);
    }
    put_on_path(&cast)?;
    show(&cast, &tale)?;
    if io::stdin().is_terminal() {
        println!("\nEnter or Ctrl-C takes all of it down.");
        thread::spawn(|| {
            let _ = io::stdin().read_line(&mut String::new());
            kill(Pid::this(), Signal::SIGTERM)
        });
    } else {
        println!("\n`kill {}` takes all of it down.", wrapper()?);
    }
    ends.wait()?;
    println!("Taking it down.");
    Ok(())
}

fn show(cast: &Cast, tale: &Tale) -> Result<()> {
    let mut rows = Vec::new();
    for member in &cast.members {
        rows.push([member.host.name().to_owned(), "host".to_owned(), member.host.address().to_string(), member.subnet()?]);
        let containers = member.containers.iter();
        rows.extend(containers.map(|c| [c.name().to_owned(), "container".to_owned(), c.address().to_string(), String::new()]));
    }
    println!();
    tale.table(["name", "", "address", "subnet"], &rows);
    let enter = enter_command()?;
    let far = cast.containers().last().map_or_else(String::new, |container| container.address().to_string());
    let peer = cast.members.last().map_or_else(|| Ok(String::new()), crate::cast::Member::subnet)?;
    println!("\nFrom another terminal, enter one of them, or run a command there:");
    println!("    {enter} h1");
    println!("    {enter} h1a ping {far}");
    println!("\nThings to try:");
    let tries = [
        ("h1 loden status", "what the agent holds and thinks"),
        (&format!("h1 ip link del {VTEP}"), "comes back, with all that was on it"),
        (&format!("h1 ip route del {peer}"), "comes back before you can look"),
        ("h1 ip monitor", "see it happen, while you do the above elsewhere"),
        ("h1 loden plan", "what would be changed: nothing"),
    ];
    for (command, what) in tries {
        println!("    {enter} {command:<32} # {what}");
    }
    println!("    {enter} switch etcdctl --endpoints {} get --prefix /coreos.com/network", cast.etcd.endpoint());
    Ok(())
}

/// Whoever enters finds the agent's program by its name.
fn put_on_path(cast: &Cast) -> Result<()> {
    let bin = std::env::temp_dir().join("bin");
    fs::create_dir_all(&bin)?;
    let program = cast.members.first().context("nobody is on stage")?.agent.options().program();
    symlink(program, bin.join("loden")).with_context(|| format!("cannot link {} into {}", program.display(), bin.display()))
}

/// The sandbox's own way in.
fn enter_command() -> Result<String> {
    Ok(format!("tests/support/sandbox --enter {}", wrapper()?))
}

/// The process id that the sandbox's wrapper has outside.
fn wrapper() -> Result<String> {
    std::env::var("LODEN_SANDBOX_PID").context("LODEN_SANDBOX_PID is not set: run this by `make playground`")
}
