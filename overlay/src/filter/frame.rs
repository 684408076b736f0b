//! A table less its elements: its chains, its sets, its rules. What is wanted, and what is there, are values of one type.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::expr::{ACCEPT, DROP, Expr, FULLY_RANDOM, GOTO, JUMP, L4PROTO, MARK, NETWORK, RETURN, TRANSPORT};

/// Hooks (include/uapi/linux/netfilter.h, v6.18): `NF_INET_PRE_ROUTING` and so on.
pub(super) const PREROUTING: u32 = 0;
pub(super) const INPUT: u32 = 1;
pub(super) const FORWARD: u32 = 2;
pub(super) const OUTPUT: u32 = 3;
pub(super) const POSTROUTING: u32 = 4;

/// Priorities (include/uapi/linux/netfilter_ipv4.h, v6.18): `NF_IP_PRI_RAW`, before connection tracking and what others decide by;
/// `NF_IP_PRI_FILTER`; `NF_IP_PRI_NAT_SRC`.
pub(super) const RAW: i32 = -300;
pub(super) const FILTER: i32 = 0;
pub(super) const SRCNAT: i32 = 100;

/// Policies: `NF_DROP`, `NF_ACCEPT`.
pub(super) const POLICY_DROP: u32 = 0;
pub(super) const POLICY_ACCEPT: u32 = 1;

/// A table less its elements.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Frame {
    /// The table's flags; 1 is dormant.
    pub(super) flags: u32,
    pub(super) chains: BTreeMap<String, Chain>,
    pub(super) sets: BTreeMap<String, Set>,
    /// By chain.
    pub(super) rules: BTreeMap<String, Vec<Vec<Expr>>>,
}

/// A chain: where it hangs, unless it is only jumped to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Chain {
    pub(super) base: Option<Base>,
}

/// Where a chain hangs, and of which type it is: "filter" or "nat".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) kind: String,
    pub(super) hook: u32,
    pub(super) priority: i32,
    pub(super) policy: u32,
}

/// A set: its key, and no more than that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) flags: u32,
    pub(super) key_type: u32,
    pub(super) key_len: u32,
}

impl Base {
    /// One that lets through what its rules do not stop.
    pub(super) fn accepting(kind: &str, hook: u32, priority: i32) -> Self {
        Self { kind: kind.to_owned(), hook, priority, policy: POLICY_ACCEPT }
    }
}

impl Frame {
    /// With this chain and its rules.
    pub(super) fn with(mut self, name: &str, base: Option<Base>, rules: Vec<Vec<Expr>>) -> Self {
        self.chains.insert(name.to_owned(), Chain { base });
        self.rules.insert(name.to_owned(), rules);
        self
    }
}

/// Prints as nft takes it: bytes of a packet by their place.
impl fmt::Display for Frame {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flags: _, chains, sets, rules } = self;
        for (name, Set { flags: _, key_type, key_len }) in sets {
            write!(out, "set {name} {{ key {key_type}, {key_len} bytes; }} ")?;
        }
        for (name, Chain { base }) in chains {
            write!(out, "chain {name} {{ ")?;
            if let Some(Base { kind, hook, priority, policy }) = base {
                let hook = ["prerouting", "input", "forward", "output", "postrouting"].get(usize::try_from(*hook).unwrap_or(usize::MAX));
                let policy = if *policy == POLICY_DROP { "drop" } else { "accept" };
                write!(out, "type {kind} hook {} priority {priority}; policy {policy}; ", hook.unwrap_or(&"?"))?;
            }
            for rule in rules.get(name).into_iter().flatten() {
                write_rule(out, rule)?;
            }
            out.write_str("} ")?;
        }
        Ok(())
    }
}

fn write_rule(out: &mut fmt::Formatter<'_>, rule: &[Expr]) -> fmt::Result {
    for expr in rule {
        write_expr(out, expr)?;
    }
    out.write_str("; ")
}

fn write_expr(out: &mut fmt::Formatter<'_>, expr: &Expr) -> fmt::Result {
    match expr {
        Expr::Meta { key: MARK } => out.write_str("meta mark "),
        Expr::Meta { key: L4PROTO } => out.write_str("meta l4proto "),
        Expr::Meta { key } => write!(out, "meta {key} "),
        Expr::Payload { register: _, base, offset, len } => {
            let base = match *base {
                NETWORK => "nh",
                TRANSPORT => "th",
                _ => "ih",
            };
            write!(out, "@{base},{},{} ", offset * 8, len * 8)
        }
        Expr::Compare { equal, value } => write!(out, "{}{} ", if *equal { "" } else { "!= " }, hex(value)),
        Expr::Mask { register: _, mask } => write!(out, "& {} ", hex(mask)),
        Expr::Lookup { set } => write!(out, "@{set} "),
        Expr::Counter => out.write_str("counter "),
        Expr::Masquerade { flags: FULLY_RANDOM } => out.write_str("masquerade fully-random"),
        Expr::Masquerade { .. } => out.write_str("masquerade"),
        Expr::Notrack => out.write_str("notrack"),
        Expr::Verdict { code, chain } => {
            let chain = chain.as_deref().unwrap_or_default();
            match *code {
                JUMP => write!(out, "jump {chain}"),
                GOTO => write!(out, "goto {chain}"),
                DROP => out.write_str("drop"),
                ACCEPT => out.write_str("accept"),
                RETURN => out.write_str("return"),
                other => write!(out, "verdict {other}"),
            }
        }
        Expr::Other(name) => write!(out, "{name} … "),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = "0x".to_owned();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
