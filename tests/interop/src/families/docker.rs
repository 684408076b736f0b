//! Two hosts with a real dockerd each, whose options come from loden's subnet file by way of the systemd drop-in.

use anyhow::{Context, Result};
use std::process::Command;

use testkit::cases;
use testkit::trial::{Case, Report};
use testkit::world::{CONFIG, Member, PATIENCE, World};
use testkit::{Lab, wait_for};

use crate::docker::{Docker, DockerContainer};
use crate::{Agents, dropin};

const UNIT: &str = include_str!("../../../../manifests/systemd/loden.service.in");

pub(crate) const CASES: &[Case<Agents>] = cases![
    docker_containers_reach_each_other_across_hosts_under_forward_policy_drop,
    systemd_accepts_the_units_and_starts_docker_after_loden,
];

/// A host with loden, Docker and a container.
struct Place {
    container: DockerContainer,
    docker: Docker,
    options: Vec<String>,
    member: Member,
}

impl Place {
    fn new(world: &World, name: &str) -> Result<Self> {
        let host = world.lab.host(name)?;
        // Docker was here before loden. It found forwarding off, switched it on, and set the policy of FORWARD to DROP.
        Docker::start(&host, &[])?.end()?;
        let options = world.options()?.args(["-ip-masq"]);
        let program = options.program().display().to_string();
        let mut member = Member::on(host, options)?;
        member.agent.wait_ready(PATIENCE)?;
        let options = dropin::options(&member.host, &program)?;
        let docker = Docker::start(&member.host, &options)?;
        let container = docker.run(&format!("c-{name}"))?;
        Ok(Self { container, docker, options, member })
    }
}

fn docker_containers_reach_each_other_across_hosts_under_forward_policy_drop(_: &Agents, report: &mut Report) -> Result<()> {
    let world = World::with_config(CONFIG)?;
    let places = [Place::new(&world, "d1")?, Place::new(&world, "d2")?];
    for place in &places {
        let env = place.member.host.subnet_env()?;
        let (subnet, mtu) = (env.subnet()?, env.mtu()?);
        let Place { container, options, .. } = place;
        report.gate(
            format!("{} has an address of the leased subnet", container.name),
            subnet.contains(container.address.into()),
            format!("{} of {subnet}, from {}", container.address, options.join(" ")),
        );
        report.gate(format!("{} has the overlay's MTU", container.name), container.mtu()? == mtu, container.mtu()?);
        let policy = forward_policy(place)?;
        report.gate(format!("Docker's FORWARD policy is in force on {}", place.member.host.name()), policy == "DROP", policy);
    }
    let [one, two] = &places;
    for (from, to) in [(one, two), (two, one)] {
        for size in [84, from.container.mtu()?] {
            let (wanted, to) =
                (format!("{} reaches {} with {size} bytes in one piece", from.container.name, to.container.name), &to.container);
            // The first packet may wait for a neighbour of Docker's bridge.
            let came = wait_for("an answer", PATIENCE / 4, || from.container.ping(to.address, size));
            report.gate(wanted, came.is_ok(), came.map_or_else(|error| format!("{error:#}"), |()| "an answer".to_owned()));
        }
        let outside = wait_for("an answer", PATIENCE / 4, || from.container.ping(Lab::GATEWAY.parse()?, 84));
        let seen = outside.as_ref().map_or_else(|error| format!("{error:#}"), |()| "an answer".to_owned());
        report.gate(format!("{} reaches the world outside, by masquerade", from.container.name), outside.is_ok(), seen);
    }
    for place in places {
        place.docker.end()?;
    }
    Ok(())
}

/// The policy of FORWARD, as iptables has it.
fn forward_policy(place: &Place) -> Result<String> {
    let rules = place.member.host.run(&["iptables", "-S", "FORWARD"])?;
    rules.lines().find_map(|line| line.strip_prefix("-P FORWARD ")).map(str::to_owned).context("FORWARD has no policy")
}

fn systemd_accepts_the_units_and_starts_docker_after_loden(_: &Agents, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
    let program = std::env::var("LODEN_BIN").context("LODEN_BIN is not set")?;
    put("loden.service", &UNIT.replace("@BINDIR@/loden", &program))?;
    // Stand-ins for what Docker's packages bring.
    put("docker.service", "[Unit]\nRequires=docker.socket\n[Service]\nExecStart=/bin/true\n")?;
    put("docker.socket", "[Socket]\nListenStream=/run/docker.sock\n")?;
    std::fs::create_dir(folder.path().join("docker.service.d"))?;
    put("docker.service.d/10-loden.conf", &dropin::TEXT.replace("ExecStartPre=loden", &format!("ExecStartPre={program}")))?;
    let Ok(done) = Command::new("systemd-analyze")
        .args(["verify", "docker.service", "loden.service"])
        .env("SYSTEMD_UNIT_PATH", format!("{}:", folder.path().display()))
        .current_dir(folder.path())
        .output()
    else {
        anyhow::bail!("systemd-analyze is missing: apt-get install systemd");
    };
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    report.gate(
        "`systemd-analyze verify` has nothing to say of them",
        done.status.success() && said.trim().is_empty(),
        format!("{} {said}", done.status),
    );
    Ok(())
}
