//! Printing. It is not an error if the reader has gone, as in `amends order list | head`.
//!
//! What is printed may contain text from strangers, such as a record's key or an operator's reason. So whatever a terminal
//! would obey is escaped here, and nothing is printed in another way.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;
use shared::text;

/// Prints one line on standard output. A line feed in it is escaped.
macro_rules! say {
    ($($part:tt)*) => { crate::output::print_line(format_args!($($part)*)) };
}

/// Prints our own text on standard error. It may have several lines; text from strangers in it is made one line before.
macro_rules! complain {
    ($($part:tt)*) => { crate::output::print_error(format_args!($($part)*)) };
}

pub(crate) use {complain, say};

pub fn print_line(said: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{}", text::line(&said.to_string()));
}

pub fn print_error(said: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{}", text::lines(&said.to_string()));
}

/// Prints a value as JSON on standard output.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(value)?;
    let _ = writeln!(io::stdout(), "{}", text::lines(&json));
    Ok(())
}

/// Joins texts to indented lines of an error. Each text is one line, whatever is in it.
pub fn indented<'t>(texts: impl IntoIterator<Item = &'t String>) -> String {
    texts.into_iter().map(|said| format!("\n  {}", text::line(said))).collect()
}
