//! The report as text for people: what is wrong and what to do first, then the facts, aligned.

use std::fmt::Write;

use super::report::{
    ConfigChanges, Count, DataPlane, DataPlaneState, EntryState, Filter, Lease, LeaseState, PacketFilter, Peer, PeerState, Report, Store,
    StoreKind, StoreState, Underlay, Vtep,
};
use crate::fields::listed;

/// How many peers are listed; those that are not in step come first. `--json` has them all.
const PEERS_SHOWN: usize = 20;
/// How many repairs and rejected records are listed.
const LINES_SHOWN: usize = 10;

/// The whole report, lines of text with a line end each.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut out = Lines::default();
    let ready = if report.ready { "ready" } else { "NOT READY" };
    out.line(format!("loden {}, process {}, up {}: {ready}", report.version, report.pid, span(report.uptime)));
    problems(report, &mut out);
    out.blank();
    facts(report, &mut out);
    peers(&report.peers, &mut out);
    if !report.heals.is_empty() {
        out.blank();
        out.line(format!("Repaired lately ({})", report.heals.len()));
        let rows = report.heals.iter().take(LINES_SHOWN).map(|heal| {
            let ago = report.now_unix_ms.saturating_sub(heal.at_unix_ms) / 1000;
            [format!("{} ago", span(ago)), heal.why.clone(), heal.command.clone()]
        });
        out.table(rows.collect());
    }
    out.text
}

fn problems(report: &Report, out: &mut Lines) {
    if let Some(reason) = &report.not_ready_because {
        out.problem(reason, None);
    }
    let said = report.not_ready_because.as_deref().unwrap_or_default();
    let unsaid = |reason: &&String| !reason.is_empty() && !said.contains(reason.as_str());
    if let Some(reason) = report.lease.reason.as_ref().filter(|_| report.lease.state != LeaseState::Held).filter(unsaid) {
        out.problem(&format!("lease: {reason}"), None);
    }
    if let Store { kind, node: _, state: StoreState::Down, since, error, endpoints } = &report.store {
        let error = error.as_deref().unwrap_or("no reason given");
        out.problem(
            &format!("the store has not answered for {}: {error}", span(*since)),
            Some(&match kind {
                StoreKind::Etcd => format!("see that etcd runs at {}", endpoints.join(", ")),
                StoreKind::Kubernetes => format!("see that {} can be reached from here", endpoints.join(", ")),
            }),
        );
    }
    if let Some(reason) = report.data_plane.reason.as_ref().filter(unsaid) {
        out.problem(&format!("kernel: {reason}"), None);
    }
    if let Some(held) = &report.held_removals {
        let what = format!("the removal of {} peers at once is held back: {}", held.peers, held.reason);
        out.problem(&what, Some(&format!("see that the store's data is right; it is done in {}", span(held.passes_in))));
    }
    for fight in &report.fights {
        let who = fight.who.as_deref().filter(|who| *who != "unknown").unwrap_or("another program");
        let what = format!("{who} has undone this {} times: {}", fight.times, fight.what);
        out.problem(&what, Some(&format!("find and stop it; next try in {}", span(fight.next_in))));
    }
    let remedy = match report.store.kind {
        StoreKind::Etcd => "correct it, or delete its key",
        StoreKind::Kubernetes => "look at that Node's podCIDR and annotations (kubectl describe node)",
    };
    for rejected in report.rejected.iter().take(LINES_SHOWN) {
        out.problem(&format!("record {} is rejected: {}", rejected.key, rejected.reason), Some(remedy));
    }
    if report.rejected.len() > LINES_SHOWN {
        out.problem(&format!("{} more records are rejected", report.rejected.len() - LINES_SHOWN), Some("--json has them all"));
    }
    if report.stray_keys > 0 {
        let what = match report.store.kind {
            StoreKind::Etcd => "keys beside the leases name no subnet, and are ignored",
            StoreKind::Kubernetes => "Nodes are no peers, by their podCIDRs: the log names them",
        };
        out.problem(&format!("{} {what}", report.stray_keys), None);
    }
    for warning in &report.warnings {
        out.problem(warning, None);
    }
}

fn facts(report: &Report, out: &mut Lines) {
    let mut rows = vec![["lease".to_owned(), lease(&report.lease)]];
    for Vtep { name, ifindex, mac, mtu, vni, port, local, up, state } in &report.vteps {
        let index = ifindex.map_or_else(|| "not there".to_owned(), |index| format!("#{index}"));
        let up = if *up { "up" } else { "down" };
        rows.push([
            "device".to_owned(),
            format!("{name} ({index}), {up}, {state}: {mac}, MTU {mtu}, VNI {vni}, port {port}, from {local}"),
        ]);
    }
    rows.push(["underlay".to_owned(), report.underlay.as_ref().map_or_else(|| "not chosen yet".to_owned(), underlay)]);
    let Store { kind, node, state, since, error: _, endpoints } = &report.store;
    let state = match state {
        StoreState::Unknown => "not asked yet".to_owned(),
        StoreState::Up => format!("up for {}", span(*since)),
        StoreState::Down => format!("down for {}", span(*since)),
    };
    let kind = match kind {
        StoreKind::Etcd => "",
        StoreKind::Kubernetes => "Kubernetes, ",
    };
    let node = node.as_ref().map_or_else(String::new, |node| format!(", Node {node}"));
    rows.push(["store".to_owned(), format!("{kind}{state}: {}{node}", endpoints.join(", "))]);
    rows.push(["kernel".to_owned(), data_plane(&report.data_plane)]);
    if let Some(Filter { table, in_step, trouble: _, elements, wanted, dropped }) = &report.filter {
        let state = if *in_step { "in step" } else { "NOT in step" };
        let dropped = dropped.map_or_else(String::new, |dropped| format!(", {dropped} packets dropped"));
        rows.push(["filter".to_owned(), format!("table {table}, {state}: {elements} of {wanted} sources let in{dropped}")]);
    }
    for PacketFilter { table, in_step, trouble: _, accepts_in } in &report.packet_filters {
        let state = if *in_step { "in step" } else { "NOT in step" };
        let accepts_in = if accepts_in.is_empty() { String::new() } else { format!("; rules in {}", accepts_in.join(", ")) };
        rows.push(["packet filter".to_owned(), format!("table {table}, {state}{accepts_in}")]);
    }
    let ConfigChanges { followed, followed_at_unix_ms, waiting: _ } = &report.config_changes;
    if let Some(at) = followed_at_unix_ms {
        let ago = span(report.now_unix_ms.saturating_sub(*at) / 1000);
        rows.push(["config".to_owned(), format!("change followed {ago} ago: {}", listed(followed))]);
    }
    out.table(rows);
}

fn lease(lease: &Lease) -> String {
    let Lease { state, subnet, ipv6_subnet, how, reason: _, expires_in, owner: _ } = lease;
    let subnets: Vec<String> = [subnet, ipv6_subnet].into_iter().flatten().map(ToString::to_string).collect();
    let subnets = if subnets.is_empty() { "none".to_owned() } else { subnets.join(" and ") };
    let how = how.as_ref().map(|how| format!(" ({how})")).unwrap_or_default();
    match (state, expires_in) {
        (LeaseState::Held, Some(left)) => format!("{subnets}, held{how}, {} left unless it is renewed", span(*left)),
        (LeaseState::Held, None) => format!("{subnets}, held{how}, never ends"),
        (LeaseState::Claiming, _) => format!("{subnets}, being claimed{how}"),
        (LeaseState::Lost, _) => format!("{subnets}, LOST{how}"),
    }
}

fn underlay(underlay: &Underlay) -> String {
    let Underlay { interface, address, public_ip, ipv6_address, public_ipv6, mtu } = underlay;
    let ipv6_address = ipv6_address.filter(|ipv6| ipv6 != address);
    let addresses: Vec<String> = [Some(*address), ipv6_address].into_iter().flatten().map(|address| address.to_string()).collect();
    let public_ipv6 = public_ipv6.filter(|_| ipv6_address.is_some());
    let public: Vec<String> = [*public_ip, public_ipv6].into_iter().flatten().map(|public| public.to_string()).collect();
    let public = if public.is_empty() { String::new() } else { format!(", others are told {}", public.join(" and ")) };
    format!("{interface}: {}, MTU {mtu}{public}", addresses.join(" and "))
}

fn data_plane(plane: &DataPlane) -> String {
    let DataPlane { state, reason: _, desired, observed, pending, retrying } = plane;
    let Count { neighbours, fdb, routes } = observed;
    match state {
        DataPlaneState::InStep => format!("in step: {neighbours} neighbours, {fdb} FDB entries, {routes} routes"),
        DataPlaneState::Converging | DataPlaneState::Blocked => {
            let word = if *state == DataPlaneState::Blocked { "BLOCKED" } else { "converging" };
            format!(
                "{word}: {neighbours} of {} neighbours, {fdb} of {} FDB entries, {routes} of {} routes; {pending} to do, {retrying} to try again",
                desired.neighbours, desired.fdb, desired.routes
            )
        }
    }
}

fn peers(peers: &[Peer], out: &mut Lines) {
    out.blank();
    out.line(format!("Peers ({})", peers.len()));
    let (fine, other): (Vec<&Peer>, Vec<&Peer>) = peers.iter().partition(|peer| peer.state == PeerState::InStep);
    let rows = other.into_iter().chain(fine).take(PEERS_SHOWN).map(|peer| {
        let Peer { subnet, public_ip, mac, state, neighbour, fdb, route } = peer;
        let mac = mac.map_or_else(|| "plain route".to_owned(), |mac| mac.to_string());
        let state = match state {
            PeerState::InStep => "in step".to_owned(),
            PeerState::Converging => entries([("neighbour", neighbour), ("FDB entry", fdb), ("route", route)]),
            PeerState::KeptLast => "last good record kept, the newest is rejected".to_owned(),
        };
        [subnet.to_string(), public_ip.to_string(), mac, state]
    });
    out.table(rows.collect());
    if peers.len() > PEERS_SHOWN {
        out.line(format!("  … and {} more; --json has them all", peers.len() - PEERS_SHOWN));
    }
}

fn entries(states: [(&str, &Option<EntryState>); 3]) -> String {
    let wrong = states.into_iter().filter_map(|(name, state)| match state {
        None | Some(EntryState::Ok) => None,
        Some(EntryState::Missing) => Some(format!("{name} missing")),
        Some(EntryState::Differs) => Some(format!("{name} differs")),
        Some(EntryState::Retrying(error)) => Some(format!("{name} fails: {error}")),
    });
    let wrong: Vec<String> = wrong.collect();
    if wrong.is_empty() { "converging".to_owned() } else { wrong.join(", ") }
}

/// A span of time in its two largest units.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Text made line by line. What others wrote can hold no line end and no terminal escape.
#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn line(&mut self, line: impl AsRef<str>) {
        self.text.extend(line.as_ref().trim_end().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
        self.text.push('\n');
    }

    fn blank(&mut self) {
        self.text.push('\n');
    }

    fn problem(&mut self, what: &str, remedy: Option<&str>) {
        self.line(format!("  ! {what}"));
        if let Some(remedy) = remedy {
            self.line(format!("    → {remedy}"));
        }
    }

    /// Rows with their columns aligned; the last column is as long as it is.
    fn table<const N: usize>(&mut self, rows: Vec<[String; N]>) {
        let mut widths = [0; N];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in &rows {
            let mut line = " ".to_owned();
            for (cell, width) in row.iter().zip(widths) {
                // Writing to a String does not fail.
                let _ = write!(line, " {cell:width$} ");
            }
            self.line(line);
        }
    }
}
