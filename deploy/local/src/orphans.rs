//! Servers of an earlier run that was killed: they are still shutting down, or frozen.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::Error;
use crate::process::{POLL_INTERVAL, Process, pids};

/// Waits until no server works in `dir` any more. After 6 seconds it kills the server that does.
///
/// The caller holds the lock of the folder's state, so the run that started such a server is gone. Fails with
/// [`Error::StillRunning`] after 10 seconds.
pub(crate) fn await_vacant(server: &'static str, dir: &Path) -> Result<(), Error> {
    const KILL_AFTER: Duration = Duration::from_secs(6);
    const FAIL_AFTER: Duration = Duration::from_secs(10);
    let begun = Instant::now();
    let mut continued = false;
    while let Some(orphan) = working_in(dir) {
        let send = |signal| Pid::from_raw(orphan.cast_signed()).map(|pid| kill_process(pid, signal));
        if begun.elapsed() >= FAIL_AFTER {
            return Err(Error::StillRunning { server, dir: dir.to_owned(), holder: Process::of(orphan) });
        }
        if begun.elapsed() >= KILL_AFTER {
            send(Signal::KILL);
        } else if !std::mem::replace(&mut continued, true) {
            // If it was frozen when its parent died, it gets the signal of that death only when it is continued.
            send(Signal::CONT);
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// Returns a server's process that works in `dir`. A user's shell may work there, too, and must be left alone.
fn working_in(dir: &Path) -> Option<u32> {
    let dir = dir.canonicalize().ok()?;
    pids().find(|pid| {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir)
            && fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| matches!(name.trim(), "postgres" | "java"))
    })
}
