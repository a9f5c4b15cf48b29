//! `amends generate`: the documents that are made from the code. A test runs it with `--check`.

mod documents;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::output::say;

/// Writes the generated documents.
#[derive(Debug, clap::Args)]
pub struct Generate {
    /// Only say what differs.
    #[arg(long)]
    check: bool,
    /// The project's folder.
    #[arg(long, default_value = ".")]
    root: PathBuf,
}

impl Generate {
    pub fn run(self) -> anyhow::Result<()> {
        let mut differing = Vec::new();
        for (path, text) in documents::all(&self.root)? {
            let file = self.root.join(&path);
            if fs::read_to_string(&file).is_ok_and(|now| now == text) {
                continue;
            }
            if !self.check {
                if let Some(folder) = file.parent() {
                    fs::create_dir_all(folder)?;
                }
                fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))?;
            }
            differing.push(path);
        }
        if self.check && !differing.is_empty() {
            bail!(
                "these differ from the code; write them with `cargo run -- generate`:\n  {}",
                differing.join("\n  ")
            );
        }
        say!("{} documents written", differing.len());
        Ok(())
    }
}
