//! What can go wrong while servers start or stop: what happened, where to look, what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use crate::ports::{Holder, Process};

/// Why the local servers can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else listens where a server should.
    #[error(
        "port {port}, wanted for {what}, is taken by {}; end it, or choose other ports (--ports-from)",
        holder.as_ref().map_or_else(|| "something that left no trace in /proc".to_owned(), Holder::to_string)
    )]
    PortBusy {
        /// The port.
        port: u16,
        /// What it was wanted for.
        what: String,
        /// Who has it, if that could be found out.
        holder: Option<Holder>,
    },
    /// The kernel won't let us have the port, for example because it is below 1024.
    #[error("port {port}, wanted for {what}, can't be used; choose other ports (--ports-from)")]
    PortRefused {
        /// The port.
        port: u16,
        /// What it was wanted for.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another run holds the state folder.
    #[error(
        "another `amends up` is running on the state folder {}{}; stop it, or give this one a state folder of its own",
        state.display(), holder.as_ref().map(|it| format!(": {it}")).unwrap_or_default()
    )]
    StateInUse {
        /// The folder.
        state: PathBuf,
        /// The run that holds it.
        holder: Option<Process>,
    },
    /// A server of an earlier run doesn't end.
    #[error("{server} of an earlier run still uses {}: {holder}; end it with `kill -9 {}`", dir.display(), holder.pid)]
    StillRunning {
        /// Which server.
        server: &'static str,
        /// Its data folder.
        dir: PathBuf,
        /// The process that still works there.
        holder: Process,
    },
    /// Neither way to run the servers is open.
    #[error(
        "PostgreSQL and Kafka can't be started here: {native}; {docker}. \
         Install Maven, which brings a Java runtime (on Debian: `apt-get install maven`), or start Docker"
    )]
    NothingToRunOn {
        /// What child processes lack.
        native: Missing,
        /// What containers lack.
        docker: Missing,
    },
    /// No PostgreSQL build is published for this machine.
    #[error("there is no PostgreSQL build for {os} on {arch}; start Docker and choose AMENDS_SERVERS=docker")]
    Platform {
        /// The operating system.
        os: &'static str,
        /// The processor.
        arch: &'static str,
    },
    /// A program that does one job ended with a failure.
    #[error("{what} failed ({status}){hint}{log}")]
    Tool {
        /// What was being done.
        what: &'static str,
        /// How the program ended.
        status: ExitStatus,
        /// What to do, beginning with `; `, or nothing.
        hint: &'static str,
        /// What it said.
        log: LogTail,
    },
    /// A server ended by itself while it was awaited.
    #[error("{server} ended while starting ({status}){log}")]
    Ended {
        /// Which server.
        server: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        log: LogTail,
    },
    /// A server runs but doesn't answer.
    #[error("{server} did not answer within {} s: {last}{log}", after.as_secs())]
    NotReady {
        /// Which server.
        server: &'static str,
        /// How long it was given.
        after: Duration,
        /// What the last attempt met.
        last: String,
        /// What it said.
        log: LogTail,
    },
    /// The unprivileged account can't get to the server's files.
    #[error(
        "account `{account}` can't reach {}, and PostgreSQL refuses to run as root; \
         choose a cache folder whose parents let others pass (chmod o+x)",
        dir.display()
    )]
    Unreachable {
        /// The folder.
        dir: PathBuf,
        /// The account PostgreSQL would run as.
        account: String,
    },
    /// We are root and find no account to give PostgreSQL.
    #[error(
        "PostgreSQL refuses to run as root, and /etc/passwd has neither `postgres` nor `nobody`; run as an ordinary user"
    )]
    NoAccount,
    /// A name in the environment or on the command line means nothing.
    #[error("AMENDS_SERVERS is `{0}`; choose `auto`, `local` or `docker`")]
    UnknownBackend(String),
    /// A file or process operation failed.
    #[error("can't {doing} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Turns an I/O error into one that says what was done to which file.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|fault| Error::Io { doing, path: path.to_owned(), source: fault.into() })
    }
}

/// What a backend lacks on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// No Java runtime was found.
    Java,
    /// Only this older Java runtime was found.
    OldJava(String),
    /// `mvn` is needed once, for the download, and was not found.
    Maven,
    /// `docker version` doesn't get an answer from an engine.
    Docker,
    /// The caller ruled it out.
    NotWanted(&'static str),
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

/// The end of a log file, to be read where the error is read.
#[derive(Debug, Clone, Default)]
pub struct LogTail {
    path: PathBuf,
    lines: Vec<String>,
}

impl LogTail {
    /// Reads the last lines of `path`; those that `wanted` picks, or all if it picks none.
    pub(crate) fn of(path: &Path, wanted: impl Fn(&str) -> bool) -> LogTail {
        const LINES: usize = 12;
        let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        // Some programs reset the colours of a terminal they don't write to.
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
