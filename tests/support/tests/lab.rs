//! What tests stand on has to stand itself.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use testkit::{Etcd, EtcdOptions, Host, KernelEntry, Lab, LabOptions, Mesh, Table, Watch, wait_for};

const SOON: Duration = Duration::from_secs(5);

fn with_subnet(host: &Host, third: u8) -> Result<()> {
    let file = format!("FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.{third}.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n");
    host.run(&["sh", "-c", &format!("mkdir -p /run/flannel; printf '{file}' >/run/flannel/subnet.env")]).map(drop)
}

#[test]
fn two_hosts_reach_each_other_in_both_families_and_have_files_of_their_own() -> Result<()> {
    let lab = Lab::with(LabOptions { mtu: 1400, ..LabOptions::default() })?;
    let (h1, h2) = (lab.host("h1")?, lab.host("h2")?);
    h1.run(&["ping", "-c1", "-W2", "-M", "do", "-s", "1372", "192.168.77.2"])?;
    h1.run(&["ping", "-c1", "-W2", "fd77::2"])?;
    h1.run(&["touch", "/run/mine"])?;
    ensure!(h2.run(&["ls", "/run/mine"]).is_err(), "h2 sees a file of h1's /run");
    ensure!(h1.read("/etc/machine-id")? != h2.read("/etc/machine-id")?, "the hosts share a machine-id");
    ensure!(h1.read("/proc/sys/net/ipv4/ip_forward").is_ok());
    ensure!(h1.run(&["cat", "/proc/sys/net/ipv4/ip_forward"])? == "0\n", "forwarding is on");
    let links = h1.ip_json(&["link", "show", "dev", "eth0"])?;
    ensure!(links.pointer("/0/mtu").and_then(serde_json::Value::as_i64) == Some(1400), "{links}");
    h2.unplug()?;
    ensure!(h1.run(&["ping", "-c1", "-W1", "192.168.77.2"]).is_err(), "h2 is reached without its plug");
    h2.plug()?;
    wait_for("h2 to be back", SOON, || h1.run(&["ping", "-c1", "-W1", "192.168.77.2"]))?;
    Ok(())
}

#[test]
fn labs_with_the_same_addresses_live_side_by_side() -> Result<()> {
    let (one, other) = (Lab::new()?, Lab::new()?);
    let (a, b) = (one.host("h1")?, other.host("h1")?);
    a.run(&["ping", "-c1", "-W2", Lab::GATEWAY])?;
    b.run(&["ping", "-c1", "-W2", Lab::GATEWAY])?;
    ensure!(one.switch().run(&["ip", "neigh", "show", "192.168.77.1"])? != other.switch().run(&["ip", "neigh", "show", "192.168.77.1"])?);
    Ok(())
}

#[test]
fn etcd_keeps_its_data_over_a_restart_and_loses_it_when_told_to() -> Result<()> {
    let mut etcd = Etcd::alone(EtcdOptions::default())?;
    etcd.put("/a/1", "one\nline")?;
    let lease = etcd.lease_grant(60)?;
    etcd.put_with_lease("/a/2", "--two", lease)?;
    ensure!(etcd.lease_left(lease)?.is_some_and(|left| left > 50));
    etcd.restart()?;
    let all = etcd.get_prefix("/a/")?;
    let pairs: Vec<_> = all.iter().map(|entry| (entry.key.as_str(), entry.value.as_str(), entry.lease)).collect();
    ensure!(pairs == [("/a/1", "one\nline", 0), ("/a/2", "--two", lease)], "{pairs:?}");
    etcd.lease_revoke(lease)?;
    ensure!(etcd.get("/a/2")?.is_none() && etcd.lease_left(lease)?.is_none());
    etcd.compact()?;
    ensure!(etcd.ctl(&["get", "--rev=2", "/a/1"]).is_err(), "the history is still there");
    ensure!(etcd.del("/a/1")? && !etcd.del("/a/1")?);
    etcd.restart_empty()?;
    ensure!(etcd.revision()? == 1);
    Ok(())
}

#[test]
fn etcd_asks_for_a_user_when_told_to() -> Result<()> {
    let lab = Lab::new()?;
    let user = Some(("flannel".to_owned(), "secret".to_owned()));
    let mut etcd = lab.etcd_with(EtcdOptions { user, ..EtcdOptions::default() })?;
    etcd.put("/a", "b")?;
    etcd.pause()?;
    etcd.resume()?;
    let host = lab.host("h1")?;
    let refused = host.run(&["env", "ETCDCTL_API=3", "etcdctl", "--endpoints", etcd.endpoint(), "get", "/a"]);
    ensure!(format!("{:#}", refused.err().context("nobody was asked")?).contains("user name is empty"));
    etcd.kill()?;
    etcd.restart()?;
    ensure!(etcd.get("/a")?.is_some_and(|entry| entry.value == "b"));
    Ok(())
}

#[test]
fn a_stream_counts_what_is_lost_and_a_mesh_says_between_whom() -> Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("h1")?;
    with_subnet(&host, 7)?;
    let (c1, c2) = (host.container("c1")?, host.container("c2")?);
    ensure!(c1.address().to_string() == "10.5.7.2" && c2.address().to_string() == "10.5.7.3");
    c1.ping(c2.address(), c1.full_payload(), true)?;
    ensure!(c1.ping(c2.address(), c1.full_payload() + 1, true).is_err(), "a packet larger than the MTU passed");
    let mut mesh = Mesh::new([&c1, &c2])?;
    mesh.wait_whole(SOON)?;

    let stream = c1.udp_stream(&c2, Duration::from_millis(1))?;
    std::thread::sleep(Duration::from_millis(100));
    let whole = stream.finish()?;
    ensure!(whole.lost == 0 && whole.sent > 10, "{whole:?}");

    let stream = c1.udp_stream(&c2, Duration::from_millis(1))?;
    c2.ip_batch("link set eth0 down\n")?;
    ensure!(mesh.missing()?.len() == 2);
    std::thread::sleep(Duration::from_millis(20));
    c2.ip_batch("link set eth0 up\n")?;
    mesh.wait_whole(SOON)?;
    let broken = stream.finish()?;
    ensure!(broken.lost > 0 && broken.received > 0, "{broken:?}");
    Ok(())
}

#[test]
fn an_entry_that_is_deleted_and_put_back_was_gone_for_that_long() -> Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("h1")?;
    host.ip_batch("link add vx0 type vxlan id 1 dstport 8472 local 192.168.77.1\nlink set vx0 up\n")?;
    let puts = [
        (Table::Route, "ip route add 10.9.0.0/24 via 10.9.0.0 dev vx0 onlink metric 7"),
        (Table::Neighbour, "ip neigh add 10.9.0.0 lladdr 02:00:00:00:00:01 dev vx0"),
        (Table::Fdb, "bridge fdb add 02:00:00:00:00:01 dev vx0 dst 192.168.77.2"),
    ];
    for (table, put) in puts {
        let words: Vec<&str> = put.split(' ').collect();
        host.run(&words)?;
        let entries = KernelEntry::list(&host, table, "vx0")?;
        let [entry] = entries.as_slice() else { bail!("not one entry: {entries:?}") };
        let outage = std::thread::scope(|scope| {
            let healer = scope.spawn(|| wait_for("the entry to be gone", SOON, || host.run(&words)));
            let outage = Watch::new(&host)?.outage(entry, SOON);
            healer.join().map_err(|_| anyhow!("the healer panicked"))??;
            outage
        })?;
        ensure!(outage > Duration::ZERO && KernelEntry::list(&host, table, "vx0")?.len() == 1);
        let never = Watch::new(&host)?.outage(entry, Duration::from_millis(20));
        ensure!(never.err().context("it came back")?.to_string().contains("in vain"));
    }
    Ok(())
}

#[test]
fn waiting_in_vain_says_for_what_and_what_was_seen() -> Result<()> {
    let waited = wait_for("two routes", Duration::from_millis(10), || {
        ensure!(1 == 2, "there is one");
        Ok(())
    });
    let said = waited.err().context("it came true")?.to_string();
    ensure!(said.contains("two routes") && said.contains("there is one"), "{said}");
    Ok(())
}
