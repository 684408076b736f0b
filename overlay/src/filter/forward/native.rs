//! Others' chains in nf_tables' forward hook: which there are, and our rules in them. What iptables holds there (iptables-nft) is such a
//! chain like any other: it lists, and deletes, a rule of ours as its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use lease::Family;
use netlink_packet_core::{DecodeError, NLM_F_APPEND, NLM_F_CREATE};

use super::super::attribute::{find, text};
use super::super::door::dump;
use super::super::expr::{self, ACCEPT, DROP, Expr, GOTO, JUMP, NFPROTO, RETURN};
use super::super::family::facts;
use super::super::frame::{Base, FORWARD, POLICY_DROP};
use super::super::message::{
    CHAIN_NAME, DELCHAIN, DELRULE, FIXED, GETCHAIN, GETRULE, NAME, NEWCHAIN, NEWRULE, RULE_EXPRESSIONS, Request, base_of, table_of,
};
use super::super::net::{Side, accept};
use super::super::{INET, PREFIX, TableId};
use super::Mark;
use super::ruleset::{Change, End, Ours, Rule, Ruleset, Spot, always_leads_to, has_ours};
use crate::kernel::{KernelError, Message};

/// Of a rule: its number, the rule that it is put before, and what its owner wrote to it.
const RULE_HANDLE: u16 = 3;
const RULE_POSITION: u16 = 6;
const RULE_USERDATA: u16 = 7;

/// `NFTNL_UDATA_RULE_COMMENT` (libnftnl, `udata.h`): a type, a length, text with a zero byte.
const COMMENT: u8 = 0;

/// Expressions that concern whatever reaches them. What ends a rule is among them.
const WITHOUT_CONDITION: [&str; 4] = ["log", "last", "reject", "match comment"];

/// What iptables' own targets are called in a dump.
const TARGET: &str = "target ";

/// A chain of somebody's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) table: TableId,
    pub(super) chain: String,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, chain } = self;
        write!(out, "{table} {chain}")
    }
}

/// A chain in the forward hook, with the chains of its table that it always leads to.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) place: Place,
    pub(super) drops: bool,
    pub(super) rules: Ruleset,
    handles: Vec<u64>,
}

impl Host {
    pub(super) fn holds_ours(&self) -> bool {
        self.rules.get(&self.place.chain).is_some_and(|rules| has_ours(rules))
    }
}

/// All of them, and the chains whose rules were looked at.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    pub(super) hosts: Vec<Host>,
    pub(super) watched: BTreeSet<Place>,
}

/// A rule as it was read.
pub(super) struct Read {
    pub(super) handle: u64,
    pub(super) exprs: Vec<Expr>,
    comment: Option<String>,
}

/// Looks at all chains that what passes this host goes through.
pub(super) async fn look(family: Family, mark: &Mark) -> Result<Hosts, KernelError> {
    let mut found = Vec::new();
    let take = |message: &Message<'_>| {
        let Some(table) = table_of(message)? else { return Ok(()) };
        let body = message.payload().get(FIXED..).unwrap_or_default();
        let ours = table.name.starts_with(PREFIX) || ![facts(family).nfproto, INET].contains(&table.nfproto);
        if let Some(Base { hook: FORWARD, policy, .. }) = base_of(body)?.filter(|_| !ours) {
            let chain = text(body, CHAIN_NAME)?.unwrap_or_default();
            found.push((Place { table, chain }, policy == POLICY_DROP));
        }
        Ok(())
    };
    dump(&Request::of_family(GETCHAIN, 0, 0, |_| ()), take).await?;
    let mut all = Hosts::default();
    for (place, drops) in found {
        let (mut rules, mut handles, mut todo) = (BTreeMap::new(), Vec::new(), vec![place.chain.clone()]);
        while let Some(chain) = todo.pop() {
            let read = rules_of(&place.table, &chain).await?;
            if chain == place.chain {
                handles = read.iter().map(|rule| rule.handle).collect();
            }
            let read: Vec<Rule> = read.iter().map(|read| rule(read, family, &place.table, mark)).collect();
            todo.extend(always_leads_to(&read).filter(|to| *to != chain && !rules.contains_key(*to)).map(str::to_owned));
            all.watched.insert(Place { table: place.table.clone(), chain: chain.clone() });
            rules.insert(chain, read);
        }
        all.hosts.push(Host { place, drops, rules, handles });
    }
    Ok(all)
}

/// A chain's rules; none where there is no such chain.
pub(super) async fn rules_of(table: &TableId, chain: &str) -> Result<Vec<Read>, KernelError> {
    let mut rules = Vec::new();
    let take = |message: &Message<'_>| {
        if let Some(rule) = read(message, table, chain)? {
            rules.push(rule);
        }
        Ok(())
    };
    dump(&Request::new(GETRULE, 0, table, |body| body.text(NAME, chain)), take).await?;
    Ok(rules)
}

fn read(message: &Message<'_>, table: &TableId, chain: &str) -> Result<Option<Read>, DecodeError> {
    let body = message.payload().get(FIXED..).unwrap_or_default();
    let here =
        message.message_type() == NEWRULE && table_of(message)?.as_ref() == Some(table) && text(body, NAME)?.as_deref() == Some(chain);
    if !here {
        return Ok(None);
    }
    let handle = find(body, RULE_HANDLE)?.and_then(|handle| handle.try_into().ok()).map_or(0, u64::from_be_bytes);
    let exprs = expr::decode(find(body, RULE_EXPRESSIONS)?.unwrap_or_default())?.into_iter().map(|read| read.expr).collect();
    Ok(Some(Read { handle, exprs, comment: find(body, RULE_USERDATA)?.and_then(comment) }))
}

/// The comment in what a rule's owner wrote to it.
fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, len, rest @ ..] = data {
        let (value, behind) = rest.split_at_checked(usize::from(*len))?;
        if *kind == COMMENT {
            return Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
        }
        data = behind;
    }
    None
}

/// Both of ours, as a table takes them: one for both families is told the family first. A counter, as iptables has it, so that it
/// counts them as its own.
fn wanted(family: Family, table: &TableId, mark: &Mark) -> [Vec<Expr>; 2] {
    let nfproto = [Expr::Meta { key: NFPROTO }, Expr::Compare { equal: true, value: vec![facts(family).nfproto] }];
    let lead = if table.nfproto == INET { nfproto.to_vec() } else { Vec::new() };
    [Side::Source, Side::Target].map(|side| {
        let mut rule = [lead.clone(), accept(side, mark.network)].concat();
        rule.insert(rule.len().saturating_sub(1), Expr::Counter);
        rule
    })
}

fn rule(read: &Read, family: Family, table: &TableId, mark: &Mark) -> Rule {
    let [source, target] = wanted(family, table, mark);
    let ours = match &read.exprs {
        _ if read.comment.as_deref() != Some(&mark.owner) || !of_family(&read.exprs, family, table) => None,
        exprs if *exprs == source => Some(Ours::Source),
        exprs if *exprs == target => Some(Ours::Target),
        _ => Some(Ours::Stale),
    };
    let mut end = End::Next;
    let mut always = true;
    for expr in &read.exprs {
        match expr {
            Expr::Counter | Expr::Notrack => {}
            Expr::Verdict { code, chain } => {
                let chain = chain.clone().unwrap_or_default();
                end = match *code {
                    ACCEPT => End::Accept,
                    DROP => End::Drop,
                    RETURN => End::Return,
                    JUMP => End::Jump(chain),
                    GOTO => End::Goto(chain),
                    _ => End::Next,
                };
            }
            Expr::Other(name) if name == "reject" || name == "target REJECT" || name == "target DROP" => end = End::Drop,
            Expr::Other(name) => always &= WITHOUT_CONDITION.contains(&name.as_str()) || name.starts_with(TARGET),
            Expr::Meta { .. }
            | Expr::Payload { .. }
            | Expr::Compare { .. }
            | Expr::Mask { .. }
            | Expr::Lookup { .. }
            | Expr::Masquerade { .. } => {
                always = false;
            }
        }
    }
    Rule { always, end, ours }
}

/// In a table for both families, one of ours for the other family bears the same mark if two VTEPs have one name: it is left alone.
fn of_family(exprs: &[Expr], family: Family, table: &TableId) -> bool {
    let other = |expr: &Expr| matches!(expr, Expr::Compare { value, .. } if value.len() == 1 && *value != [facts(family).nfproto]);
    table.nfproto != INET || !matches!(exprs, [Expr::Meta { key: NFPROTO }, compare, ..] if other(compare))
}

/// What makes a change.
pub(super) fn requests(host: &Host, change: &Change, family: Family, mark: &Mark) -> Vec<Request> {
    let Host { place: Place { table, chain }, handles, .. } = host;
    let handle = |at: usize| handles.get(at).copied().unwrap_or_default();
    let Change { delete, put } = change;
    let deletes = delete.iter().map(|at| del_rule(table, chain, handle(*at)));
    let puts = put.iter().flat_map(|spot| {
        wanted(family, table, mark).map(|rule| {
            let flags = if *spot == Spot::End { NLM_F_CREATE | NLM_F_APPEND } else { NLM_F_CREATE };
            Request::new(NEWRULE, flags, table, |body| {
                body.text(NAME, chain);
                body.nest(RULE_EXPRESSIONS, |list| rule.iter().for_each(|expr| expr.encode(list)));
                if let Spot::Before(at) = spot {
                    body.bytes(RULE_POSITION, &handle(*at).to_be_bytes());
                }
                let len = u8::try_from(mark.owner.len() + 1).unwrap_or(u8::MAX);
                body.bytes(RULE_USERDATA, &[&[COMMENT, len], mark.owner.as_bytes(), &[0]].concat());
            })
        })
    });
    deletes.chain(puts).collect()
}

/// Deletes one rule.
pub(super) fn del_rule(table: &TableId, chain: &str, handle: u64) -> Request {
    Request::new(DELRULE, 0, table, |body| {
        body.text(NAME, chain);
        body.bytes(RULE_HANDLE, &handle.to_be_bytes());
    })
}

/// Takes a chain away with all its rules.
pub(super) fn del_chain(table: &TableId, chain: &str) -> [Request; 2] {
    [Request::new(DELRULE, 0, table, |body| body.text(NAME, chain)), Request::new(DELCHAIN, 0, table, |body| body.text(CHAIN_NAME, chain))]
}

/// Whether a notification may be about what has been looked at: a rule in one of these chains, or a chain in the hook.
pub(super) fn concerns(message: &Message<'_>, watched: &BTreeSet<Place>) -> Result<bool, DecodeError> {
    let kind = message.message_type();
    let name = match kind {
        NEWRULE | DELRULE => NAME,
        NEWCHAIN | DELCHAIN => CHAIN_NAME,
        _ => return Ok(false),
    };
    let Some(table) = table_of(message)? else { return Ok(false) };
    let body = message.payload().get(FIXED..).unwrap_or_default();
    if name == CHAIN_NAME && base_of(body)?.is_some_and(|base| base.hook == FORWARD) && !table.name.starts_with(PREFIX) {
        return Ok(true);
    }
    let chain = text(body, name)?.unwrap_or_default();
    Ok(watched.contains(&Place { table, chain }))
}

/// Whether a rule compares what is sent from this network.
pub(super) fn speaks_of(exprs: &[Expr], condition: &[Expr]) -> bool {
    exprs.windows(condition.len()).any(|part| part == condition)
}

/// Whatever bytes there are, they are read or refused.
#[cfg(feature = "contract")]
pub(super) fn fuzz(message: &Message<'_>, table: &TableId) -> usize {
    let body = message.payload().get(FIXED..).unwrap_or_default();
    let comments = super::super::attribute::attributes(body).flatten().filter_map(|(_, value)| comment(value)).count();
    let rule = read(message, table, "vxlan").ok().flatten();
    comments + rule.map_or(0, |rule| rule.exprs.len()) + usize::from(concerns(message, &BTreeSet::new()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_found_behind_what_else_was_written_and_lengths_that_lie_are_refused() {
        assert_eq!(comment(&[1, 2, 9, 9, 0, 3, b'a', b'b', 0]).as_deref(), Some("ab"));
        assert_eq!(comment(&[0, 200, b'a']), None);
        assert_eq!(comment(&[]), None);
    }
}
