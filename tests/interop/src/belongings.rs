//! What stands on a host that an agent could have put there, as the kernel's own tools list it.

use std::collections::BTreeMap;

use anyhow::Result;
use testkit::Host;
use testkit::trial::Report;

use crate::scene::Party;

/// How each kind is listed. Counters and times are left out where the tool can.
const LISTS: &[(&str, &str)] = &[
    ("links", "ip -o link show | cut -d: -f2 | sort"),
    // Link-local ones come and go by themselves, with their routes.
    ("addresses", "ip -o addr show scope global | sed 's/^[0-9]*: //; s/valid_lft.*//' | sort"),
    ("IPv4 routes", "ip -4 route show table all | sort"),
    ("IPv6 routes", "ip -6 route show table all | sed 's/ expires [0-9]*sec//' | grep -v 'f[ef][08]0::' | sort"),
    ("IPv4 rules", "ip rule show"),
    ("IPv6 rules", "ip -6 rule show"),
    ("neighbours", "ip neigh show nud permanent | sort"),
    ("forwarding entries", "bridge fdb show | grep flannel | sort"),
    ("nftables", "nft -s list ruleset | grep -v '^# Warning' | sed 's/counter packets [0-9]* bytes [0-9]*/counter/'"),
    ("iptables", "iptables-save | grep -v '^#' | sed 's/\\[[0-9:]*\\]//'"),
    ("files", "find /run/flannel /var/lib/loden -not -type d 2>/dev/null | sort"),
];

/// All of it, list by list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Belongings(BTreeMap<&'static str, String>);

impl Belongings {
    /// What stands on this host.
    pub(crate) fn of(host: &Host) -> Result<Self> {
        let list = |(name, script): &(&'static str, &str)| Ok((*name, host.run(&["bash", "-c", script])?));
        Ok(Self(LISTS.iter().map(list).collect::<Result<_>>()?))
    }

    /// The gate that the host has these again, and nothing else.
    pub(crate) fn are_back(&self, party: &Party, report: &mut Report) -> Result<()> {
        let differs = Self::of(&party.member.host)?.differs_from(self);
        let seen = if differs.is_empty() { "the same".to_owned() } else { differs.join("; ") };
        report.gate("routes, rules, tables and files are what they were before loden came", differs.is_empty(), seen);
        Ok(())
    }

    /// What is there and was not before, and what was and is not: a line each.
    fn differs_from(&self, before: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, now) in &self.0 {
            let then = before.0.get(name).map_or("", String::as_str);
            let only = |text: &str, other: &str, mark: &str| {
                let alone = text.lines().filter(|line| !other.lines().any(|there| there == *line));
                alone.map(|line| format!("{name} {mark}{}", line.trim())).collect::<Vec<_>>()
            };
            lines.extend(only(now, then, "+"));
            lines.extend(only(then, now, "-"));
        }
        lines
    }
}
