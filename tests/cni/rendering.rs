//! What the plugin makes of a configuration is what flannel's own makes of it: `tests/golden/cni` is in that one's words.

use std::path::Path;

use anyhow::{Result, ensure};
use testkit::{CniCase, Rendered};

/// Where we refuse and flannel's plugin does not: pods would have addresses of a family without a route to the others'.
const STRICTER: [&str; 1] = ["env-half-a-family"];

#[test]
fn a_delegate_is_told_what_flannels_plugin_tells_it() -> Result<()> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cni");
    let cases = CniCase::all(&golden)?;
    ensure!(cases.len() > 35, "golden files are missing: {}", cases.len());
    let mut rendered = 0;
    for case in cases {
        let wanted = if STRICTER.contains(&case.name.as_str()) { Rendered::Refused } else { case.golden()? };
        let ours = case.render(Path::new(env!("CARGO_BIN_EXE_loden")))?;
        ensure!(ours == wanted, "{}: {ours:#?}, and flannel's plugin: {wanted:#?}", case.name);
        rendered += usize::from(wanted != Rendered::Refused);
    }
    ensure!(rendered > 20, "only {rendered} were rendered");
    Ok(())
}
