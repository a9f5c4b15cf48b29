//! The bootstrap of a service: settings, telemetry, database, HTTP with health checks, and supervised tasks. At a
//! stop the tasks are drained in order.
//!
//! A task that ends before a stop ends the whole service with exit code 1. A stop by a signal gives exit code 0.

pub mod audit;
pub mod config;
pub mod database_url;
mod files;
mod health;
pub mod http;
mod instance;
mod migrations;
mod on_demand;
mod parked;
pub mod problem;
mod readiness_probe;
mod relay;
pub mod roles;
mod run;
pub mod secret;
mod startup;
mod steps;
pub mod telemetry;
mod topics;
mod when_ready;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use futures::future::BoxFuture;
use sqlx::PgConnection;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::config::Common;
use self::health::Health;
use self::instance::InstanceName;
use self::migrations::Migrations;
pub use self::migrations::migrate;
use self::startup::Startup;
use self::topics::TopicWatch;
use crate::circuit_breaker::Dependency;
use crate::consumer::{Assigned, Consumer};
use crate::db::{DEFAULT_SCHEMA, Db, DbOptions};
use crate::housekeeper::Housekeeper;
use crate::kafka::{Kafka, Topic};
use crate::relay::Relay;
use crate::router::MessageRouter;

/// The definition of a service.
pub trait App: 'static {
    /// The name of the process, of its consumer group and of its database, and the `source` of its messages.
    const NAME: &'static str;
    /// The default port of the HTTP interface.
    const PORT: u16;
    /// The service's own settings beside [`Common`].
    type Config: Args + std::fmt::Debug + Send + Sync + 'static;
    /// The schema of the core's tables in the service's database.
    const SCHEMA: &'static str = DEFAULT_SCHEMA;
    /// The name of the service's Kafka clients, for the broker's logs and quotas.
    const CLIENT_ID: &'static str = "amends";
    /// How long the consumed topics keep messages. The default is Kafka's. The inbox must remember ids for longer.
    const TOPIC_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
    /// Returns the declarations of topics. The service examines those that it reads or writes: at its start, before it
    /// consumes or sends anything, and from time to time while it runs.
    fn topics() -> Vec<Topic> {
        Vec::new()
    }
    /// Returns whether the service writes to a topic.
    fn writes(_topic: &str) -> bool {
        true
    }
    /// Whether the service coordinates sagas, and therefore needs their tables.
    const COORDINATES_SAGAS: bool = false;
    /// Returns the migrations of the service's own tables, if it has any. They have their own history, so their
    /// numbers may begin at 1.
    fn migrations() -> Option<&'static Migrator> {
        None
    }
    /// Returns the OpenAPI document of the service's own routes.
    fn openapi() -> utoipa::openapi::OpenApi;
    /// Sets the service up: routes, handlers and tasks.
    ///
    /// # Errors
    /// Fails if the service cannot be set up. The process then ends with exit code 1.
    fn run(service: &mut Service<Self::Config>) -> anyhow::Result<()>;
}

/// A service's command line.
#[derive(Debug, Parser)]
struct CommandLine<C: Args> {
    /// Applies the migrations and exits.
    #[arg(long)]
    migrate: bool,
    /// Checks whether the running service is ready, and exits with 0 if it is. Otherwise it prints the reason and
    /// exits with 1.
    #[arg(long, conflicts_with = "migrate")]
    is_ready: bool,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    own: C,
}

/// A service that is being set up.
pub struct Service<C> {
    /// The service's own settings.
    pub config: C,
    common: Common,
    name: &'static str,
    db: Db,
    kafka: Kafka,
    router: Router,
    stages: Stages,
    failed: CancellationToken,
    /// The migrations that the database must have.
    migrations: Migrations,
    startup: Startup,
    housekeeper: Housekeeper,
    /// The external dependencies that the service calls.
    dependencies: Vec<Arc<Dependency>>,
    /// The messages that the service consumes.
    messages: Arc<MessageRouter>,
    assigned: Arc<Assigned>,
    topics: Arc<TopicWatch>,
    instance: Arc<InstanceName>,
}

/// The order of stopping: first the tasks that accept work, then those that finish it, then the relay.
#[derive(Clone, Default)]
struct Stages {
    intake: Stage,
    work: Stage,
    relay: Stage,
}

/// Tasks that are stopped together.
#[derive(Clone, Default)]
struct Stage {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Stage {
    /// Stops the tasks and waits for them.
    async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl<C: Send + Sync + 'static> Service<C> {
    fn new<A: App<Config = C>>(config: C, common: Common, db: Db, kafka: Kafka) -> Self {
        let instance = Arc::new(InstanceName::new(&db, common.instance.clone()));
        let topics = Arc::new(TopicWatch::new(&kafka, common.inbox_retention.min(common.step_retention)));
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
            startup: Startup::new(),
            dependencies: Vec::new(),
            messages: Arc::new(MessageRouter::new()),
            assigned: Arc::new(Assigned::new(false, false)),
            topics,
            instance,
        }
    }

    /// Returns the service's database, for handlers and tasks.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Returns the service's database for routes. They have connections of their own; see [`Db::for_requests`].
    pub fn requests_db(&self) -> Db {
        self.db.for_requests()
    }

    /// Returns a token that is cancelled when the service stops accepting work. Long responses such as event streams
    /// must then end.
    pub fn stopping(&self) -> CancellationToken {
        self.stages.intake.stop.clone()
    }

    /// Serves these routes, beside `/openapi.json`, the health checks, the audit, the parked messages, the steps of sagas
    /// and the relay's adoption.
    pub fn serve(&mut self, router: Router) {
        self.router = std::mem::take(&mut self.router).merge(router);
    }

    /// Consumes the messages of the router, and makes the external calls of its handlers.
    pub fn consume(&mut self, messages: MessageRouter) {
        for (command, worker) in messages.take_workers() {
            let db = self.db.clone();
            self.spawn_when_ready(&self.stages.work, command, |stop| async move {
                worker(db, stop).await;
                Ok(())
            });
        }
        self.dependencies = messages.dependencies.values().cloned().collect();
        self.messages = Arc::new(messages);
        let consumer =
            Consumer::new(self.db.clone(), self.kafka.clone(), self.name, Arc::clone(&self.messages))
                .static_member(self.common.instance.clone())
                .batch(usize::from(self.common.consumer_batch))
                .patience(self.common.consumer_patience);
        self.assigned = consumer.assigned();
        let (ready, topics) = (self.when_topics_ready(), Arc::clone(&self.topics));
        self.spawn_when_ready(&self.stages.intake, "consumer", |stop| async move {
            ready.await;
            topics.safe(&stop).await;
            // On the heap, because its type is nested too deeply for the compiler.
            Ok(Box::pin(consumer.run(stop)).await?)
        });
    }

    /// Runs a task beside the others. Its token is cancelled at the stop. If the task ends before that, the whole
    /// service fails.
    pub fn task<F>(&mut self, name: &'static str, task: impl FnOnce(CancellationToken) -> F + Send + 'static)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.spawn_when_ready(&self.stages.work, name, task);
    }

    fn spawn(
        &self,
        stage: &Stage,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let (failed, stop) = (self.failed.clone(), stage.stop.clone());
        #[expect(clippy::disallowed_methods, reason = "this is the supervision that the ban points to")]
        stage.tasks.spawn(async move {
            // A panic drops the guard too, so that it counts as an early end.
            let guard = failed.drop_guard();
            let ended = task.await;
            let expected = stop.is_cancelled();
            match ended {
                Ok(()) if expected => {
                    guard.disarm();
                }
                Ok(()) => tracing::error!(task = name, "the task ended before the stop; the service stops"),
                Err(error) => tracing::error!(task = name, ?error, "the task failed; the service stops"),
            }
        });
    }

    /// Waits until the topics are known to be the service's own. Only what reads or fills them needs to.
    fn when_topics_ready(&self) -> BoxFuture<'static, ()> {
        self.startup.broker(self.stages.intake.stop.clone())
    }

    /// Deletes old rows of one of the service's own tables, at the start and every ten minutes, by one replica at a
    /// time. `batch` deletes at most [`crate::housekeeper::BATCH`] rows and returns the number of deleted rows. It is
    /// repeated until it deletes fewer.
    pub fn prune<F>(&mut self, table: &'static str, batch: F)
    where
        F: for<'a> Fn(&'a mut PgConnection) -> BoxFuture<'a, Result<u64, sqlx::Error>>
            + Send
            + Sync
            + 'static,
    {
        self.housekeeper.prune(table, batch);
    }

    /// Returns how long the answer under an `Idempotency-Key` is kept.
    pub fn idempotency_key_retention(&self) -> Duration {
        self.common.idempotency_key_retention
    }

    fn run_housekeeper(&self) {
        let mut housekeeper = self.housekeeper.clone();
        let kept = self.common.idempotency_key_retention;
        housekeeper.prune("idempotency_answer", move |db| Box::pin(http::idempotency::prune(db, kept)));
        self.spawn_when_ready(&self.stages.work, "housekeeper", |stop| async move {
            housekeeper.run(stop).await;
            Ok(())
        });
    }

    fn relay(&self) {
        let relay = Relay::new(self.db.clone(), self.kafka.clone()).batch(self.common.relay_batch);
        for shard in relay.shards() {
            let ready = self.when_topics_ready();
            let topics = Arc::clone(&self.topics);
            self.spawn_when_ready(&self.stages.relay, "relay", |stop| async move {
                ready.await;
                // Otherwise a relay that is told to stop sends what was committed.
                if topics.safe(&stop).await {
                    shard.run(stop).await;
                }
                Ok(())
            });
        }
    }
}

/// Runs a service with the process's command line and returns the exit code. It is the whole `main` of a service.
pub fn main<A: App>() -> ExitCode {
    main_from::<A>(std::env::args_os())
}

/// Runs a service with this command line, whose first word is the program's name. See [`main`]. `amends serve
/// <service>` uses it.
pub fn main_from<A: App>(
    arguments: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>,
) -> ExitCode {
    let mut command = command::<A>();
    let words: Vec<std::ffi::OsString> = arguments.into_iter().map(Into::into).collect();
    let line = command
        .try_get_matches_from_mut(&words)
        .and_then(|matches| CommandLine::<A::Config>::from_arg_matches(&matches));
    match line {
        Ok(line) => run::process::<A>(line),
        Err(error) => {
            let error = secret::redact(error, &mut command, &words);
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { run::EX_USAGE } else { 0 })
        }
    }
}

/// Returns the service's command line, from which the help and the documents are generated.
pub fn command<A: App>() -> clap::Command {
    CommandLine::<A::Config>::command().name(A::NAME).about(format!("The {} service", A::NAME))
}

/// Returns the types of messages that a service consumes, sorted. It sets the service up with its default settings,
/// but neither starts nor connects it. It needs a tokio runtime.
///
/// # Errors
/// Fails if the service cannot be set up.
pub fn consumed_types<A: App>() -> anyhow::Result<Vec<&'static str>> {
    let line = CommandLine::<A::Config>::from_arg_matches(&command::<A>().try_get_matches_from([A::NAME])?)?;
    let db = DbOptions::new(A::NAME).connect(PgConnectOptions::new_without_pgpass());
    let kafka = Kafka::new(line.common.kafka_brokers.clone());
    let mut service = Service::new::<A>(line.own, line.common, db, kafka);
    // The tokens are cancelled first, so that its tasks end at once.
    service.stages.intake.stop.cancel();
    service.stages.work.stop.cancel();
    A::run(&mut service)?;
    Ok(service.messages.types())
}

/// Returns the OpenAPI document of a service, with the routes that all services have.
pub fn openapi<A: App>() -> utoipa::openapi::OpenApi {
    let common = parked::document().merge_from(steps::document()).merge_from(relay::document());
    A::openapi().merge_from(common).merge_from(audit::document())
}
