//! The CNI plugin beside flannel's own, `github.com/containernetworking/plugins` v0.9.1.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use testkit::trial::{Case, Report};
use testkit::{CniCase, cases};

use crate::Agents;

pub(super) const CASES: &[Case<Agents>] = cases![what_flannels_plugin_tells_its_delegate_is_what_the_golden_files_have];

/// Asks for the golden files to be written instead of compared.
const WRITE: &str = "LODEN_WRITE_GOLDEN";

fn flannels() -> Result<PathBuf> {
    let program =
        std::env::var_os("FLANNEL_CNI_BIN").context("FLANNEL_CNI_BIN is not set: tests/support/peers flannel-cni says where it is")?;
    Ok(program.into())
}

fn what_flannels_plugin_tells_its_delegate_is_what_the_golden_files_have(_: &Agents, report: &mut Report) -> Result<()> {
    let plugin = flannels()?;
    let cases = CniCase::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/cni"))?;
    let mut different = Vec::new();
    for case in &cases {
        let real = case.render(&plugin).with_context(|| case.name.clone())?;
        if std::env::var_os(WRITE).is_some() {
            case.write_golden(&real)?;
        }
        if case.golden()? != real {
            different.push(case.name.as_str());
        }
    }
    report.gate(
        "the golden files are what flannel's plugin writes",
        different.is_empty(),
        format!("{} cases; {different:?} differ", cases.len()),
    );
    Ok(())
}
