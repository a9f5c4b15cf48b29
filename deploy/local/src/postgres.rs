//! A real PostgreSQL. Its data folder is a copy of a template, so that the first start takes a fraction of a second.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection};

use crate::account::run_as;
use crate::cache::Prepared;
use crate::docker::Container;
use crate::error::Error;
use crate::files;
use crate::instance::{Instance, Launch};
use crate::options::Options;
use crate::ready::await_ready;
use crate::server::{Server, Software};
use crate::state::{Claim, postgres_home};
use crate::system_identifier;
use crate::url::{database_url, socket_dir};

/// How long a start may take, with the recovery after a crash.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Variables of the C library. A short statement allocates and frees some hundred kilobytes. With the defaults each
/// process returns them to the system after every statement, and a tenth of the server's time goes into getting them back.
const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_TOP_PAD_", "262144"),
    ("MALLOC_TRIM_THRESHOLD_", "67108864"),
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
];

/// The settings that differ from PostgreSQL's defaults.
///
/// Durability (`fsync`, `synchronous_commit`) stays on, because tests kill this server and check that nothing is lost.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    // Six services with a pool each, and test suites with a database per test.
    ("max_connections", "300"),
    // Messages are often sent and truncated while they are still in the buffers. Then only the log reaches the disk.
    ("shared_buffers", "512MB"),
    // A batch of messages fills the default of 4 MB, and then waits until its own log is written.
    ("wal_buffers", "16MB"),
    // At a thousand orders per second the default of 1 GB would force checkpoints under load.
    ("max_wal_size", "2GB"),
    // All statements are short, so to compile them costs more than it saves.
    ("jit", "off"),
    ("track_commit_timestamp", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %q%u@%d %a "),
    ("log_lock_waits", "on"),
];

/// A PostgreSQL 18. Its superuser is `postgres`, without a password.
pub type Postgres = Server<PostgresSoftware>;

/// What distinguishes PostgreSQL from other servers.
pub struct PostgresSoftware {
    port: u16,
    counts_statements: bool,
}

impl Software for PostgresSoftware {
    const NAME: &'static str = "PostgreSQL";
    const FOLDER: &'static str = "postgres";
    const IMAGE: &'static str = "postgres:18";
    /// Asks for the fast shutdown: it rolls open transactions back and checkpoints, without waiting for clients.
    const STOP_SIGNAL: Signal = Signal::INT;

    fn new(options: &Options) -> Self {
        PostgresSoftware { port: options.ports.postgres, counts_statements: options.counts_statements }
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn ports(&self) -> Vec<(u16, &'static str)> {
        vec![(self.port, Self::NAME)]
    }

    fn in_folder(&self, claim: &Claim, prepared: &Prepared) -> Result<(PathBuf, Launch), Error> {
        let port = self.port.to_string();
        let (data, account) = postgres_home(claim, &prepared.cache)?;
        if !data.exists() {
            files::copy_tree(&prepared.cluster, &data, account.as_ref(), system_identifier::renew)?;
        }
        let program = prepared.postgres.join("bin/postgres");
        let library = prepared.postgres.join("lib/postgresql/pg_stat_statements.so");
        let statistics = self.counts_statements && library.exists();
        let folder = data.clone();
        let launch = move || {
            let mut command = Command::new(&program);
            command.env_clear().env("LC_ALL", "C.UTF-8").envs(ALLOCATOR);
            command.arg("-D").arg(&data).args(["-p", &port, "-h", "127.0.0.1"]);
            // An empty folder turns the socket off.
            command.arg("-k").arg(socket_dir(&data).unwrap_or(Path::new(""))).args(settings(statistics));
            run_as(&mut command, account.as_ref());
            command
        };
        Ok((folder, Box::new(launch)))
    }

    fn in_container(&self, container: Container) -> Launch {
        let (port, statistics) = (self.port, self.counts_statements);
        let env: Vec<_> =
            [("POSTGRES_HOST_AUTH_METHOD", "trust"), ("POSTGRES_INITDB_ARGS", "--locale=C.UTF-8")]
                .into_iter()
                .chain(ALLOCATOR)
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
        Box::new(move || {
            let mut command = container.run("/var/lib/postgresql", &[(port, 5432)], &env, Self::IMAGE);
            command.arg("postgres").args(settings(statistics));
            command
        })
    }

    /// Removes the pid file and the socket's lock file. PostgreSQL would refuse to start if another process has got
    /// the pid in them since.
    fn remove_leftovers(&self, folder: &Path) {
        let _ = fs::remove_file(folder.join("postmaster.pid"));
        let _ = fs::remove_file(folder.join(format!(".s.PGSQL.{}.lock", self.port)));
    }

    /// Waits until the server answers on a connection.
    fn await_ready(&self, instance: &Instance) -> Result<(), Error> {
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username("postgres")
            .database("postgres")
            .ssl_mode(PgSslMode::Disable)
            .disable_statement_logging();
        await_ready(instance, START_LIMIT, async || {
            let mut connection = PgConnection::connect_with(&options).await?;
            connection.ping().await?;
            connection.close().await
        })
    }
}

impl Server<PostgresSoftware> {
    /// Returns the URL of `database` for `user`.
    ///
    /// It names the server's socket where there is one, because a socket costs both sides less than TCP. Clients that
    /// ignore the parameter `host` connect by TCP.
    pub fn url(&self, database: &str, user: &str, password: Option<&str>) -> String {
        database_url(self.port(), database, user, password, self.folder())
    }

    /// Returns the URL of the database `postgres` for the superuser.
    pub fn admin_url(&self) -> String {
        self.url("postgres", "postgres", None)
    }
}

fn settings(statistics: bool) -> Vec<String> {
    // A hundred suites of tests have more statements than the usual 5000, and the rarest would be forgotten.
    let counting = [("shared_preload_libraries", "pg_stat_statements"), ("pg_stat_statements.max", "100000")];
    let statistics = if statistics { &counting[..] } else { &[] };
    let settings = SETTINGS.iter().chain(statistics).copied();
    settings.flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]).collect()
}
