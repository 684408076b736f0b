//! The documents say what the program and the Makefile do.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

fn read(path: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The `--flag` that a line begins with, once `lead` is taken away.
fn flags<'a>(text: &'a str, lead: &str) -> BTreeSet<&'a str> {
    let of_line = |line: &'a str| {
        let flag = line.trim_start().strip_prefix(lead)?.strip_prefix("--")?;
        flag.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').next()
    };
    text.lines().filter_map(of_line).collect()
}

#[test]
fn every_flag_of_the_agent_is_in_the_table_and_the_table_has_no_other() -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_loden")).args(["agent", "--help"]).output()?;
    ensure!(output.status.success(), "loden agent --help: {}", output.status);
    let help = String::from_utf8(output.stdout)?;
    let page = read("docs/configuration.md")?;
    let (mut wanted, documented) = (flags(&help, ""), flags(&page, "| `"));
    wanted.remove("help");
    let (undocumented, unknown): (Vec<_>, Vec<_>) = (wanted.difference(&documented).collect(), documented.difference(&wanted).collect());
    ensure!(!wanted.is_empty() && undocumented.is_empty(), "not in docs/configuration.md: {undocumented:?}");
    ensure!(unknown.is_empty(), "in docs/configuration.md, but no flag of the agent: {unknown:?}");
    Ok(())
}

#[test]
fn every_subcommand_is_in_the_table() -> Result<()> {
    let page = read("docs/configuration.md")?;
    for name in ["agent", "status", "plan", "release", "cleanup", "docker-opts", "version"] {
        ensure!(page.contains(&format!("| `loden {name}` |")), "loden {name} is not in docs/configuration.md");
        let status = Command::new(env!("CARGO_BIN_EXE_loden")).args([name, "--help"]).output()?.status;
        ensure!(status.success(), "loden {name} --help: {status}");
    }
    Ok(())
}

#[test]
fn every_make_target_that_a_page_names_is_there() -> Result<()> {
    let makefile = read("Makefile")?;
    let targets: BTreeSet<&str> =
        makefile.lines().filter(|line| line.contains("## ")).filter_map(|line| Some(line.split_once(':')?.0)).collect();
    for page in ["README.md", "CONTRIBUTING.md", "docs/operations.md", "docs/testing.md", "docs/performance.md"] {
        let text = read(page)?;
        // `make TARGET` stands in backquotes or at the start of an indented line.
        let named = text.split("`make ").skip(1).chain(text.split("\n    make ").skip(1));
        for target in named.filter_map(|rest| rest.split(|c: char| !c.is_ascii_lowercase()).next()).filter(|name| !name.is_empty()) {
            ensure!(targets.contains(target), "{page} names make {target}, and the Makefile has no such target");
        }
    }
    Ok(())
}
