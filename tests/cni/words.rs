//! What the plugin answers, command by command and version by version, before a delegate that only writes down what it is told.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::{CniBin, CniCall};

const ENV: &str = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.52.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A folder with the plugin, a subnet file, and a delegate `bridge`.
struct Bench {
    bin: CniBin,
}

impl Bench {
    fn new() -> Result<Self> {
        let bench = Self { bin: CniBin::with(env!("CARGO_BIN_EXE_loden"))? };
        fs::write(bench.at("subnet.env"), ENV)?;
        bench.delegate("echo '{}'")?;
        Ok(bench)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.bin.path().join(name)
    }

    /// A delegate that writes down what it is told, and ends so.
    fn delegate(&self, end: &str) -> Result<()> {
        self.bin.script("bridge", &format!("echo $CNI_COMMAND >>{0}\ncat >{0}.conf\n{end}\n", self.at("told").display()))
    }

    /// The commands that the delegate was given since this was asked last.
    fn told(&self) -> Vec<String> {
        let told = fs::read_to_string(self.at("told")).unwrap_or_default();
        let _ = fs::remove_file(self.at("told"));
        told.lines().map(str::to_owned).collect()
    }

    fn conf(&self, version: &str) -> Value {
        json!({ "name": "cbr0", "type": "flannel", "cniVersion": version, "subnetFile": self.at("subnet.env"), "dataDir": self.at("data") })
    }

    /// The exit code, and what was printed.
    fn call(&self, command: &'static str, conf: &str) -> Result<(i32, Value)> {
        let output = CniCall::new(command, "c1", "/run/netns/x", self.bin.path()).run(self.bin.plugin(), conf)?;
        let said = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        Ok((output.status.code().context("killed")?, said))
    }

    /// The code of the error that this is answered with.
    fn refused(&self, command: &'static str, conf: &Value) -> Result<(u64, String)> {
        let (exit, said) = self.call(command, &conf.to_string())?;
        ensure!(exit != 0, "{command} was done: {said}");
        Ok((said.get("code").and_then(Value::as_u64).with_context(|| format!("no code: {said}"))?, said.to_string()))
    }

    fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(self.at("data")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

#[test]
fn each_version_has_the_commands_that_its_specification_has() -> Result<()> {
    let bench = Bench::new()?;
    for (place, version) in VERSIONS.into_iter().enumerate() {
        let mut conf = bench.conf(version);
        conf["cni.dev/valid-attachments"] = json!([{ "containerID": "c1", "ifname": "eth0" }]);
        conf["prevResult"] = json!({ "cniVersion": version });
        for (command, since) in [("ADD", 0), ("CHECK", 4), ("STATUS", 6), ("GC", 6), ("DEL", 0)] {
            if place < since {
                let (code, said) = bench.refused(command, &conf)?;
                ensure!(code == 1 && said.contains(version) && bench.told().is_empty(), "{command} of {version}: {said}");
                continue;
            }
            let (exit, said) = bench.call(command, &conf.to_string())?;
            ensure!(exit == 0 && bench.told() == [command], "{command} of {version}: {said}");
            let told: Value = serde_json::from_str(&fs::read_to_string(bench.at("told.conf"))?)?;
            ensure!(told.get("cniVersion").and_then(Value::as_str) == Some(version), "{told}");
            ensure!(told.get("prevResult").is_some() == (command == "CHECK"), "{command}: {told}");
            ensure!(told.get("cni.dev/valid-attachments").is_some() == (command == "GC"), "{command}: {told}");
        }
        let (_, said) = bench.call("VERSION", &json!({ "cniVersion": version }).to_string())?;
        ensure!(said == json!({ "cniVersion": version, "supportedVersions": VERSIONS }), "{said}");
    }
    let (_, said) = bench.call("VERSION", "")?;
    ensure!(said["cniVersion"] == "1.1.0", "{said}");
    for unknown in ["2.0.0", "0.3.2", "x"] {
        ensure!(bench.refused("ADD", &bench.conf(unknown))?.0 == 1, "{unknown}");
    }
    Ok(())
}

#[test]
fn without_a_whole_subnet_file_a_runtime_is_told_to_wait_and_what_for() -> Result<()> {
    let bench = Bench::new()?;
    let conf = bench.conf("1.1.0");
    for half in [None, Some(""), Some(&ENV[..70]), Some("FLANNEL_IPV6_NETWORK=fd05::/48\n")] {
        match half {
            None => fs::remove_file(bench.at("subnet.env"))?,
            Some(text) => fs::write(bench.at("subnet.env"), text)?,
        }
        for (command, wanted) in [("ADD", 11), ("STATUS", 50)] {
            let (code, said) = bench.refused(command, &conf)?;
            ensure!(code == wanted && said.contains("subnet.env") && said.contains("loden status"), "{command}: {said}");
        }
        ensure!(bench.kept().is_empty() && bench.told().is_empty());
    }
    Ok(())
}

#[test]
fn what_a_runtime_gets_wrong_is_answered_with_the_code_for_it() -> Result<()> {
    let bench = Bench::new()?;
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(100_000_000));
    for (text, wanted) in
        [("", 6), ("{", 6), (&long, 6), ("[]", 7), (r#"{"cniVersion":"0.4.0"}"#, 7), (r#"{"name":"n","delegate":{"ipam":{}}}"#, 7)]
    {
        for command in ["ADD", "DEL"] {
            let (exit, said) = bench.call(command, text)?;
            ensure!(exit != 0 && said["code"] == wanted, "{command} {:.40}: {said}", text);
            ensure!(said.to_string().len() < 400, "a whole value is quoted");
        }
    }
    let mut conf = bench.conf("0.4.0");
    let output = CniCall::new("ADD", "../../../tmp/x", "/run/netns/x", bench.bin.path()).run(bench.bin.plugin(), &conf.to_string())?;
    ensure!(String::from_utf8_lossy(&output.stdout).contains(r#""code":4"#) && bench.kept().is_empty());
    conf["delegate"] = json!({ "type": "nowhere" });
    let (code, said) = bench.refused("ADD", &conf)?;
    ensure!(code == 100 && said.contains("nowhere") && said.contains("install the standard CNI plugins"), "{said}");
    ensure!(bench.kept().is_empty() && bench.refused("CHECK", &bench.conf("1.0.0"))?.0 == 3);
    Ok(())
}

#[test]
fn what_is_kept_goes_when_the_delegate_has_taken_it_down_and_not_before() -> Result<()> {
    let bench = Bench::new()?;
    let conf = bench.conf("0.4.0").to_string();
    bench.call("ADD", &conf)?;
    let kept = bench.at("data/c1");
    ensure!(fs::metadata(&kept)?.permissions().mode() & 0o777 == 0o600);
    bench.delegate(r#"echo '{"code":42,"msg":"no"}'; exit 3"#)?;
    let (exit, said) = bench.call("DEL", &conf)?;
    ensure!(exit == 3 && said["code"] == 42 && kept.exists(), "{exit} {said}");
    bench.delegate("kill -9 $$")?;
    ensure!(bench.call("DEL", &conf)?.1["code"] == 100 && kept.exists());
    // With the words of its ADD, whatever the configuration says by now, and also when there is no subnet any more.
    bench.delegate("")?;
    bench.told();
    fs::remove_file(bench.at("subnet.env"))?;
    let mut other = bench.conf("0.4.0");
    other["delegate"] = json!({ "type": "ptp" });
    ensure!(bench.call("DEL", &other.to_string())? == (0, Value::Null) && bench.told() == ["DEL"] && bench.kept().is_empty());
    Ok(())
}

#[test]
fn a_damaged_file_is_rendered_again_for_del() -> Result<()> {
    let bench = Bench::new()?;
    let conf = bench.conf("0.4.0");
    for damage in ["", "{", "[]", r#"{"type":7}"#] {
        bench.call("ADD", &conf.to_string())?;
        fs::write(bench.at("data/c1"), damage)?;
        bench.told();
        let subnet = fs::read(bench.at("subnet.env"))?;
        fs::remove_file(bench.at("subnet.env"))?;
        ensure!(bench.refused("DEL", &conf)?.0 == 11 && bench.kept() == ["c1"], "{damage}");
        fs::write(bench.at("subnet.env"), subnet)?;
        ensure!(bench.call("DEL", &conf.to_string())?.0 == 0 && bench.told() == ["DEL"] && bench.kept().is_empty(), "{damage}");
    }
    Ok(())
}

#[test]
fn gc_forgets_what_is_not_attached_of_its_own_network_alone() -> Result<()> {
    let bench = Bench::new()?;
    bench.call("ADD", &bench.conf("1.1.0").to_string())?;
    for (container, text) in
        [("stale", r#"{"name":"cbr0","type":"bridge"}"#), ("others", r#"{"name":"cbr1","type":"bridge"}"#), ("damaged", "")]
    {
        fs::write(bench.at("data").join(container), text)?;
    }
    ensure!(bench.refused("GC", &bench.conf("1.1.0"))?.0 == 7, "without a list everything would be stale");
    let mut conf = bench.conf("1.1.0");
    conf["cni.dev/valid-attachments"] = json!([{ "containerID": "c1", "ifname": "eth0" }]);
    bench.delegate("exit 1")?;
    bench.call("GC", &conf.to_string())?;
    ensure!(bench.kept().len() == 4);
    bench.delegate("")?;
    ensure!(bench.call("GC", &conf.to_string())?.0 == 0);
    let mut kept = bench.kept();
    kept.sort();
    ensure!(kept == ["c1", "damaged", "others"], "{kept:?}");
    Ok(())
}

#[test]
fn where_nothing_can_be_kept_no_delegate_is_run() -> Result<()> {
    let bench = Bench::new()?;
    let conf = bench.conf("0.4.0");
    fs::write(bench.at("data"), "no folder")?;
    let (code, said) = bench.refused("ADD", &conf)?;
    ensure!(code == 5 && said.contains("data") && bench.told().is_empty(), "{said}");
    fs::remove_file(bench.at("data"))?;
    // One that cannot be executed has made nothing.
    fs::set_permissions(bench.at("bridge"), Permissions::from_mode(0o644))?;
    ensure!(bench.refused("ADD", &conf)?.0 == 100 && bench.kept().is_empty());
    Ok(())
}
