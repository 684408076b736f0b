//! The CNI plugin beside flannel's own, `github.com/containernetworking/plugins` v0.9.1.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::trial::{Case, Report};
use testkit::world::write;
use testkit::{CniBin, CniCall, CniCase, Lab, Namespace, cases};

use crate::Agents;

pub(super) const CASES: &[Case<Agents>] = cases![
    what_flannels_plugin_tells_its_delegate_is_what_the_golden_files_have,
    each_plugin_takes_down_the_pod_that_the_other_has_made,
    a_kept_configuration_that_is_damaged_does_not_keep_a_pod_from_its_end,
    an_add_costs_less_beyond_its_delegate_than_with_flannels_plugin,
];

/// Asks for the golden files to be written instead of compared.
const WRITE: &str = "LODEN_WRITE_GOLDEN";
const ENV: &str = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.52.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
const CONF: &str = r#"{"name":"cbr0","cniVersion":"0.3.1","type":"flannel","delegate":{"hairpinMode":true,"isDefaultGateway":true}}"#;
/// Where flannel keeps what a delegate was told.
const DATA: &str = "/var/lib/cni/flannel";
/// So many calls are timed of each.
const CALLS: usize = 40;

/// flannel's plugin, and ours.
fn plugins() -> Result<[(&'static str, PathBuf); 2]> {
    let from = |name: &str| -> Result<OsString> {
        std::env::var_os(name).with_context(|| format!("{name} is not set: run this by `make interop`"))
    };
    Ok([("flannel", from("FLANNEL_CNI_BIN")?.into()), ("loden", from("LODEN_BIN")?.into())])
}

fn what_flannels_plugin_tells_its_delegate_is_what_the_golden_files_have(_: &Agents, report: &mut Report) -> Result<()> {
    let [(_, plugin), _] = plugins()?;
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
    let seen = format!("{} cases; {different:?} differ", cases.len());
    report.gate("the golden files are what flannel's plugin writes", different.is_empty(), seen);
    Ok(())
}

fn each_plugin_takes_down_the_pod_that_the_other_has_made(_: &Agents, report: &mut Report) -> Result<()> {
    let [one, other] = plugins()?;
    for [(maker, adds), (taker, dels)] in [[one.clone(), other.clone()], [other, one]] {
        let lab = Lab::new()?;
        let host = lab.host("h1")?;
        write(&host, "/run/flannel/subnet.env", ENV)?;
        let pod = Namespace::new("p1", "")?;
        for (command, plugin) in [("ADD", &adds), ("DEL", &dels)] {
            let bin = CniBin::standard(plugin)?;
            let call = CniCall::new(command, "c1", &format!("/proc/{}/ns/net", pod.pid()), bin.path());
            let output = call.run(host.command(bin.path().join("flannel")), CONF)?;
            ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stdout));
        }
        let left = host.run(&[
            "sh",
            "-c",
            &format!("ls {DATA}; grep -l c1 /var/lib/cni/networks/cbr0/10.* || true; ls /sys/class/net | grep veth || true"),
        ])?;
        report.gate(format!("what {maker} has made is gone after {taker}'s DEL"), left.trim().is_empty(), format!("left: {left:?}"));
    }
    Ok(())
}

fn a_kept_configuration_that_is_damaged_does_not_keep_a_pod_from_its_end(_: &Agents, report: &mut Report) -> Result<()> {
    let mut said = Vec::new();
    for (_, plugin) in plugins()? {
        let lab = Lab::new()?;
        let host = lab.host("h1")?;
        write(&host, "/run/flannel/subnet.env", ENV)?;
        let pod = Namespace::new("p1", "")?;
        let bin = CniBin::standard(plugin)?;
        let call = |command| {
            let call = CniCall::new(command, "c1", &format!("/proc/{}/ns/net", pod.pid()), bin.path());
            call.run(host.command(bin.path().join("flannel")), CONF)
        };
        ensure!(call("ADD")?.status.success(), "no ADD");
        write(&host, &format!("{DATA}/c1"), "")?;
        let output = call("DEL")?;
        said.push((output.status.success(), String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    let [flannel, loden] = said.as_slice() else { return Ok(()) };
    report.compare("DEL with an empty kept file, as a power cut leaves it", format!("{flannel:?}"), format!("{loden:?}"));
    report.gate("the pod's end", loden.0, &loden.1);
    Ok(())
}

fn an_add_costs_less_beyond_its_delegate_than_with_flannels_plugin(_: &Agents, report: &mut Report) -> Result<()> {
    let plugins = plugins()?;
    let mut times: [Vec<Duration>; 3] = Default::default();
    let beds: Vec<CniBin> = plugins.iter().map(|(_, plugin)| CniBin::with(plugin)).collect::<Result<_>>()?;
    for bed in &beds {
        // A delegate that costs next to nothing, and says as much: flannel's plugin wants an answer.
        symlink("/bin/cat", bed.path().join("bridge"))?;
        fs::write(bed.path().join("subnet.env"), ENV)?;
    }
    for number in 0..CALLS {
        // In turn, so that whatever else the machine does is done to all.
        let container = format!("c{number}");
        for (place, bed) in beds.iter().enumerate() {
            let root = bed.path().display();
            let conf = CONF.replacen('{', &format!(r#"{{"subnetFile":"{root}/subnet.env","dataDir":"{root}/data","#), 1);
            let mut timed = |place: usize, program: Command| -> Result<()> {
                let start = Instant::now();
                let output = CniCall::new("ADD", &container, "/run/netns/x", bed.path()).run(program, &conf)?;
                ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
                times.get_mut(place).context("no such place")?.push(start.elapsed());
                Ok(())
            };
            timed(place, bed.plugin())?;
            if place == 0 {
                timed(2, Command::new("/bin/cat"))?;
            }
        }
    }
    let [flannel, loden, alone] = times.map(|mut times| {
        times.sort();
        times.get(CALLS / 2).copied().unwrap_or_default()
    });
    let more = |time: Duration| format!("{:.1} ms more than the delegate alone", time.saturating_sub(alone).as_secs_f64() * 1e3);
    report.compare(
        format!("an ADD, the median of {CALLS}; the delegate alone {:.1} ms", alone.as_secs_f64() * 1e3),
        more(flannel),
        more(loden),
    );
    report.gate("an ADD costs less than with flannel's plugin", loden < flannel, more(loden));
    Ok(())
}
