//! What flanneld left: its tables in nf_tables, its chains in what iptables holds, of either kind. Only what speaks of our network.

use lease::{Family, Subnet};

use super::super::TableId;
use super::super::door::Door;
use super::super::expr::{Expr, JUMP};
use super::super::family::{self, facts};
use super::super::net::{Side, within};
use super::legacy::Saved;
use super::native::{del_chain, del_rule, rules_of, speaks_of};
use super::xtables;
use crate::kernel::KernelError;

/// flanneld's chains in iptables' tables, and the chains that lead to them.
const CHAINS: [(&str, &str, &str); 2] = [("nat", "FLANNEL-POSTRTG", "POSTROUTING"), ("filter", "FLANNEL-FWD", "FORWARD")];

/// Takes away what flanneld left for this network. Says what that was, and what could not be taken away.
pub(in crate::filter) async fn remove(network: Subnet) -> Result<(Vec<String>, Option<String>), KernelError> {
    let family = family::of(network);
    let mut done = Vec::new();
    let mut door = Door::open()?;
    // flanneld makes a table of each family and leaves that of the family without a network empty.
    for (of, unused) in [(family, false), (family.pick(Family::V6, Family::V4), true)] {
        let own = TableId::of(of, facts(of).flannel_table.to_owned());
        let theirs = if unused { is_empty(&door, &own).await? } else { own_table_speaks_of(&door, &own, network).await? };
        if theirs {
            door.remove(&own).await?.map_err(|refusal| refusal.into_error("delete flanneld's table"))?;
            done.push(format!("table {own}"));
        }
    }
    for (table, chain, from) in CHAINS {
        let table = TableId::of(family, table.to_owned());
        if !has_chain(&table, chain).await? {
            continue;
        }
        let rules = rules_of(&table, chain).await?;
        let condition = within(Side::Source, network, true);
        if !rules.is_empty() && !rules.iter().any(|rule| speaks_of(&rule.exprs, &condition)) {
            continue;
        }
        let leads = |expr: &Expr| matches!(expr, Expr::Verdict { code: JUMP, chain: Some(to) } if to == chain);
        let jumps = rules_of(&table, from).await?.into_iter().filter(|rule| rule.exprs.iter().any(leads));
        let mut requests: Vec<_> = jumps.map(|rule| del_rule(&table, from, rule.handle)).collect();
        requests.extend(del_chain(&table, chain));
        door.change(&requests).await?.map_err(|refusal| refusal.into_error("delete flanneld's chain"))?;
        done.push(format!("chain {table} {chain}"));
    }
    let failed = remove_legacy(network, &mut done).await.err();
    Ok((done, failed))
}

async fn remove_legacy(network: Subnet, done: &mut Vec<String>) -> Result<(), String> {
    let family = family::of(network);
    let there = xtables::tables(family).map_err(|error| format!("cannot tell whether flanneld left rules to iptables-legacy: {error}"))?;
    for (table, chain, _) in CHAINS {
        if there.iter().any(|name| name == table) {
            let saved = xtables::save(family, table).await.map_err(|error| error.to_string())?;
            if let Some(text) = Saved::read(&saved).without_flanneld(table, chain, network) {
                xtables::restore(family, &text).await.map_err(|error| error.to_string())?;
                done.push(format!("iptables-legacy {table} {chain}"));
            }
        }
    }
    Ok(())
}

/// Whether flanneld's rules for this network are in force: those by which it masquerades, or, where it does not, those that it forwards by.
///
/// # Errors
/// [`KernelError`] when nf_tables cannot be spoken to.
pub async fn flanneld_filters(network: Subnet) -> Result<bool, KernelError> {
    let family = family::of(network);
    let condition = within(Side::Source, network, true);
    let own = TableId::of(family, facts(family).flannel_table.to_owned());
    if own_table_speaks_of(&Door::open()?, &own, network).await? {
        return Ok(true);
    }
    for (table, chain, _) in CHAINS {
        let rules = rules_of(&TableId::of(family, table.to_owned()), chain).await?;
        if rules.iter().any(|rule| speaks_of(&rule.exprs, &condition)) {
            return Ok(true);
        }
        let there = xtables::tables(family).unwrap_or_default();
        if there.iter().any(|name| name == table)
            && let Ok(saved) = xtables::save(family, table).await
            && Saved::read(&saved).speaks_of(chain, network)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn own_table_speaks_of(door: &Door, table: &TableId, network: Subnet) -> Result<bool, KernelError> {
    let condition = within(Side::Source, network, true);
    let seen = door.look(table, false).await?;
    Ok(seen.frame.rules.values().flatten().any(|rule| speaks_of(rule, &condition)))
}

/// Whether the table is there, and has no rule.
async fn is_empty(door: &Door, table: &TableId) -> Result<bool, KernelError> {
    let seen = door.look(table, false).await?;
    Ok(seen.there && seen.frame.rules.values().all(Vec::is_empty))
}

async fn has_chain(table: &TableId, chain: &str) -> Result<bool, KernelError> {
    Ok(Door::open()?.look(table, false).await?.frame.chains.contains_key(chain))
}
