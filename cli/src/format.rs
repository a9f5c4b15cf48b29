//! How a command prints what it was told: text for people, JSON for programs, or the id alone for scripts.

use std::io::IsTerminal;

use clap::Args;
use serde_json::Value;

use crate::json::text_of;
use crate::output::{print_json, say};

/// How to print an answer.
#[derive(Debug, Clone, Copy, Args)]
pub struct Format {
    /// Print the JSON answer of the service. It is the default if the output is not a terminal.
    #[arg(long)]
    json: bool,
    /// Print text for people, also if the output is not a terminal.
    #[arg(long, conflicts_with = "json")]
    text: bool,
    /// Print the id alone.
    #[arg(long, short, conflicts_with_all = ["json", "text"])]
    quiet: bool,
}

impl Format {
    /// Prints an answer that has an id. `text` prints it for people.
    pub fn print(self, answer: &Value, text: impl FnOnce(&Value)) -> anyhow::Result<()> {
        if self.quiet {
            say!("{}", text_of(answer, "id"));
        } else if self.text || (!self.json && std::io::stdout().is_terminal()) {
            text(answer);
        } else {
            print_json(answer)?;
        }
        Ok(())
    }
}
