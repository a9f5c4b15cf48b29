//! One running server: a child process, or a container whose `docker run` is the child.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, setpriority_process};

use crate::docker::Container;
use crate::error::{Doing, Error, LogTail};
use crate::process::POLL_INTERVAL;
use crate::spawn::spawn_bound;

/// Makes the command that starts the server. Each start needs a new one.
pub(crate) type Launch = Box<dyn Fn() -> Command + Send + Sync>;

/// The place where a server runs and keeps its data.
pub(crate) enum Place {
    /// A child process of this one, on the data in this folder.
    Folder(PathBuf),
    /// A container, on the data in its volume.
    Container(Container),
}

/// A server that can be started and stopped again and again.
pub(crate) struct Instance {
    /// The server's name in messages.
    pub name: &'static str,
    /// The file that the server's output goes to.
    pub log: PathBuf,
    place: Place,
    launch: Launch,
    /// Asks the server for an orderly end.
    stop_signal: Signal,
    child: Mutex<Option<Child>>,
    /// The time of the first request to stop since the last start. All waiting for the end counts from there.
    stop_requested: Mutex<Option<Instant>>,
}

impl Instance {
    /// Describes a server. Nothing runs before [`Instance::start`].
    pub fn new(
        name: &'static str,
        stop_signal: Signal,
        log: PathBuf,
        place: Place,
        launch: Launch,
    ) -> Instance {
        Instance {
            name,
            log,
            place,
            launch,
            stop_signal,
            child: Mutex::default(),
            stop_requested: Mutex::default(),
        }
    }

    /// Returns the data folder, unless the server runs in a container.
    pub fn folder(&self) -> Option<&Path> {
        match &self.place {
            Place::Folder(folder) => Some(folder),
            Place::Container(_) => None,
        }
    }

    fn container(&self) -> Option<&Container> {
        match &self.place {
            Place::Folder(_) => None,
            Place::Container(container) => Some(container),
        }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop_requested(&self) -> MutexGuard<'_, Option<Instant>> {
        self.stop_requested.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the server. Returns before it is ready.
    pub fn start(&self) -> Result<(), Error> {
        if let Some(container) = self.container() {
            container.remove();
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log).doing("open", &self.log)?;
        let copy = log.try_clone().doing("open", &self.log)?;
        let mut command = (self.launch)();
        command.stdin(Stdio::null()).stdout(log).stderr(copy);
        let program = PathBuf::from(command.get_program());
        let child = spawn_bound(command, self.stop_signal).doing("run", &program)?;
        *self.child() = Some(child);
        *self.stop_requested() = None;
        Ok(())
    }

    /// Returns the exit status of the server, or `None` while it runs.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child().as_mut()?.try_wait().ok()?
    }

    /// Returns the child's process id, while it runs.
    fn running(&self) -> Option<u32> {
        let mut child = self.child();
        let child = child.as_mut()?;
        matches!(child.try_wait(), Ok(None)).then(|| child.id())
    }

    /// Returns the server's process id on this machine, while it runs.
    pub fn pid(&self) -> Option<u32> {
        let child = self.running()?;
        self.container().map_or(Some(child), Container::pid)
    }

    /// Sends `signal` to the server. Does nothing if the server has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        if let Some(container) = self.container() {
            container.signal(signal);
            return Ok(());
        }
        let mut child = self.child();
        let Some(child) = child.as_mut() else {
            return Ok(());
        };
        // Once the child has been waited for, the kernel may give its id to another process.
        if child.try_wait().doing("look after", Path::new(self.name))?.is_some() {
            return Ok(());
        }
        let pid = Pid::from_raw(child.id().cast_signed());
        pid.map_or(Ok(()), |pid| kill_process(pid, signal).doing("signal", Path::new(self.name)))
    }

    /// Lets other processes go first, by the kernel's measure from -20 to 19. It must be called right after the start,
    /// because threads that exist keep their priority.
    pub fn lower_priority(&self, nice: i32) {
        let pid = self.running().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        // It would only run with the priority of the others.
        let _ = pid.map(|pid| setpriority_process(Some(pid), nice));
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

    /// Asks for an orderly end, once. [`Instance::await_end`] waits for it.
    pub fn request_stop(&self) {
        if self.stop_requested().is_some() || self.running().is_none() {
            return;
        }
        *self.stop_requested() = Some(Instant::now());
        // A frozen process gets the request only when it is continued.
        let _ = self.signal(Signal::CONT);
        let _ = self.signal(self.stop_signal);
    }

    /// Waits for the end. Kills the server if it still runs `limit` after the request to stop.
    pub fn await_end(&self, limit: Duration) {
        let deadline = self.stop_requested().unwrap_or_else(Instant::now) + limit;
        while self.running().is_some() && Instant::now() < deadline {
            thread::sleep(POLL_INTERVAL);
        }
        if let Err(fault) = self.kill9() {
            tracing::warn!(server = self.name, error = %fault, "could not be ended");
        }
        if let Some(container) = self.container() {
            container.remove();
        }
    }

    /// Returns the end of the log, for error messages.
    pub fn log_tail(&self) -> LogTail {
        LogTail::of(&self.log, |_| true)
    }
}
