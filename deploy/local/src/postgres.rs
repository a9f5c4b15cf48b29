//! A real PostgreSQL: prepared once, started in a fraction of a second.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::Signal;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection};

use crate::account::{Account, run_as};
use crate::cache::run_tool;
use crate::error::{Doing, Error};
use crate::files::{self, Lock};
use crate::progress::{Progress, Step};
use crate::ready::await_ready;
use crate::state::{Claim, postgres_home};
use crate::unit::{Launch, Unit, await_vacant};
use crate::{Options, Runtime, docker, encode};

const NAME: &str = "PostgreSQL";
const IMAGE: &str = "postgres:18";
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(3);

/// What differs from PostgreSQL's defaults. Durability (`fsync`, `synchronous_commit`) is left on: the
/// suite's promises are tested on it.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    // Six services with a pool each, and test suites with a database per test.
    ("max_connections", "300"),
    // Messages that are sent and truncated before they leave the buffers never reach the disk but for the log.
    ("shared_buffers", "512MB"),
    // A batch of messages fills the default of 4 MB, and then waits for its own writing.
    ("wal_buffers", "16MB"),
    // At a thousand orders a second the default of 1 GB would force checkpoints under load.
    ("max_wal_size", "2GB"),
    // Short statements only: compiling them costs more than it saves.
    ("jit", "off"),
    ("track_commit_timestamp", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %q%u@%d %a "),
    ("log_lock_waits", "on"),
];

/// A PostgreSQL 18 on 127.0.0.1 that ends with this process. Its superuser is `postgres`, without password.
pub struct Postgres {
    unit: Unit,
    port: u16,
    _lock: Lock,
}

impl Postgres {
    /// Starts PostgreSQL alone and waits until it answers a query.
    pub fn start(options: &Options, progress: &dyn Progress) -> Result<Postgres, Error> {
        let claim = Self::claim(options, progress)?;
        let runtime = Runtime::choose(options, progress)?;
        Self::launch(claim, &runtime, options, progress)
    }

    pub(crate) fn claim(options: &Options, progress: &dyn Progress) -> Result<Claim, Error> {
        Claim::take(options, NAME, "postgres", &[(options.ports.postgres, NAME)], progress)
    }

    pub(crate) fn launch(
        claim: Claim,
        runtime: &Runtime,
        options: &Options,
        progress: &dyn Progress,
    ) -> Result<Postgres, Error> {
        let port = options.ports.postgres;
        if let Runtime::Docker = runtime {
            docker::need(IMAGE, &claim.state, progress)?;
        }
        let step = Step::begin(progress, "starting PostgreSQL");
        let (dir, launch, container): (_, Launch, _) = match runtime {
            Runtime::Native(prepared) => {
                let (home, account) = postgres_home(&claim, &prepared.cache)?;
                if !home.exists() {
                    files::copy_tree(&prepared.cluster, &home, account.as_ref())?;
                }
                let program = prepared.postgres.join("bin/postgres");
                let statistics = prepared.postgres.join("lib/postgresql/pg_stat_statements.so").exists();
                let data = home.clone();
                let launch = move || {
                    let mut command = Command::new(&program);
                    command.env_clear().env("LC_ALL", "C.UTF-8");
                    command.arg("-D").arg(&data).args(["-p", &port.to_string(), "-h", "127.0.0.1"]);
                    command
                        .arg("-k")
                        .arg(socket_dir(&data).unwrap_or(Path::new("")))
                        .args(settings(statistics));
                    run_as(&mut command, account.as_ref());
                    command
                };
                (home, Box::new(launch), None)
            }
            Runtime::Docker => {
                claim.container.own_volume()?;
                let container = claim.container.clone();
                let env =
                    [("POSTGRES_HOST_AUTH_METHOD", "trust"), ("POSTGRES_INITDB_ARGS", "--locale=C.UTF-8")]
                        .map(|(name, value)| (name.to_owned(), value.to_owned()));
                let launch = move || {
                    let mut command = container.run("/var/lib/postgresql", &[(port, 5432)], &env, &[IMAGE]);
                    command.arg("postgres").args(settings(true));
                    command
                };
                (claim.dir.clone(), Box::new(launch), Some(claim.container))
            }
        };
        let unit = Unit {
            name: NAME,
            launch,
            // The fast shutdown: rolls back what is open and checkpoints, without waiting for clients.
            stop: Signal::INT,
            log: claim.log,
            dir,
            container,
            child: Mutex::default(),
            asked: Mutex::default(),
        };
        let postgres = Postgres { unit, port, _lock: claim.lock };
        postgres.go()?;
        step.done(&format!("PostgreSQL listens on 127.0.0.1:{port}"));
        Ok(postgres)
    }

    fn go(&self) -> Result<(), Error> {
        if self.unit.container.is_none() {
            await_vacant(NAME, &self.unit.dir)?;
            // Nobody works here, so a pid or lock file is of a server that was killed. If its id has been given to
            // another process since, PostgreSQL would refuse to start.
            let _ = fs::remove_file(self.unit.dir.join("postmaster.pid"));
            let _ = fs::remove_file(self.unit.dir.join(format!(".s.PGSQL.{}.lock", self.port)));
        }
        self.unit.start()?;
        let options = self.connect_options("postgres").disable_statement_logging();
        await_ready(&self.unit, START, async || {
            let mut connection = PgConnection::connect_with(&options).await?;
            connection.ping().await?;
            connection.close().await
        })
    }

    fn connect_options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username("postgres")
            .database(database)
            .ssl_mode(PgSslMode::Disable)
    }

    /// The URL of a database here for `user`. It names the server's socket where there is one, which costs both sides
    /// less than TCP; who does not know the `host` in it connects by TCP.
    pub fn url(&self, database: &str, user: &str, password: Option<&str>) -> String {
        let password = password.map(|it| format!(":{}", encode(it))).unwrap_or_default();
        let socket = if self.unit.container.is_none() { socket(&self.unit.dir) } else { String::new() };
        format!("postgres://{}{password}@127.0.0.1:{}/{}{socket}", encode(user), self.port, encode(database))
    }

    /// The URL of database `postgres` for the superuser.
    pub fn admin_url(&self) -> String {
        self.url("postgres", "postgres", None)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.unit.pid()
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.unit.log
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub fn kill9(&self) -> Result<(), Error> {
        self.unit.kill9()
    }

    /// Starts it again on the same port and data and waits until it answers; stops it first if it runs.
    pub fn restart(&self) -> Result<(), Error> {
        self.unit.ask_to_stop();
        self.unit.finish(STOP);
        self.go()
    }

    /// Freezes it: clients hang as they would on a machine that is gone.
    pub fn sigstop(&self) -> Result<(), Error> {
        self.unit.signal(Signal::STOP)
    }

    /// Lets it go on after `sigstop`.
    pub fn sigcont(&self) -> Result<(), Error> {
        self.unit.signal(Signal::CONT)
    }

    pub(crate) fn ask_to_stop(&self) {
        self.unit.ask_to_stop();
    }

    /// Stops it in order; dropping it does the same.
    pub fn stop(self) {}
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.unit.ask_to_stop();
        self.unit.finish(STOP);
    }
}

/// The superuser's URL of a server that another process runs on these data.
pub fn url_beside(data: &Path, port: u16) -> String {
    let data = data.canonicalize().ok();
    let there = data.as_deref().filter(|data| data.join(format!(".s.PGSQL.{port}")).exists());
    format!("postgres://postgres@127.0.0.1:{port}/postgres{}", there.map(socket).unwrap_or_default())
}

/// The part of a URL that names the socket, if there is one.
fn socket(data: &Path) -> String {
    let dir = socket_dir(data).and_then(Path::to_str);
    dir.map(|dir| format!("?host={}", encode(dir))).unwrap_or_default()
}

/// Where the server's socket is: beside its data, unless the path is too long for one.
fn socket_dir(data: &Path) -> Option<&Path> {
    const LONGEST: usize = 107 - "/.s.PGSQL.65535".len();
    (data.is_absolute() && data.as_os_str().len() <= LONGEST).then_some(data)
}

fn settings(statistics: bool) -> Vec<String> {
    let statistics = statistics.then_some(("shared_preload_libraries", "pg_stat_statements"));
    let settings = SETTINGS.iter().copied().chain(statistics);
    settings.flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]).collect()
}

/// Makes `work/cluster` by initdb, to be copied into each new state folder: a copy takes a tenth of the time.
pub(crate) fn make_cluster(work: &Path, account: Option<&Account>) -> Result<(), Error> {
    let cluster = work.join("cluster");
    files::make_dir(&cluster)?;
    files::set_mode(&cluster, 0o700)?;
    files::give(&cluster, account)?;
    let program = work.join("postgres/bin/initdb");
    let mut command = Command::new(&program);
    command.env_clear().env("LC_ALL", "C.UTF-8").arg("-D").arg(&cluster);
    command.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]);
    command.args(["--no-instructions", "--no-sync"]);
    run_tool("initdb", command, account, &work.with_file_name("initdb.log"))?;
    let settings = cluster.join("postgresql.conf");
    fs::metadata(&settings).map(drop).doing("find", &settings)
}
