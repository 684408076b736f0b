//! The documents say what the program and the Makefile do.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

fn read(path: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Asks for the generated parts of the pages to be written instead of compared: what `make docs` sets.
const WRITE: &str = "LODEN_WRITE_DOCS";

#[test]
fn what_is_generated_of_the_configuration_page_is_as_the_program_has_it() -> Result<()> {
    let path = "docs/configuration.md";
    let page = read(path)?;
    let mut wanted = page.clone();
    for (part, content) in [("flags", loden::cli::flag_tables()), ("fields", loden::fields::field_table())] {
        let mark = format!("<!-- {part}: written by `make docs` -->\n");
        let (before, rest) = wanted.split_once(&mark).with_context(|| format!("{path} has no part {part}"))?;
        let (_, after) = rest.split_once("<!-- end -->").with_context(|| format!("the part {part} of {path} has no end"))?;
        wanted = format!("{before}{mark}\n{}\n\n<!-- end -->{after}", content.trim_end());
    }
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), wanted)?;
        return Ok(());
    }
    let differs = page.lines().zip(wanted.lines()).find(|(have, want)| have != want);
    ensure!(page == wanted, "{path} is not as the program has it: run `make docs`. The first line that differs: {differs:#?}");
    Ok(())
}

#[test]
fn every_subcommand_is_in_the_table() -> Result<()> {
    let page = read("docs/configuration.md")?;
    for name in ["agent", "status", "plan", "release", "cleanup", "docker-opts", "install-cni", "cni", "version"] {
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
    for page in ["README.md", "CONTRIBUTING.md", "docs/kubernetes.md", "docs/operations.md", "docs/testing.md", "docs/performance.md"] {
        let text = read(page)?;
        // `make TARGET` stands in backquotes or at the start of an indented line.
        let named = text.split("`make ").skip(1).chain(text.split("\n    make ").skip(1));
        for target in
            named.filter_map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '-').next()).filter(|name| !name.is_empty())
        {
            ensure!(targets.contains(target), "{page} names make {target}, and the Makefile has no such target");
        }
    }
    Ok(())
}

/// What is in the YAML files below a folder.
fn manifests(folder: &Path, texts: &mut Vec<(String, String)>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            manifests(&path, texts)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            texts.push((path.display().to_string(), std::fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

#[test]
fn every_flag_and_version_in_a_manifest_is_the_program_s() -> Result<()> {
    let mut texts = Vec::new();
    manifests(&Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests"), &mut texts)?;
    let help = |name| Ok::<_, anyhow::Error>(Command::new(env!("CARGO_BIN_EXE_loden")).args([name, "--help"]).output()?.stdout);
    let known = String::from_utf8([help("agent")?, help("cleanup")?].concat())?;
    let (mut flags, mut versions) = (0, 0);
    for (path, text) in texts {
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            // In a list: `- --flag=value` or `[--flag, --flag=value]`.
            let list = line.strip_prefix("- ").or_else(|| line.strip_prefix("args: ["));
            for flag in list.into_iter().flat_map(|list| list.split(", ")).filter(|word| word.starts_with("--")) {
                let name = flag.split(['=', ']']).next().unwrap_or_default();
                ensure!(
                    known.lines().any(|line| line.split_whitespace().any(|word| word.split(['=', '[']).next() == Some(name))),
                    "{path}: {flag}"
                );
                flags += 1;
            }
            let version = ["newTag: v", "appVersion: v", "version: "].iter().find_map(|key| line.strip_prefix(key));
            if let Some(version) = version {
                ensure!(version == env!("CARGO_PKG_VERSION"), "{path}: {line}");
                versions += 1;
            }
        }
    }
    ensure!(flags > 10 && versions >= 3, "{flags} flags, {versions} versions");
    Ok(())
}

/// The names of all functions in the sources below a folder.
fn functions(folder: &Path, names: &mut BTreeSet<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            functions(&path, names)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            let name = |line: &str| line.split("fn ").nth(1)?.split(['(', '<']).next().map(str::to_owned);
            names.extend(text.lines().filter_map(name));
        }
    }
    Ok(())
}

#[test]
fn every_line_of_the_field_notes_names_tests_that_are_there_or_what_it_waits_for() -> Result<()> {
    let mut names = BTreeSet::new();
    for folder in ["src", "overlay", "lease", "tests"] {
        functions(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut names)?;
    }
    let page = read("docs/field-notes.md")?;
    for line in (1..=25).map(|number| number.to_string()).chain((1..=25).map(|number| format!("S{number}"))) {
        let row = page.lines().find_map(|row| row.strip_prefix(&format!("| {line} | ")));
        let tests = row.and_then(|row| row.rsplit_once(" | ")).with_context(|| format!("line {line} has no row"))?.1;
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        ensure!(!named.is_empty() || tests.starts_with("later: "), "line {line} names no test, nor what it waits for");
        let missing: Vec<_> = named.into_iter().filter(|name| !names.contains(*name)).collect();
        ensure!(missing.is_empty(), "line {line} names tests that are not there: {missing:?}");
    }
    Ok(())
}

#[test]
fn every_line_about_compatibility_gives_a_verdict_and_names_tests_that_are_there() -> Result<()> {
    let mut names = BTreeSet::new();
    for folder in ["src", "overlay", "lease", "tests"] {
        functions(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut names)?;
    }
    let page = read("docs/compatibility.md")?;
    let rows = page.lines().filter(|row| row.starts_with("| ") && !row.ends_with("| Tests |") && !row.ends_with("| Test |"));
    let mut count = 0;
    for row in rows {
        let (fact, tests) = row.trim_end_matches(" |").rsplit_once(" | ").with_context(|| format!("a row of one column: {row}"))?;
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        let missing: Vec<_> = named.iter().filter(|name| !names.contains(**name)).collect();
        ensure!(!named.is_empty() && missing.is_empty(), "names tests that are not there {missing:?}: {row}");
        let verdict = ["same", "better", "different"].iter().any(|word| fact.contains(&format!(" | {word}")));
        ensure!(verdict || fact.starts_with("| S"), "neither same, better nor different: {row}");
        count += 1;
    }
    ensure!(count > 40, "{count} rows");
    Ok(())
}
