//! Changes of a table, as messages and as the nft commands that do the same.

use std::fmt;

use super::TableId;
use super::frame::Frame;
use super::message::{DELSETELEM, NEWSETELEM, Request, elements, replace};
use super::pass::{Pass, set_name};

/// A change of a table. Prints as the nft command that does the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FilterOp {
    /// Makes the table anew with these elements.
    Replace(Frame, Vec<Pass>),
    /// Puts elements.
    Put(Vec<Pass>),
    /// Deletes elements.
    Del(Vec<Pass>),
}

impl FilterOp {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Put(passes) | Self::Del(passes) if passes.is_empty())
    }

    pub(super) fn requests(&self, table: &TableId) -> Vec<Request> {
        match self {
            Self::Replace(frame, passes) => replace(table, frame, passes),
            Self::Put(passes) => elements(NEWSETELEM, table, passes),
            Self::Del(passes) => elements(DELSETELEM, table, passes),
        }
    }

    pub(super) fn on<'a>(&'a self, table: &'a TableId) -> impl fmt::Display + 'a {
        fmt::from_fn(move |out| match self {
            Self::Replace(frame, passes) => write!(out, "nft -f - # table {table} {{ {frame}}}, {} elements", passes.len()),
            Self::Put(passes) => write_elements(out, "add", table, passes),
            Self::Del(passes) => write_elements(out, "delete", table, passes),
        })
    }
}

fn write_elements(out: &mut fmt::Formatter<'_>, verb: &str, table: &TableId, passes: &[Pass]) -> fmt::Result {
    for (nth, of_set) in passes.chunk_by(|a, b| a.len == b.len).enumerate() {
        let set = of_set.first().map_or_else(String::new, |pass| set_name(pass.len));
        write!(out, "{}nft {verb} element {table} {set} {{ ", if nth > 0 { "; " } else { "" })?;
        for (nth, pass) in of_set.iter().enumerate() {
            write!(out, "{}{pass}", if nth > 0 { ", " } else { "" })?;
        }
        out.write_str(" }")?;
    }
    Ok(())
}
