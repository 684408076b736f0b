//! The agent's flags as a table for docs/configuration.md: what `--help` says, and what else there is to know.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::gosyntax::variable_of;
use super::program;

/// Flags that flanneld does not have.
const OURS: [&str; 12] = [
    "etcd-password-file",
    "state-file",
    "mass-removal-percent",
    "mass-removal-hold",
    "mass-removal-accept",
    "route-table",
    "route-rule-priority",
    "vxlan-peers-only",
    "notrack",
    "install-cni-conf",
    "cni-conf-dir",
    "cni-bin-dir",
];

/// What is not as flanneld has it, or not to be seen from the flag's help.
const NOTES: [(&str, &str); 18] = [
    ("etcd-cafile", "flanneld ignores it without certificate and key."),
    ("etcd-password", "The agent takes it off its command line within milliseconds. flanneld leaves it there."),
    ("etcd-password-file", "One line. Read again for every connection."),
    ("iface", "flanneld ends where none is there; the agent waits for one."),
    ("iface-regex", "Held against each interface's addresses first, then against the names."),
    ("subnet-file", "Several networks on one host need one each."),
    ("subnet-lease-renew-margin", "From a third of the lease's time on it is renewed in any case."),
    (
        "route-table",
        "Any number but 0, 253, 254 and 255. The rule is for destinations in the Network, and bears protocol 76, as the routes do.",
    ),
    ("notrack", "See [ADR 21](adr/0021-notrack.md)."),
    ("vxlan-peers-only", "See [operations](operations.md#peer-filter)."),
    ("healthz-port", "`/readyz` says whether the data plane has been verified; flanneld's only that it once wrote its file."),
    ("v", "`RUST_LOG` wins."),
    ("version", "No variable."),
    ("ip-masq", "See [operations](operations.md#masquerade-and-forwarding)."),
    ("iptables-resync", "flanneld looks at all its rules so often. 0 is taken as 1."),
    ("ip-blackhole-route", "From the start; flanneld puts it a few seconds later. The containers' own routes go before it."),
    ("vmodule", "Of flanneld's logger; says nothing to ours."),
    ("log_backtrace_at", "The same."),
];

/// The flags of the agent in Markdown, a table for each heading of `--help`.
#[must_use]
pub fn flag_tables() -> String {
    let program = program(false);
    let mut tables: Vec<(String, String)> = Vec::new();
    let notes = BTreeMap::from(NOTES);
    let arguments = program.find_subcommand("agent").into_iter().flat_map(clap::Command::get_arguments);
    for argument in arguments {
        let Some(name) = argument.get_long().filter(|name| *name != "help") else { continue };
        let heading = argument.get_help_heading().unwrap_or_default();
        let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default = if defaults.is_empty() { String::new() } else { format!("`{}`", defaults.join(",")) };
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let ours = if OURS.contains(&name) { "Not a flag of flanneld." } else { "" };
        let note = [ours, notes.get(name).copied().unwrap_or_default()].into_iter().filter(|text| !text.is_empty());
        let note = note.collect::<Vec<_>>().join(" ");
        let row = format!("| `--{name}`<br>`{}` | {default} | {help} | {note} |\n", variable_of(name));
        match tables.iter_mut().find(|(other, _)| other == heading) {
            Some((_, rows)) => rows.push_str(&row),
            None => tables.push((heading.to_owned(), row)),
        }
    }
    let mut page = String::new();
    for (heading, rows) in tables {
        // Writing to a String does not fail.
        let _ = write!(page, "### {heading}\n\n| Flag, variable | Default | Meaning | Notes |\n|---|---|---|---|\n{rows}\n");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_note_is_on_a_flag_that_there_is() {
        let page = flag_tables();
        for name in OURS.into_iter().chain(NOTES.map(|(name, _)| name)) {
            assert!(page.contains(&format!("| `--{name}`<br>")), "{name}");
        }
    }
}
