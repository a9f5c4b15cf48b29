//! The bootstrap of a service: settings, telemetry, database, HTTP with health, and supervised tasks that drain in
//! order when the process is told to stop.
//!
//! A task that ends before it is told to stops the whole service with exit code 1; a signal ends it with 0.

pub mod audit;
pub mod config;
mod health;
pub mod http;
mod parked;
pub mod problem;
mod readiness_probe;
pub mod roles;
mod run;
pub mod telemetry;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use futures::future::BoxFuture;
use sqlx::PgConnection;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::config::Common;
use self::health::Health;
use crate::circuit_breaker::Dependency;
use crate::consumer::Consumer;
use crate::db::{DEFAULT_SCHEMA, Db, DbOptions};
use crate::housekeeper::Housekeeper;
use crate::kafka::Kafka;
use crate::migrations::{self, Set};
use crate::relay::Relay;
use crate::router::MessageRouter;

/// A service, as its crate defines it.
pub trait App: 'static {
    /// The name: of the process, its consumer group, its database, and the `source` of its messages.
    const NAME: &'static str;
    /// The port that it serves HTTP on, unless told otherwise.
    const PORT: u16;
    /// What is its own beside [`Common`].
    type Config: Args + std::fmt::Debug + Send + Sync + 'static;
    /// How long the topics that it consumes keep messages. Kafka's default; the inbox must remember for longer.
    const TOPIC_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
    /// Whether it coordinates sagas, and so needs their tables.
    const COORDINATES_SAGAS: bool = false;
    /// Its own tables, if it has any. They have a history of their own, so they may be numbered from 1.
    fn migrations() -> Option<&'static Migrator> {
        None
    }
    /// The document of its own HTTP interface.
    fn openapi() -> utoipa::openapi::OpenApi;
    /// Sets the service up: routes, handlers, tasks.
    fn run(service: &mut Service<Self::Config>) -> anyhow::Result<()>;
}

/// A service's command line.
#[derive(Debug, Parser)]
struct CommandLine<C: Args> {
    /// Applies the migrations and ends.
    #[arg(long)]
    migrate: bool,
    /// Asks the service that runs here whether it is ready, and ends: with 0 if it is, else with 1 and the reason.
    #[arg(long, conflicts_with = "migrate")]
    is_ready: bool,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    own: C,
}

/// A service that is being set up.
pub struct Service<C> {
    /// What is the service's own among the settings.
    pub config: C,
    common: Common,
    name: &'static str,
    db: Db,
    kafka: Kafka,
    router: Router,
    stages: Stages,
    failed: CancellationToken,
    /// Which migrations of a database are missing.
    migrations: Migrations,
    housekeeper: Housekeeper,
    /// The external dependencies that it calls.
    dependencies: Vec<Arc<Dependency>>,
    /// What it consumes.
    messages: Arc<MessageRouter>,
    assigned: Arc<AtomicBool>,
}

/// The migrations that a service's database must have.
#[derive(Clone, Copy)]
struct Migrations {
    sets: &'static [&'static Set],
    own: Option<&'static Migrator>,
}

/// The order of stopping: what takes work in, what finishes it, what sends it.
#[derive(Clone, Default)]
struct Stages {
    intake: Stage,
    work: Stage,
    relay: Stage,
}

/// Tasks that are told to stop together.
#[derive(Clone, Default)]
struct Stage {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Stage {
    /// Tells the tasks to stop and waits until they have.
    async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl<C: Send + Sync + 'static> Service<C> {
    fn new<A: App<Config = C>>(config: C, common: Common, db: Db, kafka: Kafka) -> Self {
        Self {
            config,
            common,
            name: A::NAME,
            housekeeper: Housekeeper::new(db.clone()),
            db,
            kafka,
            router: Router::new(),
            stages: Stages::default(),
            failed: CancellationToken::new(),
            migrations: Migrations::of::<A>(),
            dependencies: Vec::new(),
            messages: Arc::new(MessageRouter::new()),
            assigned: Arc::default(),
        }
    }

    /// The service's database.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Cancelled when the service stops taking in work; long answers (event streams) must end then.
    pub fn stopping(&self) -> CancellationToken {
        self.stages.intake.stop.clone()
    }

    /// Serves these routes, beside `/openapi.json`, the health of the service and what is parked in it.
    pub fn serve(&mut self, router: Router) {
        self.router = std::mem::take(&mut self.router).merge(router);
    }

    /// Consumes the messages of the router, and makes the external calls that belong to them.
    pub fn consume(&mut self, messages: MessageRouter) {
        for (command, worker) in messages.take_workers() {
            let (db, stop) = (self.db.clone(), self.stages.work.stop.clone());
            let ready = self.when_migrated();
            self.spawn(&self.stages.work, command, async move {
                ready.await;
                worker(db, stop).await;
                Ok(())
            });
        }
        self.dependencies = messages.dependencies.values().cloned().collect();
        self.messages = Arc::new(messages);
        let consumer =
            Consumer::new(self.db.clone(), self.kafka.clone(), self.name, Arc::clone(&self.messages))
                .static_member(self.common.instance.clone())
                .batch(usize::from(self.common.consumer_batch));
        self.assigned = consumer.assigned();
        let stop = self.stages.intake.stop.clone();
        let ready = self.when_migrated();
        self.spawn(&self.stages.intake, "consumer", async move {
            ready.await;
            Ok(consumer.run(stop).await?)
        });
    }

    /// Runs a task beside the others. It gets a token that tells it when to stop; ending before is a failure of the
    /// whole service.
    pub fn task<F>(&mut self, name: &'static str, task: impl FnOnce(CancellationToken) -> F + Send + 'static)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = self.stages.work.stop.clone();
        let ready = self.when_migrated();
        self.spawn(&self.stages.work, name, async move {
            ready.await;
            task(stop).await
        });
    }

    fn spawn(
        &self,
        stage: &Stage,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let (failed, told) = (self.failed.clone(), stage.stop.clone());
        #[expect(clippy::disallowed_methods, reason = "this is the supervision that the ban points to")]
        stage.tasks.spawn(async move {
            // A panic drops the guard as an early end does.
            let guard = failed.drop_guard();
            let ended = task.await;
            let expected = told.is_cancelled();
            match ended {
                Ok(()) if expected => {
                    guard.disarm();
                }
                Ok(()) => tracing::error!(task = name, "the task ended by itself; the service stops"),
                Err(error) => tracing::error!(task = name, ?error, "the task failed; the service stops"),
            }
        });
    }

    fn when_migrated(&self) -> impl Future<Output = ()> + Send + use<C> {
        let (db, migrations, stop) = (self.db.clone(), self.migrations, self.stages.intake.stop.clone());
        async move { health::wait_until_migrated(&db, migrations, &stop).await }
    }

    /// Has old rows of a table of the service's own deleted, at the start and every ten minutes, by one replica at a
    /// time. `batch` deletes at most [`crate::retention::BATCH`] rows and says how many it did; it is repeated until they are
    /// fewer.
    pub fn prune<F>(&mut self, table: &'static str, batch: F)
    where
        F: for<'a> Fn(&'a mut PgConnection) -> BoxFuture<'a, Result<u64, sqlx::Error>>
            + Send
            + Sync
            + 'static,
    {
        self.housekeeper.prune(table, batch);
    }

    fn keep_house(&self) {
        let housekeeper = self.housekeeper.clone();
        let (stop, ready) = (self.stages.work.stop.clone(), self.when_migrated());
        self.spawn(&self.stages.work, "housekeeper", async move {
            ready.await;
            housekeeper.run(stop).await;
            Ok(())
        });
    }

    fn relay(&self) {
        let relay = Relay::new(self.db.clone(), self.kafka.clone()).batch(self.common.relay_batch);
        for shard in relay.shards() {
            let (stop, ready) = (self.stages.relay.stop.clone(), self.when_migrated());
            self.spawn(&self.stages.relay, "relay", async move {
                ready.await;
                shard.run(stop).await;
                Ok(())
            });
        }
    }
}

/// Runs a service with the process's command line. The whole `main` of a service.
pub fn main<A: App>() -> ExitCode {
    main_from::<A>(std::env::args_os())
}

/// [`main`] with this command line, whose first word is the program's name. `amends serve <service>` uses it.
pub fn main_from<A: App>(
    arguments: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>,
) -> ExitCode {
    let matches = match command::<A>().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { run::EX_USAGE } else { 0 });
        }
    };
    match CommandLine::<A::Config>::from_arg_matches(&matches) {
        Ok(line) => run::process::<A>(line),
        Err(error) => error.exit(),
    }
}

/// The service's command line, from which its help and its documentation are made.
pub fn command<A: App>() -> clap::Command {
    CommandLine::<A::Config>::command().name(A::NAME).about(format!("The {} service of Amends", A::NAME))
}

/// The types of messages that a service consumes, sorted. It is set up for that with its default settings, but neither
/// started nor connected to anything. It needs a tokio runtime.
///
/// # Errors
/// If the service can't be set up.
pub fn consumed_types<A: App>() -> anyhow::Result<Vec<&'static str>> {
    let line = CommandLine::<A::Config>::from_arg_matches(&command::<A>().try_get_matches_from([A::NAME])?)?;
    let db = DbOptions::new(A::NAME).connect(PgConnectOptions::new_without_pgpass());
    let kafka = Kafka::new(line.common.kafka_brokers.clone());
    let mut service = Service::new::<A>(line.own, line.common, db, kafka);
    // Its tasks end as soon as they look.
    service.stages.intake.stop.cancel();
    service.stages.work.stop.cancel();
    A::run(&mut service)?;
    Ok(service.messages.types())
}

/// The document of a service's HTTP interface, with the routes that all have.
pub fn openapi<A: App>() -> utoipa::openapi::OpenApi {
    A::openapi().merge_from(parked::document()).merge_from(audit::document())
}

/// Brings a service's database up to date: the core's tables in their own schema, and the service's own in the role's.
///
/// # Errors
/// If the database does not answer or refuses a statement, or if a migration that was applied has been changed since.
pub async fn migrate<A: App>(db: &mut PgConnection) -> Result<(), MigrateError> {
    Migrations::of::<A>().apply(db).await
}

impl Migrations {
    fn of<A: App>() -> Self {
        static WITH_SAGAS: [&Set; 2] = [&migrations::CORE, &migrations::SAGA];
        let sets = if A::COORDINATES_SAGAS { &WITH_SAGAS[..] } else { &WITH_SAGAS[..1] };
        Self { sets, own: A::migrations() }
    }

    async fn apply(self, db: &mut PgConnection) -> Result<(), MigrateError> {
        migrations::apply_sets(&mut *db, DEFAULT_SCHEMA, self.sets).await?;
        if let Some(own) = self.own {
            own.run_direct(None, db, false).await?;
        }
        Ok(())
    }

    /// Those that are not applied: `core/0002` or, of the service's own, `0002`.
    async fn missing(self, db: &mut PgConnection) -> Vec<String> {
        let mut missing = Vec::new();
        for set in self.sets {
            let of = |version| format!("{}/{version:04}", set.name);
            missing.extend(set.missing(db, DEFAULT_SCHEMA).await.into_iter().map(of));
        }
        if let Some(own) = self.own {
            let versions = own.iter().map(|migration| migration.version);
            let own = migrations::missing(db, "_sqlx_migrations", versions).await;
            missing.extend(own.into_iter().map(|version| format!("{version:04}")));
        }
        missing
    }
}
