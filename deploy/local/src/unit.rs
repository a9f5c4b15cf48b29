//! One running server: a child process, or a container whose `docker run` is the child.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::docker::Container;
use crate::error::{Doing, Error, LogTail};
use crate::files::POLL;
use crate::ports::{Process, pids};
use crate::spawn::spawn_bound;

/// Makes the command that starts the server, anew for each start.
pub(crate) type Launch = Box<dyn Fn() -> Command + Send + Sync>;

pub(crate) struct Unit {
    pub name: &'static str,
    pub launch: Launch,
    /// Asks for an orderly end.
    pub stop: Signal,
    /// Where its output goes.
    pub log: PathBuf,
    /// Its working folder, by which a process left over from an earlier run is known.
    pub dir: PathBuf,
    pub container: Option<Container>,
    pub child: Mutex<Option<Child>>,
    /// When it was first asked to stop; all waiting for its end counts from there.
    pub asked: Mutex<Option<Instant>>,
}

impl Unit {
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn start(&self) -> Result<(), Error> {
        if let Some(container) = &self.container {
            container.remove();
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log).doing("open", &self.log)?;
        let copy = log.try_clone().doing("open", &self.log)?;
        let mut command = (self.launch)();
        command.stdin(Stdio::null()).stdout(log).stderr(copy);
        let program = PathBuf::from(command.get_program());
        let child = spawn_bound(command, self.stop).doing("run", &program)?;
        *self.child() = Some(child);
        *self.asked() = None;
        Ok(())
    }

    /// How the server ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child().as_mut()?.try_wait().ok()?
    }

    fn asked(&self) -> MutexGuard<'_, Option<Instant>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The child's process id, while it runs.
    fn running(&self) -> Option<u32> {
        let mut child = self.child();
        let child = child.as_mut()?;
        matches!(child.try_wait(), Ok(None)).then(|| child.id())
    }

    /// The server's process id on this machine, while it runs.
    pub fn pid(&self) -> Option<u32> {
        let child = self.running()?;
        self.container.as_ref().map_or(Some(child), Container::pid)
    }

    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        if let Some(container) = &self.container {
            return container.signal(signal);
        }
        let mut child = self.child();
        let Some(child) = child.as_mut() else {
            return Ok(());
        };
        // Once it was waited for, its id may belong to a stranger.
        if child.try_wait().doing("look after", Path::new(self.name))?.is_some() {
            return Ok(());
        }
        let pid = Pid::from_raw(child.id().cast_signed());
        pid.map_or(Ok(()), |pid| kill_process(pid, signal).doing("signal", Path::new(self.name)))
    }

    /// Ends the server at once, as a crash would, and waits until it is gone.
    pub fn kill9(&self) -> Result<(), Error> {
        if self.running().is_some() {
            self.signal(Signal::KILL)?;
        }
        if let Some(mut child) = self.child().take() {
            child.wait().doing("wait for", Path::new(self.name))?;
        }
        Ok(())
    }

    /// Asks for an orderly end, once; `finish` waits for it.
    pub fn ask_to_stop(&self) {
        if self.asked().is_some() || self.running().is_none() {
            return;
        }
        *self.asked() = Some(Instant::now());
        // A frozen process would only hear the request when it is continued.
        let _ = self.signal(Signal::CONT);
        let _ = self.signal(self.stop);
    }

    /// Waits for the end that was asked for, and makes it happen when it is `patience` since.
    pub fn finish(&self, patience: Duration) {
        let deadline = self.asked().unwrap_or_else(Instant::now) + patience;
        while self.running().is_some() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        if let Err(fault) = self.kill9() {
            tracing::warn!(server = self.name, error = %fault, "could not be ended");
        }
        if let Some(container) = &self.container {
            container.remove();
        }
    }

    pub fn log_tail(&self) -> LogTail {
        LogTail::of(&self.log, |_| true)
    }
}

/// Waits until no server works in `dir` any more: a run that was killed leaves servers that are still
/// shutting down. The caller holds the folder's lock, so what is there has lost its parent.
pub(crate) fn await_vacant(server: &'static str, dir: &Path) -> Result<(), Error> {
    const POLITE: Duration = Duration::from_secs(6);
    const GIVEN_UP: Duration = Duration::from_secs(10);
    let begun = Instant::now();
    let mut continued = false;
    while let Some(orphan) = working_in(dir) {
        let send = |signal| Pid::from_raw(orphan.cast_signed()).map(|pid| kill_process(pid, signal));
        if begun.elapsed() >= GIVEN_UP {
            return Err(Error::StillRunning { server, dir: dir.to_owned(), holder: Process::of(orphan) });
        }
        if begun.elapsed() >= POLITE {
            send(Signal::KILL);
        } else if !std::mem::replace(&mut continued, true) {
            // If it was frozen when its parent died, it waits for this before it hears its death signal.
            send(Signal::CONT);
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// A server's process that works in `dir`. Somebody's shell may stand there, too, and is left alone.
fn working_in(dir: &Path) -> Option<u32> {
    let dir = dir.canonicalize().ok()?;
    pids().find(|pid| {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir)
            && fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| matches!(name.trim(), "postgres" | "java"))
    })
}

/// Begins a new log, keeping the one of the run before.
pub(crate) fn turn_log(log: &Path) -> Result<(), Error> {
    if log.exists() {
        fs::rename(log, log.with_extension("log.1")).doing("rename", log)?;
    }
    File::create(log).map(drop).doing("create", log)
}
