//! What the caller may choose.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{Error, Ports};

/// What to start, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder that keeps the data and logs of both servers. One run at a time uses it.
    pub state: PathBuf,
    /// The folder that keeps downloads. If none is given: `$XDG_CACHE_HOME/amends` or `~/.cache/amends`, and
    /// for root `/var/cache/amends`, because PostgreSQL runs under another account that must read it.
    pub cache: Option<PathBuf>,
    /// Where the servers listen.
    pub ports: Ports,
    /// Whether child processes or containers are used.
    pub backend: Backend,
    /// How much heap Kafka's JVM may use.
    pub kafka_heap_mb: u32,
    /// Whether to begin with empty servers, removing what an earlier run has stored.
    pub fresh: bool,
}

impl Options {
    /// The defaults: the usual ports, 256 MB of heap for Kafka, and the data of the run before.
    pub fn new(state: impl Into<PathBuf>) -> Options {
        Options {
            state: state.into(),
            cache: None,
            ports: Ports { postgres: 5432, kafka: 9092, kafka_controller: 9093 },
            backend: Backend::Auto,
            kafka_heap_mb: 256,
            fresh: false,
        }
    }
}

/// How the servers are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// Child processes if Java (and Maven, for the first start) are there, else containers.
    #[default]
    Auto,
    /// Child processes.
    Native,
    /// Containers, through the `docker` command.
    Docker,
}

impl Backend {
    /// The environment variable that chooses.
    pub const VARIABLE: &str = "AMENDS_SERVERS";

    /// What the environment says, or `Auto`.
    pub fn from_env() -> Result<Backend, Error> {
        std::env::var(Self::VARIABLE).map_or(Ok(Backend::Auto), |name| name.parse())
    }
}

impl FromStr for Backend {
    type Err = Error;

    fn from_str(name: &str) -> Result<Backend, Error> {
        match name {
            "auto" | "" => Ok(Backend::Auto),
            "local" => Ok(Backend::Native),
            "docker" => Ok(Backend::Docker),
            other => Err(Error::UnknownBackend(other.to_owned())),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Auto => "auto",
            Backend::Native => "local",
            Backend::Docker => "docker",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_is_read_by_the_name_that_it_prints() {
        for backend in [Backend::Auto, Backend::Native, Backend::Docker] {
            assert_eq!(backend.to_string().parse::<Backend>().expect("a backend"), backend);
        }
        let error = "native".parse::<Backend>().expect_err("the old name").to_string();
        assert!(error.contains("`local`"), "{error}");
    }
}
