//! Locks between processes: one at a time prepares the cache, and one at a time uses a state folder.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Doing, Error};
use crate::process::{POLL_INTERVAL, Process};
use crate::progress::{Progress, Step};

/// A lock on a file. It lasts until it is dropped or the process ends. The file holds the pid of the holder.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// The texts of the step that people see while a lock is awaited.
pub(crate) struct Waiting<'w> {
    /// Makes the name of the step from the description of the holder.
    pub step: &'w dyn Fn(&str) -> String,
    /// The outcome of the step, once the lock is free.
    pub done: &'w str,
}

impl Lock {
    /// Takes the lock `name` of the folder `dir`.
    ///
    /// Fails with [`Error::StateInUse`], which names the holder, if the lock isn't free within `limit`.
    pub fn take(
        dir: &Path,
        name: &str,
        limit: Duration,
        waiting: &Waiting<'_>,
        progress: &dyn Progress,
    ) -> Result<Lock, Error> {
        let path = dir.join(name);
        let deadline = Instant::now() + limit;
        let mut step = None;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .doing("open", &path)?;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(fault) => return Err(fault).doing("lock", &path),
            }
            let holder = holder(&path);
            if Instant::now() >= deadline {
                return Err(Error::StateInUse { state: dir.to_owned(), holder });
            }
            step.get_or_insert_with(|| {
                let holder = holder.map_or_else(|| "another process".to_owned(), |it| it.to_string());
                Step::begin(progress, (waiting.step)(&holder))
            });
            std::thread::sleep(POLL_INTERVAL);
        }
        if let Some(step) = step {
            step.done(waiting.done);
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).doing("write", &path)?;
        Ok(Lock { _file: file })
    }
}

fn holder(path: &Path) -> Option<Process> {
    fs::read_to_string(path).ok().and_then(|pid| pid.trim().parse().ok()).map(Process::of)
}
