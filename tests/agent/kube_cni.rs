//! The agent that installs CNI's files: the configuration comes with the network, is kept right, and stays.

use anyhow::{Context, Result, ensure};
use testkit::world::{Member, PATIENCE, SUBNET_FILE, write};
use testkit::{Host, wait_for};

use crate::cluster::{CONFIG, Cluster, DUAL};

const CONFLIST: &str =
    r#"{"name":"cbr0","cniVersion":"1.0.0","plugins":[{"type":"flannel","delegate":{"hairpinMode":true,"isDefaultGateway":true}}]}"#;
const SOURCE: &str = "/run/cni-conf.json";
const INSTALLED: &str = "/run/net.d/10-flannel.conflist";
const PLUGIN: &str = "/run/bin/flannel";

fn is_there(host: &Host, path: &str) -> bool {
    host.run(&["test", "-e", path]).is_ok()
}

fn wait_installed(host: &Host) -> Result<()> {
    wait_for("the configuration to be installed", PATIENCE, || {
        let text = host.read(INSTALLED)?;
        ensure!(text.trim() == CONFLIST, "{text}");
        Ok(())
    })
}

#[test]
fn runtimes_get_their_configuration_with_the_network_and_keep_it_after_the_agent() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    cluster.api.put_node("n1", &[])?;
    let host = cluster.lab.host("n1")?;
    write(&host, SOURCE, CONFLIST)?;
    host.run(&["mkdir", "/run/bin", "/run/net.d"])?;
    let flags = ["--install-cni-conf", SOURCE, "--cni-conf-dir=/run/net.d", "--cni-bin-dir=/run/bin"];
    let mut member = Member::on(host, cluster.options("n1")?.args(flags))?;
    member.wait_unready_for(&["podCIDR"])?;
    wait_for("the plugin to be installed", PATIENCE, || {
        ensure!(is_there(&member.host, PLUGIN));
        Ok(())
    })?;
    ensure!(!is_there(&member.host, INSTALLED), "pods would get no address");
    cluster.api.patch("n1", &serde_json::json!({ "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"] } }))?;
    wait_installed(&member.host)?;
    ensure!(is_there(&member.host, SUBNET_FILE), "the subnet file comes first");
    member.host.run(&["rm", INSTALLED])?;
    wait_installed(&member.host)?;
    member.agent.wait_ready(PATIENCE)?;
    member.agent.terminate()?;
    ensure!(is_there(&member.host, INSTALLED) && is_there(&member.host, PLUGIN), "what containers need went with the agent");
    Ok(())
}

#[test]
fn a_peer_that_cannot_be_reached_does_not_keep_a_nodes_pods_from_starting() -> Result<()> {
    // A host-gw peer off the link: readiness says so for good.
    let cluster = Cluster::new(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}"#)?;
    cluster.api.put_node("far", &["10.244.9.0/24"])?;
    cluster.annotate(
        "far",
        &[("kube-subnet-manager", "true"), ("backend-type", "host-gw"), ("backend-data", "null"), ("public-ip", "203.0.113.9")],
    )?;
    cluster.api.put_node("n1", &["10.244.1.0/24"])?;
    let host = cluster.lab.host("n1")?;
    write(&host, SOURCE, CONFLIST)?;
    host.run(&["mkdir", "/run/bin", "/run/net.d"]).context("no folders")?;
    let flags = ["--install-cni-conf", SOURCE, "--cni-conf-dir=/run/net.d", "--cni-bin-dir=/run/bin"];
    let member = Member::on(host, cluster.options("n1")?.args(flags))?;
    wait_installed(&member.host)?;
    wait_for("the condition", PATIENCE, || cluster.condition("n1", "NetworkUnavailable").map(drop))?;
    member.wait_unready().map(drop)
}

/// Starts a program as a container runtime does whose pod asks for NET_ADMIN and nothing else: of the host's settings none can be written.
const UNPRIVILEGED: &str = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && \
    exec setpriv --bounding-set=-all,+net_admin --inh-caps=-all --no-new-privs \"$@\"";

#[test]
fn a_container_without_privilege_serves_and_says_what_the_host_has_to_set() -> Result<()> {
    let cluster = Cluster::new(DUAL)?;
    let other = cluster.member("n2", &["10.244.2.0/24", "fc00:244:2::/64"])?;
    cluster.api.put_node("n1", &["10.244.1.0/24", "fc00:244:1::/64"])?;
    let host = cluster.lab.host("n1")?;
    write(&host, SOURCE, CONFLIST)?;
    host.run(&["mkdir", "/run/bin", "/run/net.d"])?;
    let options = cluster.options("n1")?.args(["--install-cni-conf", SOURCE, "--cni-conf-dir=/run/net.d", "--cni-bin-dir=/run/bin"]);
    let mut member = Member::on(host, options.under(["unshare", "--mount", "sh", "-c", UNPRIVILEGED, "sh"]))?;
    wait_installed(&member.host)?;
    // It is ready all the same: the CNI plugin bridge sets that for its gateway.
    wait_for("the host's setting to be named by an agent that is ready", PATIENCE, || {
        let (code, said) = member.agent.get("/readyz")?;
        ensure!(code == 200 && said.contains("ready, forwarding") && said.contains("sysctl -w"), "/readyz says {code} {said}");
        Ok(())
    })?;
    member.set_sysctl("net/ipv4/ip_forward", "1")?;
    member.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
    member.agent.wait_ready(PATIENCE)?;
    let (c1, c2) = (member.host.container("c1")?, other.host.container("c2")?);
    wait_for("the containers to reach each other", PATIENCE, || c1.ping(c2.address(), 56, false))?;
    wait_for("the containers to reach each other over IPv6", PATIENCE, || c1.ping(c2.address_v6(), 56, false))
}

#[test]
fn cni_files_that_cannot_be_written_show_in_status_and_on_the_node_until_they_can() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    cluster.api.put_node("n1", &["10.244.1.0/24"])?;
    let host = cluster.lab.host("n1")?;
    write(&host, SOURCE, CONFLIST)?;
    host.run(&["mkdir", "-p", PLUGIN, "/run/net.d"])?;
    let flags = ["--install-cni-conf", SOURCE, "--cni-conf-dir=/run/net.d", "--cni-bin-dir=/run/bin"];
    let mut member = Member::on(host, cluster.options("n1")?.args(flags))?;
    member.agent.wait_ready(PATIENCE)?;
    let warned = |member: &Member| Ok::<_, anyhow::Error>(member.agent.status_json()?["warnings"].to_string().contains(PLUGIN));
    wait_for("the status to name the directory in the plugin's place", PATIENCE, || {
        ensure!(warned(&member)?, "{}", member.agent.status_json()?["warnings"]);
        Ok(())
    })?;
    cluster.wait_event("n1", "CniNotInstalled", &[PLUGIN])?;
    ensure!(!is_there(&member.host, INSTALLED), "without a plugin every pod would fail");
    member.host.run(&["rmdir", PLUGIN])?;
    wait_installed(&member.host)?;
    wait_for("the status to have nothing to say", PATIENCE, || {
        ensure!(!warned(&member)?, "{}", member.agent.status_json()?["warnings"]);
        Ok(())
    })
}
