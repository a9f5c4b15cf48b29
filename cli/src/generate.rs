//! `amends generate`: the documents that are generated from the code. A test runs it with `--check`.

mod configuration;
mod documents;
mod metrics;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::output::say;

/// The folders in which every file is generated.
const GENERATED_FOLDERS: [&str; 2] = ["schemas/json", "schemas/openapi"];

/// Writes the generated documents.
#[derive(Debug, clap::Args)]
pub struct Generate {
    /// Write nothing, and fail if a file differs from the code.
    #[arg(long)]
    check: bool,
    /// The project's folder.
    #[arg(long, default_value = ".")]
    root: PathBuf,
}

impl Generate {
    pub fn run(self) -> anyhow::Result<()> {
        let documents = documents::all()?;
        let mut differing = Vec::new();
        for (path, text) in &documents {
            let file = self.root.join(path);
            if fs::read_to_string(&file).is_ok_and(|now| now == *text) {
                continue;
            }
            if !self.check {
                if let Some(folder) = file.parent() {
                    fs::create_dir_all(folder)
                        .with_context(|| format!("can't create {}", folder.display()))?;
                }
                fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))?;
            }
            differing.push(path.as_str());
        }
        let known = documents.iter().map(|(path, _)| path.as_str()).collect();
        let orphans = orphans(&self.root, &known)?;
        if self.check {
            return check(&differing, &orphans);
        }
        for orphan in &orphans {
            let file = self.root.join(orphan);
            fs::remove_file(&file).with_context(|| format!("can't delete {}", file.display()))?;
        }
        say!("{} documents written, {} deleted", differing.len(), orphans.len());
        Ok(())
    }
}

fn check(differing: &[&str], orphans: &[String]) -> anyhow::Result<()> {
    let mut wrong: Vec<String> =
        differing.iter().map(|path| format!("{path} differs from the code")).collect();
    wrong.extend(orphans.iter().map(|path| format!("{path} comes from no type any more")));
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("the documents are not those of the code; run `cargo run -- generate`:\n  {}", wrong.join("\n  "));
}

/// Returns the files in the generated folders that are not among the generated documents.
fn orphans(root: &Path, known: &BTreeSet<&str>) -> anyhow::Result<Vec<String>> {
    let mut orphans = Vec::new();
    for folder in GENERATED_FOLDERS {
        let path = root.join(folder);
        if !path.exists() {
            continue;
        }
        let files = fs::read_dir(&path).with_context(|| format!("can't read {}", path.display()))?;
        for file in files {
            let name = file.with_context(|| format!("can't read {}", path.display()))?.file_name();
            let file = format!("{folder}/{}", name.to_string_lossy());
            if !known.contains(file.as_str()) {
                orphans.push(file);
            }
        }
    }
    orphans.sort_unstable();
    Ok(orphans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_source_is_an_error_and_is_deleted() {
        let root = std::env::temp_dir().join(format!("amends-generate-{}", std::process::id()));
        let run = |check| Generate { check, root: root.clone() }.run();
        run(false).expect("the documents");
        run(true).expect("no difference");
        let orphan = root.join("schemas/json/order.forgotten.v1.json");
        fs::write(&orphan, "{}").expect("a file");
        let error = run(true).expect_err("an orphan").to_string();
        assert!(error.contains("schemas/json/order.forgotten.v1.json comes from no type"), "{error}");
        run(false).expect("the documents");
        assert!(!orphan.exists());
        fs::write(root.join("docs/metrics.md"), "").expect("a file");
        let error = run(true).expect_err("a difference").to_string();
        assert!(error.contains("docs/metrics.md differs"), "{error}");
        fs::remove_dir_all(&root).expect("the folder");
    }
}
