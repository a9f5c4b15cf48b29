//! The errors of starting and stopping servers. Each says what happened, where to look and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use crate::process::{Holder, Process};

/// The reason why a server could not be started, reached or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process uses a port that a server needs.
    #[error(
        "port {port}, wanted for {what}, is taken by {}; end it, or choose other ports (--ports-from)",
        holder.as_ref().map_or_else(|| "something that left no trace in /proc".to_owned(), Holder::to_string)
    )]
    PortBusy {
        /// The port.
        port: u16,
        /// The purpose of the port.
        what: String,
        /// The process or connection that has the port, if `/proc` shows it.
        holder: Option<Holder>,
    },
    /// The kernel refuses the port, for example because it is below 1024.
    #[error("port {port}, wanted for {what}, can't be used; choose other ports (--ports-from)")]
    PortRefused {
        /// The port.
        port: u16,
        /// The purpose of the port.
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Another run uses the state folder, or another process prepares the same cache folder.
    #[error(
        "another `amends up` is running on the state folder {}{}; stop it, or give this one a state folder of its own",
        state.display(), holder.as_ref().map(|it| format!(": {it}")).unwrap_or_default()
    )]
    StateInUse {
        /// The folder.
        state: PathBuf,
        /// The process that holds the folder's lock, if it could be read.
        holder: Option<Process>,
    },
    /// A server of an earlier run does not end, not even by SIGKILL.
    #[error("{server} of an earlier run still uses {}: {holder}; end it with `kill -9 {}`", dir.display(), holder.pid)]
    StillRunning {
        /// The name of the server.
        server: &'static str,
        /// Its data folder.
        dir: PathBuf,
        /// The process whose working folder is still that data folder.
        holder: Process,
    },
    /// This machine can run the servers neither as child processes nor in containers.
    #[error(
        "PostgreSQL and Kafka can't be started here: {native}; {docker}. \
         {}, or start Docker",
        native.remedy()
    )]
    NothingToRunOn {
        /// What is missing for child processes.
        native: Missing,
        /// What is missing for containers.
        docker: Missing,
    },
    /// No PostgreSQL build is published for this machine.
    #[error("there is no PostgreSQL build for {os} on {arch}; start Docker and choose AMENDS_SERVERS=docker")]
    Platform {
        /// The operating system.
        os: &'static str,
        /// The processor architecture.
        arch: &'static str,
    },
    /// A program that prepares something, such as `mvn` or `initdb`, failed.
    #[error("{what} failed ({status}){hint}{log}")]
    Tool {
        /// The purpose of the program.
        what: &'static str,
        /// The exit status of the program.
        status: ExitStatus,
        /// The remedy, which begins with `; `, or an empty string.
        hint: &'static str,
        /// The end of the program's output.
        log: LogTail,
    },
    /// A server ended before it was ready.
    #[error("{server} ended while starting ({status}){log}")]
    Ended {
        /// The name of the server.
        server: &'static str,
        /// The exit status of the server.
        status: ExitStatus,
        /// The end of the server's log.
        log: LogTail,
    },
    /// A server runs, but was not ready in time.
    #[error("{server} did not answer within {} s: {last}{log}", after.as_secs())]
    NotReady {
        /// The name of the server.
        server: &'static str,
        /// The time that the server was given.
        after: Duration,
        /// The error of the last attempt to use the server.
        last: String,
        /// The end of the server's log.
        log: LogTail,
    },
    /// The account that PostgreSQL would run as may not enter the cache folder.
    #[error(
        "account `{account}` can't reach {}, and PostgreSQL refuses to run as root; \
         choose a cache folder whose parents let others pass (chmod o+x)",
        dir.display()
    )]
    Unreachable {
        /// The cache folder.
        dir: PathBuf,
        /// The name of the account.
        account: String,
    },
    /// This process runs as root and finds no account for PostgreSQL.
    #[error(
        "PostgreSQL refuses to run as root, and /etc/passwd has neither `postgres` nor `nobody`; run as an ordinary user"
    )]
    NoAccount,
    /// The value of the environment variable `AMENDS_SERVERS` is not `auto`, `local` or `docker`.
    #[error("AMENDS_SERVERS is `{0}`; choose `auto`, `local` or `docker`")]
    UnknownBackend(String),
    /// A file or process operation failed.
    #[error("can't {doing} {}", path.display())]
    Io {
        /// The operation, as a verb such as `open`.
        doing: &'static str,
        /// The file, the folder or the program.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// Turns an I/O error into an [`Error`] that names the operation and the file.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|fault| Error::Io { doing, path: path.to_owned(), source: fault.into() })
    }
}

/// The thing that a backend needs and this machine lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// No Java runtime was found.
    Java,
    /// Only this older Java runtime was found.
    OldJava(String),
    /// `mvn` is needed once, for the download, and was not found.
    Maven,
    /// No Docker engine answered the command `docker version`.
    Docker,
    /// The caller chose the other backend. The text names the backend that was not chosen.
    NotWanted(&'static str),
}

impl Missing {
    /// Returns what to install for child processes.
    fn remedy(&self) -> &'static str {
        match self {
            Self::OldJava(_) => {
                "Install Java 17 or newer (on Debian: `apt-get install default-jre-headless`), first on the PATH"
            }
            _ => "Install Maven, which brings a Java runtime (on Debian: `apt-get install maven`)",
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Java => {
                f.write_str("there is no `java` on the PATH or in JAVA_HOME (17 or newer is needed)")
            }
            Self::OldJava(version) => write!(f, "Java is {version}, and 17 or newer is needed"),
            Self::Maven => f.write_str("there is no `mvn` on the PATH (needed once, for the download)"),
            Self::Docker => f.write_str("`docker version` gets no answer from an engine"),
            Self::NotWanted(which) => write!(f, "{which} is ruled out by AMENDS_SERVERS"),
        }
    }
}

/// The last lines of a log file. Errors quote them so that nobody has to open the file.
#[derive(Debug, Clone, Default)]
pub struct LogTail {
    path: PathBuf,
    lines: Vec<String>,
}

impl LogTail {
    /// Reads the last 12 of the lines in `path` that `wanted` selects, or of all lines if it selects none.
    pub(crate) fn of(path: &Path, wanted: impl Fn(&str) -> bool) -> LogTail {
        const LINES: usize = 12;
        let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        // Some programs write codes that reset a terminal's colours even into files.
        let text = text.replace("\x1b[0m", "").replace("\x1b[m", "");
        let mut lines: Vec<&str> = text.lines().filter(|line| wanted(line)).collect();
        if lines.is_empty() {
            lines = text.lines().filter(|line| !line.trim().is_empty()).collect();
        }
        let skip = lines.len().saturating_sub(LINES);
        let lines = lines[skip..].iter().map(|line| line.chars().take(300).collect()).collect();
        LogTail { path: path.to_owned(), lines }
    }
}

impl fmt::Display for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lines.is_empty() {
            return write!(f, "; {} is empty", self.path.display());
        }
        write!(f, "; the end of {}:", self.path.display())?;
        self.lines.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_java_is_answered_with_java_and_a_missing_maven_with_maven() {
        let said = |native| Error::NothingToRunOn { native, docker: Missing::Docker }.to_string();
        let old = said(Missing::OldJava("11".to_owned()));
        assert!(old.contains("Install Java 17") && !old.contains("Install Maven"), "{old}");
        assert!(said(Missing::Maven).contains("Install Maven"));
    }
}
