//! The process of the program under test.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use local::{Signal, spawn_bound};

use super::app::SERVER;

/// The running program. It is killed when this is dropped.
pub struct Program {
    child: Child,
    /// Where orders are posted.
    pub url: String,
    log: PathBuf,
}

impl Program {
    /// Starts the program. What it complains about goes into a file in this folder.
    pub fn start(folder: &Path, server: &str) -> anyhow::Result<Self> {
        let log = folder.join("baseline.log");
        let file = fs::create_dir_all(folder).and_then(|()| File::create(&log));
        let file = file.with_context(|| format!("can't write {}", log.display()))?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["bench", "baseline-app"])
            .env(SERVER, server)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file);
        let child =
            spawn_bound(command, Signal::KILL).context("the yardstick's program could not be started")?;
        let mut program = Self { child, url: String::new(), log };
        let mut address = String::new();
        let said = program.child.stdout.take().context("the program has no standard output")?;
        // It says its address, or it ends.
        BufReader::new(said).read_line(&mut address)?;
        if address.is_empty() {
            bail!("the yardstick's program ended at once: {}", program.complaints());
        }
        program.url = format!("http://{}/orders", address.trim_end());
        Ok(program)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the first lines of what the program has complained about.
    pub fn complaints(&self) -> String {
        const MOST: usize = 5;
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().take(MOST).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
