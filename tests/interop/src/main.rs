//! `make interop` and `make docker-test`: all cases beside a real peer, what came of them, and an exit code of 0 only when all
//! gates hold.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use interop::{DOCKER, FLANNELD};
use testkit::trial;

const USAGE: &str = "usage: interop flanneld|docker [FAMILY or a part of a case's name]";

fn main() -> Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let families = match args.next().context(USAGE)?.as_str() {
        "flanneld" => FLANNELD,
        "docker" => DOCKER,
        _ => bail!(USAGE),
    };
    if std::env::var_os("LODEN_LOGS").is_none() {
        testkit::quiet();
    }
    trial::run(families, &args.next().unwrap_or_default())
}
