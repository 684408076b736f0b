use std::fs;
use std::time::Duration;

use tokio::task::JoinSet;

use super::*;
use crate::file;

const GOOD: &str = r#"{"name":"cbr0","cniVersion":"0.3.1","plugins":[{"type":"flannel"},{"type":"portmap"}]}"#;
const DEADLINE: Duration = Duration::from_secs(20);

struct Place {
    root: tempfile::TempDir,
    options: InstallOptions,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let options = InstallOptions { conf: Some(at("cfg/cni-conf.json")), conf_dir: at("net.d"), bin_dir: at("bin") };
        fs::create_dir(at("cfg")).unwrap();
        let place = Self { root, options };
        place.configure(GOOD);
        place
    }

    /// As the kubelet does it: `..data` becomes another directory by rename, and the file is a link into it.
    fn configure(&self, text: &str) {
        let cfg = self.root.path().join("cfg");
        let version = cfg.join(format!("..{}", fs::read_dir(&cfg).unwrap().count()));
        fs::create_dir(&version).unwrap();
        fs::write(version.join("cni-conf.json"), text).unwrap();
        std::os::unix::fs::symlink(&version, cfg.join("..data_tmp")).unwrap();
        fs::rename(cfg.join("..data_tmp"), cfg.join("..data")).unwrap();
        let _ = std::os::unix::fs::symlink("..data/cni-conf.json", cfg.join("cni-conf.json"));
    }

    fn subnet_file(&self) -> PathBuf {
        self.root.path().join("subnet.env")
    }

    fn give_subnet(&self) {
        let text = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.52.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        fs::write(self.subnet_file(), text).unwrap();
    }

    async fn wait_conflist(&self, wanted: &str) {
        let path = self.options.conflist();
        let right = async {
            while fs::read_to_string(&path).ok().as_deref() != Some(wanted) {
                sleep(SETTLE).await;
            }
        };
        timeout(DEADLINE, right).await.unwrap_or_else(|_| panic!("{:?}", fs::read_to_string(&path)));
    }
}

#[test]
fn installed_once_it_stays_as_it_is_and_the_configuration_waits_for_the_subnet() {
    let place = Place::new();
    let error = install(&place.options, &place.subnet_file()).unwrap_err();
    let error = reasons::line(&error);
    assert!(error.contains("subnet.env") && error.contains("--watch"), "{error}");
    assert!(place.options.plugin().exists() && !place.options.conflist().exists());
    place.give_subnet();
    assert!(install(&place.options, &place.subnet_file()).unwrap().contains("10-flannel.conflist"));
    let before = fs::metadata(place.options.plugin()).unwrap();
    assert_eq!(install(&place.options, &place.subnet_file()).unwrap(), "# installed already\n");
    assert_eq!(plugin::fingerprint(&fs::metadata(place.options.plugin()).unwrap()), plugin::fingerprint(&before));
    fs::write(place.options.conf_dir.join("10-calico.conflist"), "{}").unwrap();
    assert!(install(&place.options, &place.subnet_file()).unwrap().contains("10-calico.conflist"));
}

#[test]
fn a_bad_configuration_is_refused_once_and_the_last_good_one_stays() {
    let place = Place::new();
    let mut installer = Installer::new(place.options.clone());
    let now = Instant::now();
    let put = installer.look(now, true).0;
    assert!(put.iter().all(|finding| matches!(finding, Finding::Put { in_a_row: 0, .. })) && put.len() == 2, "{put:?}");
    for bad in ["{", r#"{"name":"x","plugins":[{"type":"bridge"}]}"#] {
        place.configure(bad);
        let found = installer.look(now, true).0;
        assert!(matches!(found.as_slice(), [Finding::Failed(InstallError::Refused { .. })]), "{found:?}");
        assert!(installer.look(now, true).0.is_empty(), "told twice");
        assert_eq!(fs::read_to_string(place.options.conflist()).unwrap(), GOOD);
    }
    let other = GOOD.replace("cbr0", "cbr1");
    place.configure(&other);
    assert!(matches!(installer.look(now, true).0.as_slice(), [Finding::Put { in_a_row: 0, .. }]));
    assert_eq!(fs::read_to_string(place.options.conflist()).unwrap(), other);
}

#[test]
fn what_cannot_be_written_is_told_once_and_tried_ever_later() {
    let place = Place::new();
    fs::write(&place.options.conf_dir, "no folder").unwrap();
    let mut installer = Installer::new(place.options.clone());
    let (mut now, mut told, mut waits) = (Instant::now(), 0, Vec::new());
    for _ in 0..10 {
        let (findings, again) = installer.look(now, true);
        told += findings.iter().filter(|finding| matches!(finding, Finding::Failed(InstallError::Put(_)))).count();
        let again = again.unwrap_or(now);
        waits.push(again - now);
        now = again;
    }
    assert_eq!(told, 1);
    assert!(waits.last().is_some_and(|last| *last > Duration::from_secs(1)), "{waits:?}");
    fs::remove_file(&place.options.conf_dir).unwrap();
    now += Duration::from_secs(60);
    assert!(matches!(installer.look(now, true).0.as_slice(), [Finding::Put { in_a_row: 0, .. }]));
}

#[test]
fn without_a_plugin_there_is_no_configuration_and_flannels_own_is_one() {
    let place = Place::new();
    fs::write(&place.options.bin_dir, "no folder").unwrap();
    place.give_subnet();
    let error = reasons::line(&install(&place.options, &place.subnet_file()).unwrap_err());
    assert!(error.contains("bin/flannel"), "{error}");
    assert!(!place.options.conflist().exists());

    fs::remove_file(&place.options.bin_dir).unwrap();
    fs::create_dir(&place.options.bin_dir).unwrap();
    std::os::unix::fs::symlink("/bin/sh", place.options.plugin()).unwrap();
    // Where ours cannot take its place.
    fs::create_dir(file::temporary(&place.options.plugin())).unwrap();
    assert!(install(&place.options, &place.subnet_file()).is_err());
    assert!(place.options.conflist().exists());
}

#[test]
fn what_somebody_undoes_is_put_back_ever_later() {
    let place = Place::new();
    let mut installer = Installer::new(place.options.clone());
    let mut now = Instant::now();
    installer.look(now, true);
    let mut waits = Vec::new();
    for turn in 1..=8 {
        fs::remove_file(place.options.conflist()).unwrap();
        fs::write(place.options.plugin(), "flannel's").unwrap();
        let begin = now;
        let mut put = Vec::new();
        for _ in 0..4 {
            let (findings, again) = installer.look(now, true);
            put.extend(findings);
            now = again.unwrap_or(now).max(now);
        }
        assert_eq!(put.len(), 2, "{turn}");
        assert!(put.iter().all(|finding| matches!(finding, Finding::Put { in_a_row, .. } if *in_a_row == turn)), "{turn}: {put:?}");
        waits.push(now - begin);
    }
    assert!(waits.is_sorted() && waits.first().is_some_and(Duration::is_zero) && waits[7] > Duration::from_secs(5), "{waits:?}");
}

#[tokio::test]
async fn kept_it_waits_for_the_subnet_follows_the_configuration_and_comes_back() {
    let place = Place::new();
    let mut tasks = JoinSet::new();
    let (options, subnet_file) = (place.options.clone(), place.subnet_file());
    tasks.spawn(async move { keep(options, subnet(&subnet_file), drop).await });
    let plugin = place.options.plugin();
    timeout(DEADLINE, async {
        while !plugin.exists() {
            sleep(SETTLE).await;
        }
    })
    .await
    .unwrap();
    assert!(!place.options.conflist().exists(), "installed before there is a subnet");
    place.give_subnet();
    place.wait_conflist(GOOD).await;
    fs::remove_file(place.options.conflist()).unwrap();
    place.wait_conflist(GOOD).await;
    let other = GOOD.replace("cbr0", "cbr1");
    place.configure(&other);
    place.wait_conflist(&other).await;
    fs::write(place.options.conflist(), "edited").unwrap();
    place.wait_conflist(&other).await;
}

#[test]
fn what_is_removed_is_ours_alone() {
    let place = Place::new();
    assert_eq!(remove(&place.options).unwrap(), [""; 0]);
    place.give_subnet();
    install(&place.options, &place.subnet_file()).unwrap();
    // The test program has the mark too: it is linked into it.
    assert_eq!(remove(&place.options).unwrap().len(), 2);
    assert!(!place.options.plugin().exists() && !place.options.conflist().exists());
    // flannel's own, after its DaemonSet has come back.
    install(&place.options, &place.subnet_file()).unwrap();
    fs::write(place.options.plugin(), "flannel's").unwrap();
    let said = remove(&place.options).unwrap();
    assert!(said.concat().contains("left alone") && place.options.conflist().exists() && place.options.plugin().exists(), "{said:?}");
}
