//! Kafka's class-data archive. With it the JVM maps parsed classes into memory, which halves the broker's start.
//!
//! A broker of its own makes the archive, once, while nobody waits for it. If the first real broker made it, a `kill -9`
//! could lose it, and the first stop would take seconds longer than all others.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::broker;
use crate::cache::Prepared;
use crate::error::{Doing, Error};
use crate::files::{self, UNFINISHED};
use crate::instance::{Instance, Place};
use crate::ports::Ports;
use crate::probe::Probe;
use crate::progress::Silent;
use crate::ready::await_ready;
use crate::tool::short_hash;

/// The limits for the start and for the end of the broker that makes the archive. Everything else goes first.
const LIMIT: Duration = Duration::from_secs(300);
const HEAP_MB: u32 = 256;
const LOWEST_PRIORITY: i32 = 19;

/// Returns the archive for this JVM and these jars, if it has been made.
pub(crate) fn find(prepared: &Prepared) -> Option<PathBuf> {
    let archive = path(prepared);
    archive.exists().then_some(archive)
}

fn path(prepared: &Prepared) -> PathBuf {
    // The class path names the servers' folder, whose name follows from the pinned versions.
    let key =
        short_hash(&[&prepared.java.build, &prepared.java.program.to_string_lossy(), &prepared.classpath]);
    prepared.cache.root.join(format!("kafka-{key}.jsa"))
}

/// The making of an archive on a thread of its own. If this is dropped before the end, the broker is killed, and a later
/// start begins again.
pub(crate) struct Training(Arc<Mutex<Progress>>);

#[derive(Default)]
enum Progress {
    #[default]
    Begun,
    Broker(Arc<Instance>),
    GivenUp,
}

impl Training {
    /// Begins, unless there is an archive already. A failure is only logged, because Kafka works without an archive.
    pub fn begin(prepared: &Prepared) -> Training {
        let progress = Arc::new(Mutex::new(Progress::default()));
        if find(prepared).is_none() {
            let (prepared, progress) = (prepared.clone(), Arc::clone(&progress));
            let work = move || {
                if let Err(fault) = make(&prepared, &progress) {
                    tracing::warn!(error = %fault, "no class-data archive; Kafka starts slower");
                }
            };
            // Without a thread there is no archive.
            let _ = thread::Builder::new().name("class archive".into()).spawn(work);
        }
        Training(progress)
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        if let Progress::Broker(broker) = std::mem::replace(&mut *hold(&self.0), Progress::GivenUp) {
            let _ = broker.kill9();
        }
    }
}

fn hold(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

fn make(prepared: &Prepared, progress: &Mutex<Progress>) -> Result<(), Error> {
    let _lock = prepared.cache.lock(&Silent)?;
    // Another process may have made it while this one waited.
    if find(prepared).is_some() { Ok(()) } else { train(prepared, progress) }
}

/// Runs a broker, uses it a little, and stops it. The JVM then writes the archive.
fn train(prepared: &Prepared, progress: &Mutex<Progress>) -> Result<(), Error> {
    let root = &prepared.cache.root;
    let work = root.join(format!("{UNFINISHED}training"));
    let ports = Ports::free().doing("find free ports for", &work)?;
    let home = broker::lay_out(&work, prepared, ports)?;
    let dump = work.join("archive.jsa");
    let launch = {
        let (prepared, home) = (prepared.clone(), home.clone());
        let flag = format!("-XX:ArchiveClassesAtExit={}", dump.display());
        // Else the JVM gives its threads priorities of its own.
        move || broker::command(&prepared, &home, HEAP_MB, &[&flag, "-XX:ThreadPriorityPolicy=0"])
    };
    let log = root.join("training.log");
    let broker = Instance::new("Kafka", Signal::TERM, log, Place::Folder(home), Box::new(launch));
    let broker = Arc::new(broker);
    {
        let mut progress = hold(progress);
        if matches!(*progress, Progress::GivenUp) {
            return Ok(());
        }
        broker.start()?;
        broker.lower_priority(LOWEST_PRIORITY);
        *progress = Progress::Broker(Arc::clone(&broker));
    }
    let probe = Probe::new(ports.kafka);
    let used = await_ready(&broker, LIMIT, async || probe.attempt().await).map(|()| probe.exercise());
    // The JVM takes two seconds or more to write the archive when it ends.
    broker.request_stop();
    broker.await_end(LIMIT);
    let given_up = matches!(*hold(progress), Progress::GivenUp);
    if !given_up {
        used?;
        fs::rename(&dump, path(prepared)).doing("move into place", Path::new("the class-data archive"))?;
    }
    files::remove_tree(&work)
}
