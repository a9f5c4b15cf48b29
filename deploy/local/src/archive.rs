//! Kafka's class-data archive: the JVM maps the parsed classes instead of parsing them, which halves the
//! broker's start. It is made once, by a broker of its own, so that the first real one stops as quickly as
//! any other and a `kill -9` can't lose it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::Signal;

use crate::Ports;
use crate::cache::{Prepared, short_hash};
use crate::error::{Doing, Error};
use crate::files::{self, UNFINISHED};
use crate::kafka;
use crate::probe::Probe;
use crate::progress::{Progress, Step};
use crate::ready::await_ready;
use crate::unit::Unit;

/// The archive for this JVM and these jars, made now if need be. Without one Kafka only starts slower, so
/// faults are logged, and remembered lest every start try again.
pub(crate) fn of(prepared: &Prepared, progress: &dyn Progress) -> Option<PathBuf> {
    // The class path names the folder, which is named by the pinned coordinates.
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
    let make = || {
        let _lock = prepared.cache.lock(progress)?;
        if archive.exists() {
            return Ok(());
        }
        let step = Step::begin(progress, "teaching Java to start Kafka quickly (once)");
        train(prepared, root, &archive)?;
        step.done("Kafka will start quickly from now on");
        Ok::<(), Error>(())
    };
    match make() {
        Ok(()) => Some(archive),
        Err(fault) => {
            tracing::warn!(error = %fault, "no class-data archive; Kafka starts slower");
            let _ = fs::write(&given_up, fault.to_string());
            None
        }
    }
}

fn train(prepared: &Prepared, root: &Path, archive: &Path) -> Result<(), Error> {
    let work = root.join(format!("{UNFINISHED}training"));
    let Ports { kafka: port, .. } = Ports::free().doing("find free ports for", &work)?;
    let ports = Ports { postgres: 0, kafka: port, ..Ports::free().doing("find free ports for", &work)? };
    let home = kafka::lay_out(&work, prepared, ports)?;
    let dump = work.join("archive.jsa");
    let launch = {
        let (prepared, home, dump) = (prepared.clone(), home.clone(), dump.clone());
        move || {
            let mut command = kafka::broker(&prepared, &home, 256);
            command.arg(format!("-XX:ArchiveClassesAtExit={}", dump.display()));
            kafka::finish(command)
        }
    };
    let unit = Unit {
        name: "Kafka",
        launch: Box::new(launch),
        stop: Signal::TERM,
        log: root.join("training.log"),
        dir: home,
        container: None,
        child: Mutex::default(),
        asked: Mutex::default(),
    };
    unit.start()?;
    let probe = Probe::new(port);
    let used = await_ready(&unit, Duration::from_secs(60), async || probe.attempt().await);
    let used = used.map(|()| probe.exercise());
    // The archive is written when the JVM ends, which takes two seconds or more.
    unit.ask_to_stop();
    unit.finish(Duration::from_secs(60));
    used?;
    fs::rename(&dump, archive).doing("move into place", archive)?;
    files::remove_tree(&work)
}
