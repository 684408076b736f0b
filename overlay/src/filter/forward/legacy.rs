//! What iptables-legacy holds, in the language of its save and restore programs. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use lease::Subnet;

use super::Mark;
use super::ruleset::{Change, End, Ours, Rule, Ruleset, Spot};

/// One of its tables.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Saved {
    /// The chains' policies; none where they are jumped to.
    policies: BTreeMap<String, Option<bool>>,
    /// Rules as they were said, by chain.
    lines: BTreeMap<String, Vec<String>>,
}

impl Saved {
    /// Reads what `iptables-legacy-save -t TABLE` prints. What is no policy and no rule is passed over.
    pub(super) fn read(text: &str) -> Self {
        let mut saved = Self::default();
        for line in text.lines() {
            if let Some((name, policy)) = line.strip_prefix(':').and_then(|chain| chain.split_once(' ')) {
                let policy = policy.split(' ').next().filter(|policy| *policy != "-");
                saved.policies.insert(name.to_owned(), policy.map(|policy| policy == "DROP"));
            } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|rule| rule.split_once(' ')) {
                saved.lines.entry(chain.to_owned()).or_default().push(rule.to_owned());
            }
        }
        saved
    }

    /// Whether a chain's policy is to drop.
    pub(super) fn drops(&self, chain: &str) -> bool {
        self.policies.get(chain).copied().flatten().unwrap_or_default()
    }

    /// The chains, as far as it matters where ours goes.
    pub(super) fn ruleset(&self, mark: &Mark) -> Ruleset {
        let rules = |(chain, lines): (&String, &Vec<String>)| (chain.clone(), lines.iter().map(|line| rule(line, mark)).collect());
        self.lines.iter().map(rules).collect()
    }

    /// What iptables-restore makes a change of.
    pub(super) fn restore(&self, chain: &str, change: &Change, mark: &Mark) -> String {
        let Change { delete, put } = change;
        let lines = self.lines.get(chain).map(Vec::as_slice).unwrap_or_default();
        let mut text = "*filter\n".to_owned();
        for line in delete.iter().filter_map(|at| lines.get(*at)) {
            let _ = writeln!(text, "-D {chain} {line}");
        }
        if let Some(spot) = put {
            let before = match spot {
                Spot::Before(at) => *at,
                Spot::End => lines.len(),
            };
            // Rules are counted from one, and those that went before are gone by then.
            let number = 1 + before - delete.iter().filter(|at| **at < before).count();
            for (number, rule) in (number..).zip(wanted(mark)) {
                let _ = writeln!(text, "-I {chain} {number} {rule}");
            }
        }
        text + "COMMIT\n"
    }

    /// What iptables-restore takes flanneld's chain away by, if it is there and speaks of this network, or of none.
    pub(super) fn without_flanneld(&self, table: &str, chain: &str, network: Subnet) -> Option<String> {
        self.policies.get(chain)?;
        let rules = self.lines.get(chain).map(Vec::as_slice).unwrap_or_default();
        let of_network = rules.iter().any(|rule| rule.starts_with(&format!("-s {network} ")));
        if !of_network && !rules.is_empty() {
            return None;
        }
        let mut text = format!("*{table}\n");
        for (from, lines) in &self.lines {
            for line in lines.iter().filter(|line| line.ends_with(&format!("-j {chain}"))) {
                let _ = writeln!(text, "-D {from} {line}");
            }
        }
        let _ = write!(text, "-F {chain}\n-X {chain}\nCOMMIT\n");
        Some(text)
    }

    /// Whether a chain has a rule about this network.
    pub(super) fn speaks_of(&self, chain: &str, network: Subnet) -> bool {
        self.lines.get(chain).into_iter().flatten().any(|rule| rule.starts_with(&format!("-s {network} ")))
    }
}

/// Our two rules, as they are saved.
fn wanted(mark: &Mark) -> [String; 2] {
    let Mark { owner, network } = mark;
    ["-s", "-d"].map(|side| format!("{side} {network} -m comment --comment {owner} -j ACCEPT"))
}

fn rule(line: &str, mark: &Mark) -> Rule {
    let [source, target] = wanted(mark);
    // A text with a full stop in it is saved within quotation marks.
    let bare = line.replace('"', "");
    let ours = match bare {
        _ if bare == source => Some(Ours::Source),
        _ if bare == target => Some(Ours::Target),
        _ if bare.contains(&format!("--comment {} ", mark.owner)) => Some(Ours::Stale),
        _ => None,
    };
    let (mut always, mut end) = (true, End::Next);
    let mut words = line.split(' ');
    while let Some(word) = words.next() {
        match word {
            "-j" | "-g" => {
                let to = words.next().unwrap_or_default().to_owned();
                end = match to.as_str() {
                    "ACCEPT" => End::Accept,
                    "DROP" | "REJECT" => End::Drop,
                    "RETURN" => End::Return,
                    _ if word == "-g" => End::Goto(to),
                    _ => End::Jump(to),
                };
                // What follows is the target's own.
                break;
            }
            "-m" if words.clone().next() == Some("comment") => drop(words.next()),
            "--comment" => skip_text(&mut words),
            _ => {
                always = false;
            }
        }
    }
    Rule { always, end, ours }
}

/// Passes over a text: one word, or several within quotation marks.
fn skip_text<'a>(words: &mut impl Iterator<Item = &'a str>) {
    let first = words.next().unwrap_or_default();
    let ends = |word: &str| word.ends_with('"') && !word.ends_with("\\\"");
    if !first.starts_with('"') || first.len() > 1 && ends(first) {
        return;
    }
    for word in words {
        if ends(word) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ruleset::plan;
    use super::*;

    const DOCKER: &str = "# Generated by iptables-save v1.8.9\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [3:252]\n:DOCKER-USER - [0:0]\n\
        -A FORWARD -j DOCKER-USER\n-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A FORWARD -i docker0 -m comment --comment \"a b \\\" c\" -j ACCEPT\n-A DOCKER-USER -j RETURN\nCOMMIT\n";

    fn mark() -> Mark {
        Mark { owner: "loden-net-flannel.1".to_owned(), network: "10.5.0.0/16".parse().unwrap() }
    }

    fn planned(text: &str) -> (Saved, Change) {
        let saved = Saved::read(text);
        let change = plan(&saved.ruleset(&mark()), "FORWARD", saved.drops("FORWARD"), true);
        (saved, change)
    }

    #[test]
    fn behind_dockers_rules_the_policy_is_overruled_and_then_there_is_nothing_to_do() {
        let (saved, change) = planned(DOCKER);
        assert_eq!(change, Change { delete: vec![], put: Some(Spot::End) });
        let restore = saved.restore("FORWARD", &change, &mark());
        let rules = "-s 10.5.0.0/16 -m comment --comment loden-net-flannel.1 -j ACCEPT\n-A FORWARD -d 10.5.0.0/16 -m comment --comment loden-net-flannel.1 -j ACCEPT\n";
        assert_eq!(restore, format!("*filter\n-I FORWARD 4 {}COMMIT\n", rules.replace("-A FORWARD -d", "-I FORWARD 5 -d")));
        let quoted = rules.replace("loden-net-flannel.1", "\"loden-net-flannel.1\"");
        let with_ours = DOCKER.replace("-A DOCKER-USER", &format!("-A FORWARD {quoted}-A DOCKER-USER"));
        assert!(planned(&with_ours).1.is_empty());
        let behind = with_ours.replace(
            "-A FORWARD -j DOCKER-USER",
            "-A FORWARD -m comment --comment \"no more of it\" -j REJECT --reject-with icmp-host-prohibited",
        );
        let (saved, change) = planned(&behind);
        assert_eq!(change, Change { delete: vec![3, 4], put: Some(Spot::Before(0)) });
        let restore = saved.restore("FORWARD", &change, &mark());
        assert!(restore.starts_with("*filter\n-D FORWARD -s 10.5.0.0/16 -m comment") && restore.contains("\n-I FORWARD 1 -s"), "{restore}");
    }

    #[test]
    fn flannelds_chain_goes_with_what_jumps_to_it_unless_it_is_another_networks() {
        let text = "*nat\n:POSTROUTING ACCEPT [0:0]\n:FLANNEL-POSTRTG - [0:0]\n-A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG\n\
            -A FLANNEL-POSTRTG -s 10.5.0.0/16 ! -d 224.0.0.0/4 -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully\nCOMMIT\n";
        let saved = Saved::read(text);
        assert_eq!(
            saved.without_flanneld("nat", "FLANNEL-POSTRTG", "10.5.0.0/16".parse().unwrap()).unwrap(),
            "*nat\n-D POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG\n-F FLANNEL-POSTRTG\n-X FLANNEL-POSTRTG\nCOMMIT\n"
        );
        assert_eq!(saved.without_flanneld("nat", "FLANNEL-POSTRTG", "10.6.0.0/16".parse().unwrap()), None);
        assert_eq!(saved.without_flanneld("nat", "FLANNEL-FWD", "10.5.0.0/16".parse().unwrap()), None);
    }
}
