//! A server from its start to its end. PostgreSQL and Kafka differ only in what [`Software`] asks of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::cache::Prepared;
use crate::docker::{self, Container};
use crate::error::Error;
use crate::instance::{Instance, Launch, Place};
use crate::lock::Lock;
use crate::options::Options;
use crate::orphans::await_vacant;
use crate::progress::{Progress, Step};
use crate::runtime::Runtime;
use crate::state::Claim;

/// How long an orderly end may take before the server is killed.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// What distinguishes one kind of server from another.
pub(crate) trait Software: Sized + Sync {
    /// The name in messages.
    const NAME: &'static str;
    /// The name of the data folder, and the beginning of the names of all other files in the state folder.
    const FOLDER: &'static str;
    /// The image for containers.
    const IMAGE: &'static str;
    /// The signal that asks for an orderly end.
    const STOP_SIGNAL: Signal;

    /// Takes from the options what concerns this server.
    fn new(options: &Options) -> Self;

    /// Returns the port that clients connect to.
    fn port(&self) -> u16;

    /// Returns all ports that must be free before a start, each with its purpose.
    fn ports(&self) -> Vec<(u16, &'static str)>;

    /// Makes the data folder unless it is there. Returns it, with the command for a child process that works in it.
    fn in_folder(&self, claim: &Claim, prepared: &Prepared) -> Result<(PathBuf, Launch), Error>;

    /// Returns the command that runs the server in `container`.
    fn in_container(&self, container: Container) -> Launch;

    /// Removes files of a killed server that would prevent a start. No server works in `folder`.
    fn remove_leftovers(&self, _folder: &Path) {}

    /// Waits until clients can use the server.
    fn await_ready(&self, instance: &Instance) -> Result<(), Error>;
}

/// A server on 127.0.0.1 that ends with this process, even if `kill -9` ends it.
///
/// `Postgres` and `Kafka` are such servers. Dropping one stops it in order.
pub struct Server<S> {
    software: S,
    instance: Instance,
    _lock: Lock,
}

#[expect(private_bounds, reason = "users name the servers `Postgres` and `Kafka`, and never implement one")]
impl<S: Software> Server<S> {
    /// Starts this server alone and waits until clients can use it. The calling thread blocks.
    ///
    /// A second server of the same kind needs its own state folder and ports.
    pub fn start(options: &Options, progress: &dyn Progress) -> Result<Self, Error> {
        let claim = Self::claim(options, progress)?;
        let runtime = Runtime::choose(options, progress)?;
        Self::launch(claim, &runtime, options, progress)
    }

    /// Takes the server's part of the state folder, and checks that its ports are free.
    pub(crate) fn claim(options: &Options, progress: &dyn Progress) -> Result<Claim, Error> {
        Claim::take(options, S::NAME, S::FOLDER, &S::new(options).ports(), progress)
    }

    pub(crate) fn launch(
        claim: Claim,
        runtime: &Runtime,
        options: &Options,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let software = S::new(options);
        if let Runtime::Docker = runtime {
            docker::pull_if_missing(S::IMAGE, &claim.state, progress)?;
        }
        let step = Step::begin(progress, format!("starting {}", S::NAME));
        let (place, launch) = match runtime {
            Runtime::Native(prepared) => {
                let (folder, launch) = software.in_folder(&claim, prepared)?;
                (Place::Folder(folder), launch)
            }
            Runtime::Docker => {
                claim.container.claim_volume()?;
                let launch = software.in_container(claim.container.clone());
                (Place::Container(claim.container), launch)
            }
        };
        let instance = Instance::new(S::NAME, S::STOP_SIGNAL, claim.log, place, launch);
        let server = Server { software, instance, _lock: claim.lock };
        server.run()?;
        step.done(&format!("{} listens on 127.0.0.1:{}", S::NAME, server.port()));
        Ok(server)
    }

    fn run(&self) -> Result<(), Error> {
        if let Some(folder) = self.instance.folder() {
            await_vacant(S::NAME, folder)?;
            self.software.remove_leftovers(folder);
        }
        self.instance.start()?;
        self.software.await_ready(&self.instance)
    }

    /// Returns the port that clients connect to.
    pub fn port(&self) -> u16 {
        self.software.port()
    }

    /// Starts the server again, on the same ports and data, and waits until clients can use it.
    ///
    /// If the server still runs, it is stopped first.
    pub fn restart(&self) -> Result<(), Error> {
        self.instance.request_stop();
        self.instance.await_end(STOP_LIMIT);
        self.run()
    }
}

impl<S> Server<S> {
    /// Returns the process id, while the server runs.
    pub fn pid(&self) -> Option<u32> {
        self.instance.pid()
    }

    /// Returns the path of the log file.
    pub fn log(&self) -> &Path {
        &self.instance.log
    }

    /// Returns the data folder, unless the server runs in a container.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.instance.folder()
    }

    /// Kills the server, as a crash would, and waits until it is gone.
    pub fn kill9(&self) -> Result<(), Error> {
        self.instance.kill9()
    }

    /// Freezes the server. Clients then wait for answers, as if the machine were gone.
    pub fn sigstop(&self) -> Result<(), Error> {
        self.instance.signal(Signal::STOP)
    }

    /// Lets a server continue that [`sigstop`](Self::sigstop) froze.
    pub fn sigcont(&self) -> Result<(), Error> {
        self.instance.signal(Signal::CONT)
    }

    /// Asks for an orderly end and doesn't wait for it.
    pub(crate) fn request_stop(&self) {
        self.instance.request_stop();
    }

    /// Stops the server in order, or by SIGKILL after 3 seconds. Dropping it does the same.
    pub fn stop(self) {}
}

impl<S> Drop for Server<S> {
    fn drop(&mut self) {
        self.instance.request_stop();
        self.instance.await_end(STOP_LIMIT);
    }
}
