//! `loden install-cni` and `loden cleanup` as a person or a container calls them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::wait_for;

const PATIENCE: Duration = Duration::from_secs(20);
const LIST: &str = r#"{"name":"cbr0","cniVersion":"0.3.1","plugins":[{"type":"flannel"},{"type":"portmap"}]}"#;
const ENV: &str = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.52.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

fn loden(root: &std::path::Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loden"));
    command.args(words).current_dir(root);
    command.args(["--cni-conf-dir=net.d", "--cni-bin-dir=bin", "--subnet-file=subnet.env"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn the_init_container_installs_the_plugin_alone_and_the_copy_is_one() -> Result<()> {
    let root = tempfile::tempdir()?;
    let output = loden(root.path(), &["install-cni", "--plugin-only"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let plugin = root.path().join("bin/flannel");
    ensure!(fs::metadata(&plugin)?.permissions().mode() & 0o777 == 0o755 && !root.path().join("net.d").exists());
    let output = Command::new(&plugin).env_clear().env("CNI_COMMAND", "VERSION").stdin(Stdio::null()).output()?;
    ensure!(String::from_utf8_lossy(&output.stdout).contains(r#""supportedVersions""#), "{output:?}");
    Ok(())
}

#[test]
fn watching_it_installs_with_the_subnet_and_puts_back_and_cleanup_removes() -> Result<()> {
    let root = tempfile::tempdir()?;
    let at = |name: &str| root.path().join(name);
    fs::write(at("conf.json"), LIST)?;
    let mut watching = loden(root.path(), &["install-cni", "--watch", "--cni-conf=conf.json"]).spawn()?;
    let (list, plugin) = (at("net.d/10-flannel.conflist"), at("bin/flannel"));
    let becomes = |what: &str, right: &dyn Fn() -> bool| {
        wait_for(what, PATIENCE, || {
            ensure!(right(), "it is not so");
            Ok(())
        })
    };
    let whole = || fs::read_to_string(&list).is_ok_and(|text| text == LIST);
    becomes("the plugin to be there", &|| plugin.exists())?;
    ensure!(!list.exists(), "installed before there is a subnet");
    fs::write(at("subnet.env"), ENV)?;
    becomes("the configuration to be there", &whole)?;
    fs::remove_file(&list)?;
    becomes("the configuration to be there again", &whole)?;
    fs::write(at("bin/other"), "")?;
    fs::rename(at("bin/other"), &plugin)?;
    becomes("the plugin to be there again", &|| fs::metadata(&plugin).is_ok_and(|metadata| metadata.len() > 0))?;
    Command::new("kill").arg(watching.id().to_string()).status()?;
    ensure!(watching.wait()?.success(), "told to end");
    let output = loden(root.path(), &["cleanup", "--etcd-endpoints=http://127.0.0.1:1", "--state-file=state"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("rm bin/flannel"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(!plugin.exists() && !list.exists());
    Ok(())
}
