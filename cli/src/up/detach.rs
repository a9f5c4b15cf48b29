//! `amends up --detach`: the same in a process of its own.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::up_log;
use crate::output::say;
use crate::run::{Run, Where};

/// Starts the suite in the background and returns when it is ready.
pub fn start(place: &Where, state: &Path, fresh: bool) -> anyhow::Result<()> {
    fs::create_dir_all(state).with_context(|| format!("can't create {}", state.display()))?;
    let path = up_log(state);
    let log = File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("up").arg("--ports-from").arg(place.suite.ports_from.to_string()).arg("--state").arg(state);
    if fresh {
        command.arg("--fresh");
    }
    // A group of its own: Ctrl-C in this terminal is not meant for it.
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let mut child = command.spawn().context("the suite could not be started in the background")?;
    loop {
        let said = || fs::read_to_string(&path).unwrap_or_default();
        if let Some(ended) = child.try_wait()? {
            bail!("the suite ended while starting ({ended}):\n{}", said().trim_end());
        }
        if Run::find(state).is_some_and(|run| run.ready && run.pid == child.id().cast_signed()) {
            say!(
                "{}",
                said().replace("Ctrl-C stops everything.", "`amends down` stops everything.").trim_end()
            );
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
