//! The subnet file, and what can stand in its place.

use anyhow::{Result, ensure};
use testkit::wait_for;
use testkit::world::{PATIENCE, SUBNET_FILE};

use super::Stage;
use crate::Report;

/// What is done to it, and, where the agent cannot put it right by itself, how it is undone.
const HARMS: [(&str, &str, Option<&str>); 7] = [
    ("subnet file: random bytes", "head -c 5000 /dev/urandom >$f", None),
    ("subnet file: 50 MB", "head -c 50000000 /dev/zero >$f", None),
    ("subnet file: a symlink", "echo junk >/run/elsewhere; ln -sf /run/elsewhere $f", None),
    ("subnet file: a symlink to itself", "ln -sf $f $f", None),
    ("subnet file: a fifo", "rm -f $f; mkfifo $f", None),
    ("subnet file: unreadable", "chmod 0 $f; echo junk >$f", None),
    ("subnet file: a directory", "rm -f $f; mkdir -p $f/x", Some("rm -r $f")),
];

pub(super) fn endure(stage: &mut Stage, report: &mut Report) -> Result<()> {
    let good = stage.one.host.read(SUBNET_FILE)?;
    for (kind, harm, undo) in HARMS {
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
