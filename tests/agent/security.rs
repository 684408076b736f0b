//! What the agent may do, what it starts, and what it shows of secrets.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use testkit::world::{CONFIG, CONFIG_KEY, Member, PATIENCE, SUBNET_FILE, World, write};
use testkit::{Agent, AgentOptions, EtcdOptions, Host, Lab, wait_for};

/// Bits of capability masks (include/uapi/linux/capability.h).
const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_NET_RAW: u64 = 1 << 13;

/// The capability sets of each of a process' threads, and whether it may gain any, as /proc tells.
fn rights(agent: &Agent) -> Result<Vec<[u64; 6]>> {
    let threads = fs::read_dir(format!("/proc/{}/task", agent.pid()))?;
    let of_thread = |thread: std::io::Result<fs::DirEntry>| {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name} in {status}"))?;
            Ok::<_, anyhow::Error>(u64::from_str_radix(line.trim(), 16)?)
        };
        Ok([field("CapPrm:")?, field("CapEff:")?, field("CapInh:")?, field("CapAmb:")?, field("CapBnd:")?, field("NoNewPrivs:")?])
    };
    threads.map(of_thread).collect()
}

/// Another user, or root without root's rights where the sandbox has no other user; with these capabilities alone.
fn setpriv(capabilities: &str) -> Result<Vec<String>> {
    let mut words: Vec<String> = ["setpriv", "--clear-groups"].map(str::to_owned).into();
    // The only line of a namespace with one user says that it has one.
    let users = fs::read_to_string("/proc/self/uid_map")?;
    if users.split_whitespace().nth(2) == Some("1") {
        words = vec!["setpriv".to_owned(), "--securebits=+noroot".to_owned()];
    } else {
        words.extend(["--reuid=65534", "--regid=65534"].map(str::to_owned));
    }
    words.extend([format!("--inh-caps=-all{capabilities}"), format!("--ambient-caps=-all{capabilities}")]);
    words.push(format!("--bounding-set=-all{capabilities}"));
    Ok(words)
}

/// A copy of the agent's program where any user reads it, and the directory that the subnet file goes to, which is that user's.
fn for_anybody(host: &Host, options: AgentOptions) -> Result<AgentOptions> {
    let program = format!("/proc/{}/root/run/loden", host.pid());
    // By a program of its own: while we had it open to write, none of our children could run it.
    host.run(&["cp", &options.program().display().to_string(), "/run/loden"])?;
    write(host, SUBNET_FILE, "")?;
    host.run(&["rm", SUBNET_FILE])?;
    if setpriv("")?.iter().any(|word| word.contains("reuid")) {
        host.run(&["chown", "65534:65534", "/run/flannel"])?;
    }
    Ok(options.with_program(program))
}

#[test]
fn after_its_start_the_agent_has_cap_net_admin_alone_in_force_in_each_thread_and_writes_and_heals_all_the_same() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201])?;
    let member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let threads = rights(&member.agent)?;
    ensure!(threads.len() >= 2, "{threads:x?}");
    // The second is for iptables-legacy alone.
    let may = CAP_NET_ADMIN | CAP_NET_RAW;
    for thread in threads {
        ensure!(thread == [may, CAP_NET_ADMIN, 0, 0, may, 1], "{thread:x?}");
    }
    member.set_sysctl("net/ipv4/ip_forward", "0")?;
    wait_for("forwarding to be on again", PATIENCE, || {
        ensure!(member.sysctl("net/ipv4/ip_forward")? == "1");
        Ok(())
    })?;
    member.host.run(&["rm", SUBNET_FILE])?;
    wait_for("the subnet file", PATIENCE, || member.host.subnet_env().map(drop))?;
    member.host.ip_batch("link del flannel.1\n")?;
    member.wait_peers(&peers)
}

#[test]
fn a_health_port_below_1024_is_the_one_reason_for_another_capability() -> Result<()> {
    let world = World::new()?;
    let host = world.lab.host("h1")?;
    let options = AgentOptions::loden(&world.etcd)?.args(["--healthz-port", "99"]);
    let member = Member::on(host, options)?;
    member.wait_log(&["INFO", "ready"])?;
    let both = CAP_NET_ADMIN | CAP_NET_BIND_SERVICE;
    let may = both | CAP_NET_RAW;
    for thread in rights(&member.agent)? {
        ensure!(thread == [may, both, 0, 0, may, 1], "{thread:x?}");
    }
    Ok(())
}

#[test]
fn a_user_with_nothing_but_ambient_cap_net_admin_can_run_the_agent() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201])?;
    let host = world.lab.host("h1")?;
    let options = for_anybody(&host, world.options()?.args(["--vxlan-peers-only"]))?.under(setpriv(",+net_admin")?);
    let mut member = Member::on(host, options)?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_peers(&peers)?;
    for thread in rights(&member.agent)? {
        ensure!(thread[..4] == [CAP_NET_ADMIN, CAP_NET_ADMIN, 0, 0] && thread[5] == 1, "{thread:x?}");
    }
    ensure!(member.sysctl("net/ipv4/ip_forward")? == "1");
    member.host.ip_batch("link del flannel.1\n")?;
    member.wait_peers(&peers)?;
    member.agent.wait_ready(PATIENCE)
}

#[test]
fn without_cap_net_admin_the_agent_ends_and_names_it_and_the_ways_to_give_it() -> Result<()> {
    let world = World::new()?;
    let host = world.lab.host("h1")?;
    let options = for_anybody(&host, world.options()?)?.under(setpriv("")?);
    let mut member = Member::on(host, options)?;
    let status = wait_for("the agent's end", PATIENCE, || member.agent.ended()?.context("it still runs"))?;
    ensure!(status.code() == Some(1), "{status}");
    member.wait_log(&["CAP_NET_ADMIN is missing", "AmbientCapabilities", "capabilities.add", "--cap-add"])
}

#[test]
fn a_file_that_is_closed_to_the_agent_is_named_with_its_owner_and_the_remedy() -> Result<()> {
    let world = World::new()?;
    let host = world.lab.host("h1")?;
    // Root's rights to override a mode are given up, so this is closed to root too.
    write(&host, "/run/secret/password", "x\n")?;
    host.run(&["chmod", "000", "/run/secret/password"])?;
    let options = world.options()?.args(["--etcd-username", "root", "--etcd-password-file", "/run/secret/password"]);
    let mut member = Member::on(host, options)?;
    wait_for("the agent's end", PATIENCE, || member.agent.ended()?.context("it still runs"))?;
    member.wait_log(&["/run/secret/password", "belongs to user 0", "mode 0000", "chmod"])
}

#[test]
fn no_other_program_is_started_and_no_process_made_from_start_to_stop() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201])?;
    let host = world.lab.host("h1")?;
    let trace = host.files().join("trace");
    let strace =
        ["strace", "-f", "-o", &trace.display().to_string(), "-e", "trace=execve,execveat,fork,vfork,clone,clone3"].map(str::to_owned);
    let options = world.options()?.args(["--vxlan-peers-only"]).under(strace);
    let mut member = Member::on(host, options)?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_peers(&peers)?;
    member.host.ip_batch("link del flannel.1\n")?;
    member.wait_peers(&peers)?;
    member.agent.status_json()?;
    // strace ends with the program it traces; it passes no signal on.
    let traced = fs::read_to_string(format!("/proc/{0}/task/{0}/children", member.agent.pid()));
    let traced = traced.ok().filter(|pids| !pids.trim().is_empty()).context("no program under strace")?;
    member.host.run(&["kill", "-TERM", traced.trim()])?;
    wait_for("the agent's end", PATIENCE, || member.agent.ended()?.context("it still runs"))?;
    let calls = fs::read_to_string(&trace)?;
    let started: Vec<_> = calls.lines().filter(|line| line.contains("exec")).collect();
    ensure!(started.len() == 1, "{started:#?}");
    let made: Vec<_> =
        calls.lines().filter(|line| ["fork(", "clone(", "clone3(", "clone3 resumed"].iter().any(|call| line.contains(call))).collect();
    ensure!(!made.is_empty() && made.iter().all(|line| line.contains("CLONE_THREAD") || line.contains("resumed")), "{made:#?}");
    Ok(())
}

const PASSWORD: &str = "correct-horse-battery";

#[test]
fn a_password_shows_neither_in_proc_nor_in_the_log_nor_in_what_the_agent_tells() -> Result<()> {
    let lab = Lab::new()?;
    let user = Some(("root".to_owned(), PASSWORD.to_owned()));
    let etcd = lab.etcd_with(EtcdOptions { user, ..EtcdOptions::default() })?;
    etcd.put(CONFIG_KEY, CONFIG)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("password");
    fs::write(&file, PASSWORD)?;
    let loud = AgentOptions::loden(&etcd)?.args(["--v=10", "--etcd-username", "root"]).env("RUST_LOG", "trace");
    let ways = [
        ("h1", loud.clone().args(["-etcd-password", PASSWORD])),
        ("h2", loud.clone().env("FLANNELD_ETCD_PASSWORD", PASSWORD)),
        ("h3", loud.args(["--etcd-password-file", &file.display().to_string()])),
    ];
    for (name, options) in ways {
        let mut member = Member::on(lab.host(name)?, options)?;
        member.agent.wait_ready(PATIENCE)?;
        let proc =
            |file: &str| fs::read(format!("/proc/{}/{file}", member.agent.pid())).map(|text| String::from_utf8_lossy(&text).into_owned());
        let told = [
            ("cmdline", proc("cmdline")?),
            ("environ", proc("environ")?),
            ("log", member.agent.log()),
            ("status", member.agent.status_json()?.to_string()),
            ("metrics", member.agent.get("/metrics")?.1),
            ("name", proc("comm")?),
        ];
        for (place, text) in &told {
            ensure!(!text.contains(PASSWORD), "{name}: the password shows in its {place}");
        }
        ensure!(told[5].1.trim() == "loden", "it is called {}", told[5].1);
        // etcd's simple tokens: letters, a dot, a revision.
        for line in member.agent.log().lines().filter(|line| line.contains("token")) {
            let token = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').find(|word| is_token(word));
            ensure!(token.is_none(), "{name}: a token shows in {line}");
        }
        ensure!(member.agent.log().contains("TRACE"), "the log is not at its loudest");
        member.agent.terminate()?;
    }
    Ok(())
}

fn is_token(word: &str) -> bool {
    word.split_once('.').is_some_and(|(letters, digits)| {
        letters.len() == 16
            && letters.bytes().all(|byte| byte.is_ascii_alphabetic())
            && !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[test]
fn the_subnet_file_is_for_all_to_read_and_the_socket_for_the_agent_alone_whatever_the_umask() -> Result<()> {
    let world = World::new()?;
    for (name, umask) in [("h1", "000"), ("h2", "077")] {
        let under = ["sh", "-c", &format!("umask {umask}; exec \"$@\""), "sh"].map(str::to_owned);
        let mut member = Member::on(world.lab.host(name)?, world.options()?.under(under))?;
        member.agent.wait_ready(PATIENCE)?;
        let root = format!("/proc/{}/root", member.host.pid());
        let mode = |path: &str| Ok::<_, anyhow::Error>(fs::metadata(format!("{root}{path}"))?.permissions().mode() & 0o7777);
        ensure!(mode(SUBNET_FILE)? == 0o644, "umask {umask}: {:o}", mode(SUBNET_FILE)?);
        let socket = Path::new(SUBNET_FILE).with_extension("sock").display().to_string();
        ensure!(mode(&socket)? == 0o600, "umask {umask}: {:o}", mode(&socket)?);
        let folder = mode("/run/flannel")?;
        ensure!(folder & 0o022 == 0 && folder & 0o555 == 0o555, "umask {umask}: {folder:o}");
    }
    Ok(())
}
