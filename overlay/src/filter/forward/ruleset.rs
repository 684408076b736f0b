//! Whether somebody's chain drops what passes through this host, and where in it an acceptance counts. Pure.
//!
//! Overruled is what drops *whatever reaches it*: the chain's policy, or a rule without a condition, also one that leads to such a rule.
//! A rule with a condition is a decision that somebody made (a network policy, an administrator's ban): ours goes behind it.

use std::collections::BTreeMap;

/// Chains by name, and their rules.
pub(super) type Ruleset = BTreeMap<String, Vec<Rule>>;

/// A rule, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Whether it concerns whatever reaches it.
    pub(super) always: bool,
    /// What becomes of a packet then.
    pub(super) end: End,
    /// Whether it is ours.
    pub(super) ours: Option<Ours>,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// It goes on to the next rule.
    Next,
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// Which rule of ours it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ours {
    /// That for what comes from the network.
    Source,
    /// That for what goes there.
    Target,
    /// One that bears our mark, and is not as it should be.
    Stale,
}

/// What is to be changed in a chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Change {
    /// Rules to delete, by their place.
    pub(super) delete: Vec<usize>,
    /// Where both rules of ours are to be put, if they are.
    pub(super) put: Option<Spot>,
}

/// A place in a chain, as it is before anything is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spot {
    Before(usize),
    End,
}

/// So deep may chains lead to each other; the kernel takes no more (`NFT_JUMP_STACK_SIZE`, include/net/netfilter/nf_tables.h, v6.18).
const DEEPEST: usize = 16;

/// From Docker 28 on, what no port was published for is dropped in this chain, bridge by bridge. What was let through in DOCKER-USER
/// before it never comes there, and neither may the overlay's.
const DOCKER: &str = "DOCKER-FORWARD";

/// What becomes of a packet that no condition of a chain concerns.
enum Outcome {
    /// It is dropped by this rule, or behind it.
    Dropped(usize),
    Accepted,
    /// It leaves the chain by its end.
    Through,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        let Self { delete, put } = self;
        delete.is_empty() && put.is_none()
    }
}

/// What is to be changed in a chain that hangs in the forward hook, `wanted` or not.
pub(super) fn plan(rules: &Ruleset, chain: &str, drops_at_end: bool, wanted: bool) -> Change {
    let spot = match outcome(rules, chain, 0) {
        _ if !wanted => None,
        Outcome::Dropped(at) => Some(Spot::Before(at)),
        Outcome::Through if drops_at_end => Some(Spot::End),
        Outcome::Through | Outcome::Accepted => None,
    };
    let ours = |(at, rule): (usize, &Rule)| rule.ours.map(|ours| (at, ours));
    let ours: Vec<(usize, Ours)> = rules.get(chain).into_iter().flatten().enumerate().filter_map(ours).collect();
    let in_time = match spot {
        Some(Spot::Before(at)) => ours.iter().all(|(own, _)| *own < at),
        Some(Spot::End) => true,
        None => false,
    };
    let whole = matches!(ours.as_slice(), [(_, Ours::Source), (_, Ours::Target)]);
    if whole && in_time || ours.is_empty() && spot.is_none() {
        return Change::default();
    }
    Change { delete: ours.into_iter().map(|(at, _)| at).collect(), put: spot }
}

/// Whether a rule of ours is among them, right or not.
pub(super) fn has_ours(rules: &[Rule]) -> bool {
    rules.iter().any(|rule| rule.ours.is_some())
}

/// The chains that a chain always leads to.
pub(super) fn always_leads_to(rules: &[Rule]) -> impl Iterator<Item = &str> {
    rules.iter().filter(|rule| rule.always).filter_map(|rule| match &rule.end {
        End::Jump(to) | End::Goto(to) => Some(to.as_str()),
        End::Next | End::Accept | End::Drop | End::Return => None,
    })
}

fn outcome(all: &Ruleset, chain: &str, depth: usize) -> Outcome {
    if depth > DEEPEST {
        return Outcome::Through;
    }
    for (at, Rule { always, end, ours }) in all.get(chain).into_iter().flatten().enumerate() {
        if !always || ours.is_some() {
            continue;
        }
        let (to, is_last) = match end {
            End::Next => continue,
            End::Accept => return Outcome::Accepted,
            End::Drop => return Outcome::Dropped(at),
            End::Return => return Outcome::Through,
            End::Jump(to) | End::Goto(to) if to == DOCKER => return Outcome::Dropped(at),
            End::Jump(to) => (to, false),
            End::Goto(to) => (to, true),
        };
        match outcome(all, to, depth + 1) {
            Outcome::Dropped(_) => return Outcome::Dropped(at),
            Outcome::Accepted => return Outcome::Accepted,
            Outcome::Through if is_last => return Outcome::Through,
            Outcome::Through => {}
        }
    }
    Outcome::Through
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `? drop` is a drop with a condition; `s`, `t` and `x` are ours.
    fn chain(rules: &str) -> Vec<Rule> {
        let rule = |text: &str| {
            let (always, end) = text.strip_prefix("? ").map_or((true, text), |end| (false, end));
            let ours = match text {
                "s" => Some(Ours::Source),
                "t" => Some(Ours::Target),
                "x" => Some(Ours::Stale),
                _ => None,
            };
            let end = match end.split_once(' ') {
                Some(("jump", to)) => End::Jump(to.to_owned()),
                Some(("goto", to)) => End::Goto(to.to_owned()),
                _ => match end {
                    "accept" => End::Accept,
                    "drop" => End::Drop,
                    "return" => End::Return,
                    _ => End::Next,
                },
            };
            Rule { always: always && ours.is_none(), end, ours }
        };
        rules.split(", ").filter(|text| !text.is_empty()).map(rule).collect()
    }

    fn planned(base: &str, others: &[(&str, &str)], drops: bool) -> Change {
        let mut rules: Ruleset = others.iter().map(|(name, rules)| ((*name).to_owned(), chain(rules))).collect();
        rules.insert("FORWARD".to_owned(), chain(base));
        plan(&rules, "FORWARD", drops, true)
    }

    fn put(spot: Spot) -> Change {
        Change { delete: Vec::new(), put: Some(spot) }
    }

    #[test]
    fn a_policy_is_overruled_at_the_end_and_a_rule_for_all_right_before_it() {
        assert_eq!(planned("", &[], false), Change::default());
        assert_eq!(planned("? drop, ? accept", &[], true), put(Spot::End));
        assert_eq!(planned("? accept, drop", &[], false), put(Spot::Before(1)));
        assert_eq!(planned("accept, drop", &[], true), Change::default());
        assert_eq!(planned("? drop", &[], false), Change::default());
    }

    #[test]
    fn what_leads_to_a_drop_for_all_is_one_and_what_leads_back_is_none() {
        assert_eq!(planned("next, jump a", &[("a", "? accept, goto b"), ("b", "drop")], false), put(Spot::Before(1)));
        assert_eq!(planned("jump a", &[("a", "return, drop")], true), put(Spot::End));
        assert_eq!(planned("jump a, drop", &[("a", "accept")], true), Change::default());
        assert_eq!(planned("goto a, drop", &[("a", "? drop")], false), Change::default());
        assert_eq!(planned("jump a", &[("a", "jump a")], true), put(Spot::End));
        assert_eq!(planned("jump DOCKER-USER, jump DOCKER-FORWARD", &[], true), put(Spot::Before(1)));
    }

    #[test]
    fn ours_stay_where_they_count_and_are_put_anew_where_they_do_not() {
        assert_eq!(planned("s, t, ? accept, drop", &[], false), Change::default());
        assert_eq!(planned("? drop, s, t, ? drop", &[], true), Change::default());
        for (base, delete, spot) in [
            ("drop, s, t", vec![1, 2], Spot::Before(0)),
            ("s, drop, t", vec![0, 2], Spot::Before(1)),
            ("t, s, drop", vec![0, 1], Spot::Before(2)),
            ("s, drop", vec![0], Spot::Before(1)),
            ("s, t, x, drop", vec![0, 1, 2], Spot::Before(3)),
        ] {
            assert_eq!(planned(base, &[], false), Change { delete, put: Some(spot) }, "{base}");
        }
        assert_eq!(planned("s, t", &[], false), Change { delete: vec![0, 1], put: None });
    }
}
