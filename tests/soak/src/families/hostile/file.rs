//! The subnet file, and what can stand in its place.

use anyhow::{Result, ensure};
use testkit::wait_for;
use testkit::world::{PATIENCE, SUBNET_FILE};

use super::Stage;
use crate::Report;

/// How many of them in a round: an agent whose file is touched again and again takes longer each time, so as not to spin.
const ROUND: usize = 2;

/// What is done to it, and, where the agent cannot put it right by itself, how it is undone.
const HARMS: [(&str, &str, Option<&str>); 7] = [
    ("subnet file: random bytes", "head -c 5000 /dev/urandom >$f", None),
    ("subnet file: 50 MB", "head -c 50000000 /dev/zero >$f", None),
    ("subnet file: a symlink", "echo junk >/run/elsewhere; ln -sf /run/elsewhere $f", None),
    ("subnet file: a symlink to itself", "rm -f $f; ln -s $f $f", None),
    ("subnet file: a fifo", "rm -f $f; mkfifo $f", None),
    ("subnet file: unreadable", "chmod 0 $f; echo junk >$f", None),
    ("subnet file: a directory", "rm -f $f; mkdir -p $f/x", Some("rm -r $f")),
];

pub(super) fn endure(stage: &mut Stage, report: &mut Report, round: u32) -> Result<()> {
    let good = stage.one.host.read(SUBNET_FILE)?;
    let first = usize::try_from(round)? * ROUND;
    for (kind, harm, undo) in HARMS.into_iter().cycle().skip(first).take(ROUND) {
        stage.endure(report, kind, |stage| {
            let sh = |script: &str| stage.one.host.run(&["sh", "-c", &format!("f={SUBNET_FILE}; {script}")]);
            sh(harm)?;
            if let Some(undo) = undo {
                stage.one.wait_unready_for(&[SUBNET_FILE])?;
                sh(undo)?;
            }
            wait_for("the subnet file to be as it was", PATIENCE * 2, || {
                let kind = sh("stat -c '%F %a' $f")?;
                ensure!(kind.trim() == "regular file 644", "it is a {kind}");
                ensure!(stage.one.host.read(SUBNET_FILE)? == good, "it says something else");
                Ok(())
            })
        })?;
    }
    Ok(())
}
