//! Finds programs on the PATH, and a Java runtime that is new enough.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Missing;

const OLDEST: u32 = 17;

/// A Java runtime.
#[derive(Debug, Clone)]
pub(crate) struct Java {
    pub program: PathBuf,
    /// Vendor and full version: what a class-data archive is tied to.
    pub build: String,
}

impl Java {
    /// Takes JAVA_HOME's runtime if it is new enough, else the one on the PATH.
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

/// Looks for an executable file on the PATH.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|file| {
        fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

/// Reads the version from the file that lies beside every runtime, because starting a JVM to ask costs 0.1 s.
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

/// Asks the program itself: version managers put scripts on the PATH that have no file beside them.
fn ask(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("-version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let version = text.split('"').nth(1)?.to_owned();
    let build = text.lines().last().unwrap_or_default().to_owned();
    Some(format!("{version} {build}"))
}

/// `17.0.15+6 Debian` is 17, and `1.8.0_402` is 8.
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
