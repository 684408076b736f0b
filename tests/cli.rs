//! The program as a person or a unit file calls it: what it prints where, and its exit codes.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::os::unix::fs::symlink;
use std::process::{Command, Output, Stdio};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loden"));
    command.env_clear();
    command
}

fn run(words: &[&str]) -> Output {
    program().args(words).output().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn help_and_version_go_to_stdout_and_exit_0() {
    for words in [&["--help"][..], &["help"], &["agent", "--help"], &["status", "-h"], &["plan", "-help"], &["--version"], &["version"]] {
        let output = run(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", err(&output));
        assert!(!out(&output).is_empty() && err(&output).is_empty(), "{words:?}");
    }
    assert_eq!(out(&run(&["-version"])), concat!("loden ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_command_line_that_cannot_be_used_is_one_line_on_stderr_and_exits_2() {
    for words in [
        &[][..],
        &["bogus"],
        &["agent", "--bogus"],
        &["agent", "--healthz-port=x"],
        &["agent", "--ip-masq", "true"],
        &["status", "--iface=x"],
    ] {
        let output = run(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert_eq!((out(&output), err(&output).lines().count()), ("", 1), "{words:?}: {}", err(&output));
    }
}

#[test]
fn a_bad_variable_is_named_and_exits_2() {
    let output = program().arg("agent").env("FLANNELD_HEALTHZ_PORT", "x").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("FLANNELD_HEALTHZ_PORT"), "{}", err(&output));
}

#[test]
fn called_flanneld_it_takes_flannelds_flags_without_a_command() {
    let root = tempfile::tempdir().unwrap();
    let flanneld = root.path().join("flanneld");
    symlink(env!("CARGO_BIN_EXE_loden"), &flanneld).unwrap();
    let output = Command::new(&flanneld).args(["-etcd-prefix", "/x", "-help"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("Usage: flanneld"), "{}", out(&output));
    let output = Command::new(&flanneld).arg("-h").output().unwrap();
    assert!(output.status.code() == Some(0) && out(&output).contains("Usage: flanneld"), "{}{}", out(&output), err(&output));
    for word in ["-version", "--version", "-version=true"] {
        let output = Command::new(&flanneld).arg(word).output().unwrap();
        assert_eq!((output.status.code(), out(&output)), (Some(0), concat!("loden ", env!("CARGO_PKG_VERSION"), "\n")), "{word}");
    }
    assert_eq!(Command::new(&flanneld).arg("--bogus").output().unwrap().status.code(), Some(2));
}

#[test]
fn status_without_an_agent_says_where_it_looked_and_exits_1() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("subnet.env");
    let output = program().args(["status", "--json", "--subnet-file"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("subnet.sock") && out(&output).is_empty(), "{}", err(&output));
}

#[test]
fn a_reader_that_goes_away_is_no_crash() {
    let mut child = program().args(["agent", "--help"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.code().is_some(), "ended by a signal");
    assert!(!err(&output).contains("panicked"), "{}", err(&output));
}

/// The letters that a golden file's name carries: `-i_-k_X`, `-k_MY_OPTS`.
fn letters(name: &str) -> Vec<&str> {
    let (letters, key) = name.split_once("k_").map_or((name, None), |(letters, key)| (letters, Some(key)));
    let letters = letters.split('_').filter(|letter| letter.len() == 2);
    letters.chain(key.into_iter().flat_map(|key| ["-k", key])).collect()
}

#[test]
fn options_for_docker_are_those_of_flannels_script_byte_for_byte() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/docker-opts");
    let root = tempfile::tempdir().unwrap();
    let written = root.path().join("docker.env");
    let mut cases = 0;
    for case in std::fs::read_dir(&golden).unwrap() {
        let case = case.unwrap().path();
        let name = case.file_stem().unwrap().to_str().unwrap();
        if case.extension() != Some("out".as_ref()) {
            continue;
        }
        cases += 1;
        let env = if name.starts_with("ipmasq-true") { "ipmasq-true" } else { "ipmasq-false" };
        let output = program()
            .args(["docker-opts", "-f"])
            .arg(golden.join(format!("{env}.env")))
            .arg("-d")
            .arg(&written)
            .args(letters(name.strip_prefix(env).unwrap()))
            .output()
            .unwrap();
        assert_eq!((output.status.code(), err(&output)), (Some(0), ""), "{name}");
        assert_eq!(std::fs::read(&written).unwrap(), std::fs::read(&case).unwrap(), "{name}");
    }
    assert_eq!(cases, 16);
    // As getopts takes them.
    let output = program().args(["docker-opts", "-imf"]).arg(golden.join("ipmasq-true.env")).arg("-d").arg(&written).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(std::fs::read(&written).unwrap(), b"DOCKER_OPT_BIP=\"--bip=10.5.52.1/24\"\nDOCKER_OPT_MTU=\"--mtu=1450\"\n");
    let output = run(&["docker-opts", "-f", "/nowhere/subnet.env", "-d", "/nowhere/out"]);
    assert!(output.status.code() == Some(1) && err(&output).contains("/nowhere/subnet.env"), "{}", err(&output));
    assert_eq!(run(&["docker-opts", "-k", "A;B"]).status.code(), Some(2));
}
