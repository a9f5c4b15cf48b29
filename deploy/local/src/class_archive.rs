//! Kafka's class-data archive. With it the JVM maps parsed classes into memory, which halves the broker's start.
//!
//! A broker of its own makes the archive, once. If the first real broker made it, a `kill -9` could lose it, and the
//! first stop would take seconds longer than all others.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::broker;
use crate::cache::Prepared;
use crate::error::{Doing, Error};
use crate::files::{self, UNFINISHED};
use crate::instance::{Instance, Place};
use crate::ports::Ports;
use crate::probe::Probe;
use crate::progress::{Progress, Step};
use crate::ready::await_ready;
use crate::tool::short_hash;

/// The limits for the start and for the end of the broker that makes the archive.
const LIMIT: Duration = Duration::from_secs(60);
const HEAP_MB: u32 = 256;

/// Returns the archive for this JVM and these jars, and makes it first if need be.
///
/// Returns `None` if it could not be made, because Kafka works without it and only starts slower. The failure is
/// logged, and a file in the cache remembers it, so that later starts don't try again.
pub(crate) fn find_or_make(prepared: &Prepared, progress: &dyn Progress) -> Option<PathBuf> {
    // The class path names the servers' folder, whose name follows from the pinned versions.
    let key =
        short_hash(&[&prepared.java.build, &prepared.java.program.to_string_lossy(), &prepared.classpath]);
    let root = &prepared.cache.root;
    let (archive, given_up) = (root.join(format!("kafka-{key}.jsa")), root.join(format!("kafka-{key}.none")));
    if archive.exists() {
        return Some(archive);
    }
    if given_up.exists() {
        return None;
    }
    match make(prepared, &archive, progress) {
        Ok(()) => Some(archive),
        Err(fault) => {
            tracing::warn!(error = %fault, "no class-data archive; Kafka starts slower");
            let _ = fs::write(&given_up, fault.to_string());
            None
        }
    }
}

fn make(prepared: &Prepared, archive: &Path, progress: &dyn Progress) -> Result<(), Error> {
    let _lock = prepared.cache.lock(progress)?;
    // Another process may have made it while this one waited.
    if archive.exists() {
        return Ok(());
    }
    let step = Step::begin(progress, "making later starts of Kafka faster (once)");
    train(prepared, archive)?;
    step.done("later starts of Kafka are faster");
    Ok(())
}

/// Runs a broker, uses it a little, and stops it. The JVM then writes the archive.
fn train(prepared: &Prepared, archive: &Path) -> Result<(), Error> {
    let root = &prepared.cache.root;
    let work = root.join(format!("{UNFINISHED}training"));
    let ports = Ports::free().doing("find free ports for", &work)?;
    let home = broker::lay_out(&work, prepared, ports)?;
    let dump = work.join("archive.jsa");
    let launch = {
        let (prepared, home) = (prepared.clone(), home.clone());
        let flag = format!("-XX:ArchiveClassesAtExit={}", dump.display());
        move || broker::command(&prepared, &home, HEAP_MB, Some(&flag))
    };
    let log = root.join("training.log");
    let instance = Instance::new("Kafka", Signal::TERM, log, Place::Folder(home), Box::new(launch));
    instance.start()?;
    let probe = Probe::new(ports.kafka);
    let used = await_ready(&instance, LIMIT, async || probe.attempt().await);
    let used = used.map(|()| probe.exercise());
    // The JVM takes two seconds or more to write the archive when it ends.
    instance.request_stop();
    instance.await_end(LIMIT);
    used?;
    fs::rename(&dump, archive).doing("move into place", archive)?;
    files::remove_tree(&work)
}
