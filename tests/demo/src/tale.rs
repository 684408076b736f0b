//! How the story is told: steps, tables, figures; in colour on a terminal only.

use std::io::{IsTerminal, stdout};
use std::time::Duration;

use anyhow::Error;

/// The width of a figure's description, so that figures stand under each other and all fits a terminal of 100 columns.
const WIDTH: usize = 40;

/// The narrator, who remembers the figures for the end.
pub(crate) struct Tale {
    colour: bool,
    steps: u32,
    figures: Vec<(String, String)>,
}

#[derive(Clone, Copy)]
enum Ink {
    Bold,
    Dim,
    Green,
    Red,
}

impl Tale {
    pub(crate) fn new() -> Self {
        // https://no-color.org
        let colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, steps: 0, figures: Vec::new() }
    }

    pub(crate) fn title(&self, title: &str, text: &str) {
        println!("{}\n{}", self.ink(Ink::Bold, title), self.ink(Ink::Dim, text));
    }

    /// A new step begins.
    pub(crate) fn step(&mut self, title: &str) {
        self.steps += 1;
        println!("\n{}", self.ink(Ink::Bold, &format!("{}  {title}", self.steps)));
    }

    /// What is being done.
    pub(crate) fn say(&self, text: &str) {
        println!("   {}", self.ink(Ink::Dim, text));
    }

    /// Something was checked and holds.
    pub(crate) fn holds(&self, text: &str) {
        println!("   {} {text}", self.ink(Ink::Green, "✓"));
    }

    /// The same, with a figure that the summary repeats.
    pub(crate) fn figure(&mut self, what: &str, figure: String, more: &str) {
        println!(
            "   {} {} {}  {}",
            self.ink(Ink::Green, "✓"),
            pad(what),
            self.ink(Ink::Bold, &format!("{figure:>9}")),
            self.ink(Ink::Dim, more)
        );
        self.figures.push((what.to_owned(), figure));
    }

    /// Rows under a head, in aligned columns.
    pub(crate) fn table<const N: usize>(&self, head: [&str; N], rows: &[[String; N]]) {
        let head = head.map(str::to_owned);
        let mut widths = [0; N];
        for row in rows.iter().chain([&head]) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let line = |row: &[String; N]| row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  ")).collect::<String>();
        println!("   {}", self.ink(Ink::Dim, line(&head).trim_end()));
        for row in rows {
            println!("   {}", line(row).trim_end());
        }
    }

    /// The end, when all holds.
    pub(crate) fn summary(&self, took: Duration) {
        println!("\n{}", self.ink(Ink::Bold, "In short"));
        for (what, figure) in &self.figures {
            println!("     {} {figure:>9}", pad(what));
        }
        println!("\n{}", self.ink(Ink::Green, &format!("All {} steps hold, in {}. Nothing is left behind.", self.steps, time(took))));
    }

    /// The end, when something does not hold.
    pub(crate) fn failed(&self, error: &Error, logs: &[(String, String)]) {
        println!("   {} step {} does not hold: {error:#}", self.ink(Ink::Red, "✗"), self.steps);
        for (host, log) in logs.iter().filter(|(_, log)| !log.is_empty()) {
            println!("\n   {}", self.ink(Ink::Bold, &format!("The log of the agent on {host} ends:")));
            log.lines().for_each(|line| println!("     {line}"));
        }
    }

    fn ink(&self, ink: Ink, text: &str) -> String {
        // ECMA-48 §8.3.117, select graphic rendition.
        let code = match ink {
            Ink::Bold => 1,
            Ink::Dim => 2,
            Ink::Green => 32,
            Ink::Red => 31,
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn pad(text: &str) -> String {
    format!("{text:WIDTH$}")
}

/// A duration as people read it: three digits at most.
pub(crate) fn time(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    match millis {
        ..0.995 => format!("{:.0} µs", millis * 1000.0),
        ..9.95 => format!("{millis:.1} ms"),
        ..999.5 => format!("{millis:.0} ms"),
        _ => format!("{:.1} s", millis / 1000.0),
    }
}
