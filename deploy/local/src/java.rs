//! Finds a Java runtime that is new enough for Kafka.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Missing;
use crate::tool::which;

/// The oldest major version that Kafka 4 supports for brokers.
const OLDEST: u32 = 17;

/// A Java runtime.
#[derive(Debug, Clone)]
pub(crate) struct Java {
    pub program: PathBuf,
    /// The full version and the vendor. A class-data archive fits only one such build.
    pub build: String,
}

impl Java {
    /// Returns the runtime in JAVA_HOME if it is new enough, else the one on the PATH.
    ///
    /// Fails with [`Missing::OldJava`] if there is only an older one, and with [`Missing::Java`] if there is none.
    pub fn find() -> Result<Java, Missing> {
        let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
        let mut missing = Missing::Java;
        for program in home.into_iter().filter(|it| it.exists()).chain(which("java")) {
            let Some(build) = release(&program).or_else(|| ask(&program)) else {
                continue;
            };
            if major(&build).is_some_and(|major| major >= OLDEST) {
                return Ok(Java { program, build });
            }
            missing = Missing::OldJava(build);
        }
        Err(missing)
    }
}

/// Reads the version from the file `release` of the runtime. To start a JVM and ask it would take 0.1 s.
fn release(program: &Path) -> Option<String> {
    let home = program.canonicalize().ok()?.parent()?.parent()?.to_owned();
    let text = fs::read_to_string(home.join("release")).ok()?;
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_owned())
    };
    let version = value("JAVA_RUNTIME_VERSION").or_else(|| value("JAVA_VERSION"))?;
    Some(format!("{version} {}", value("IMPLEMENTOR").unwrap_or_default()))
}

/// Asks the program for its version. Version managers put scripts on the PATH, which have no file `release`.
fn ask(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("-version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let version = text.split('"').nth(1)?.to_owned();
    let build = text.lines().last().unwrap_or_default().to_owned();
    Some(format!("{version} {build}"))
}

/// Returns the major version: 17 for `17.0.15+6 Debian`, and 8 for `1.8.0_402`.
fn major(build: &str) -> Option<u32> {
    let mut numbers = build.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match numbers.next()? {
        Ok(1) => numbers.next()?.ok(),
        first => first.ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_old_and_new_are_read() {
        assert_eq!(major("17.0.15+6-Debian-1deb12u1 Debian"), Some(17));
        assert_eq!(major("1.8.0_402 Temurin"), Some(8));
        assert_eq!(major("25 Azul"), Some(25));
        assert_eq!(major("unknown"), None);
    }
}
