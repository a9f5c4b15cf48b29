//! `amends up --detach`: runs `amends up` as a process in the background.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{Signals, up_log};
use crate::run::{Run, Where};

/// Starts the suite in the background, shows how it comes up, and returns when it is ready.
pub(super) fn start(place: &Where, state: &Path, fresh: bool, signals: &Signals) -> anyhow::Result<()> {
    fs::create_dir_all(state).with_context(|| format!("can't create {}", state.display()))?;
    let path = up_log(state);
    let log = File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
    let mut command = Command::new(std::env::current_exe().context("the path of this program is not known")?);
    command.arg("up").arg("--ports-from").arg(place.suite.ports_from.to_string()).arg("--state").arg(state);
    if fresh {
        command.arg("--fresh");
    }
    // A process group of its own, so that Ctrl-C in this terminal does not reach it.
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let mut child = command.spawn().context("the suite could not be started in the background")?;
    signals.stop_in_order.store(true, Ordering::Release);
    let mut said = File::open(&path).with_context(|| format!("can't read {}", path.display()))?;
    loop {
        let ended = child.try_wait()?;
        let ready = Run::find(state).is_some_and(|run| run.ready && run.pid == child.id().cast_signed());
        // Read after the checks above, so that no output from before them is left out.
        pass_on(&mut said, place)?;
        if let Some(ended) = ended {
            bail!("the suite ended while starting ({ended})");
        }
        if ready {
            return Ok(());
        }
        if signals.told_to_stop.load(Ordering::Acquire) {
            return stop(&mut child);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Prints the suite's output since the last call.
fn pass_on(said: &mut File, place: &Where) -> anyhow::Result<()> {
    let mut text = String::new();
    said.read_to_string(&mut text)?;
    let text = text.replace(super::CTRL_C, &format!("`amends down{}` stops everything.", place.flags()));
    // Scripts read the welcome from standard output; the progress must not be in it.
    let (progress, welcome) = text.split_at(text.find("\nAmends is ready").unwrap_or(text.len()));
    std::io::stderr().write_all(progress.as_bytes())?;
    std::io::stdout().write_all(welcome.as_bytes())?;
    Ok(())
}

/// Stops a suite whose start was interrupted.
fn stop(child: &mut Child) -> anyhow::Result<()> {
    if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
        kill_process(pid, Signal::TERM)?;
    }
    child.wait()?;
    bail!("stopped while starting")
}
