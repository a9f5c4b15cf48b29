//! The caller's choices: which ports, which folders, child processes or containers.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::Error;
use crate::ports::Ports;

/// What to start, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder for the data and logs of both servers. One run at a time may use it.
    pub state: PathBuf,
    /// The folder for downloads. Without one it is `$XDG_CACHE_HOME/amends` or `~/.cache/amends`.
    ///
    /// For root it is `/var/cache/amends`, because PostgreSQL then runs under another account that must read it.
    pub cache: Option<PathBuf>,
    /// The ports that the servers listen on.
    pub ports: Ports,
    /// Whether the servers are child processes or containers.
    pub backend: Backend,
    /// The largest heap of Kafka's JVM, in megabytes.
    pub kafka_heap_mb: u32,
    /// Whether PostgreSQL counts statements (`pg_stat_statements`), where its build can. Counting takes some percent of a
    /// short statement's time.
    pub counts_statements: bool,
    /// Whether to delete the data of earlier runs and begin with empty servers.
    pub fresh: bool,
}

impl Options {
    /// Returns the defaults: ports 5432, 9092 and 9093, 256 MB of heap for Kafka, statements that are not counted, and
    /// the data of the run before.
    pub fn new(state: impl Into<PathBuf>) -> Options {
        Options {
            state: state.into(),
            cache: None,
            ports: Ports { postgres: 5432, kafka: 9092, kafka_controller: 9093 },
            backend: Backend::Auto,
            kafka_heap_mb: 256,
            counts_statements: false,
            fresh: false,
        }
    }
}

/// How the servers are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// `auto`: child processes if Java is there, and Maven for the first start; else containers.
    #[default]
    Auto,
    /// `local`: child processes.
    Local,
    /// `docker`: containers, through the command `docker`.
    Docker,
}

impl Backend {
    /// The environment variable that chooses the backend.
    pub const VARIABLE: &str = "AMENDS_SERVERS";

    /// Returns the backend that the environment chooses, or `Auto` if the variable is unset.
    ///
    /// Fails with [`Error::UnknownBackend`] if the variable has any other value than `auto`, `local`, `docker` or
    /// an empty string.
    pub fn from_env() -> Result<Backend, Error> {
        std::env::var(Self::VARIABLE).map_or(Ok(Backend::Auto), |name| name.parse())
    }
}

impl FromStr for Backend {
    type Err = Error;

    fn from_str(name: &str) -> Result<Backend, Error> {
        match name {
            "auto" | "" => Ok(Backend::Auto),
            "local" => Ok(Backend::Local),
            "docker" => Ok(Backend::Docker),
            other => Err(Error::UnknownBackend(other.to_owned())),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Auto => "auto",
            Backend::Local => "local",
            Backend::Docker => "docker",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_is_read_by_the_name_that_it_prints() {
        for backend in [Backend::Auto, Backend::Local, Backend::Docker] {
            assert_eq!(backend.to_string().parse::<Backend>().expect("a backend"), backend);
        }
        let error = "native".parse::<Backend>().expect_err("the old name").to_string();
        assert!(error.contains("`local`"), "{error}");
    }
}
