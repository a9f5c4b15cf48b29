//! The bootstrap of a service: settings, telemetry, database, HTTP with health, and supervised tasks that drain in
//! order when the process is told to stop.
//!
//! A task that ends before it is told to stops the whole service with exit code 1; a signal ends it with 0.

mod ask;
mod health;
mod run;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use sqlx::PgConnection;
use sqlx::migrate::Migrator;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::health::Health;
use crate::breaker::Outside;
use crate::config::Common;
use crate::consumer::{BoxFuture, Consumer, Table};
use crate::db::Db;
use crate::effects::{self, Effect};
use crate::envelope::Command;
use crate::kafka::Kafka;
use crate::relay::Relay;
use crate::retention::{Keeper, Prune, Retention};
use crate::{audit, http, parked, telemetry};

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
    /// Its own tables, numbered from 0101.
    fn migrations() -> &'static Migrator;
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
    /// The migrations that the database must have.
    expected: Arc<[i64]>,
    /// Tables of its own from which old rows are deleted.
    prunes: Vec<Prune>,
    /// What it calls, by name.
    outsides: BTreeMap<&'static str, Arc<Outside>>,
    /// What it consumes.
    table: Arc<Table>,
    assigned: Arc<AtomicBool>,
    instance: String,
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

    /// Adds the commands of type `T`, carried out with the help of the outside, to a table.
    pub fn effect<T: Command>(&mut self, table: Table, effect: &Arc<impl Effect<T>>) -> Table {
        let outside = self.outside(effects::outside::<T, _>(&**effect));
        let (intake, caller) =
            effects::effect(self.db.clone(), self.instance.clone(), outside, Arc::clone(effect));
        let stop = self.stages.work.stop.clone();
        let ready = self.when_migrated();
        self.spawn(&self.stages.work, T::TYPE, async move {
            ready.await;
            caller.run(stop).await;
            Ok(())
        });
        table.effect(intake)
    }

    /// The outside with this name, whose circuit breaker all its callers share. How it stands is in `/readyz`.
    pub fn outside(&mut self, name: &'static str) -> Arc<Outside> {
        Arc::clone(self.outsides.entry(name).or_insert_with(|| Arc::new(Outside::new(name))))
    }

    /// Consumes the messages of the table.
    pub fn consume(&mut self, table: Table) {
        self.table = Arc::new(table);
        let consumer = Consumer {
            db: self.db.clone(),
            kafka: self.kafka.clone(),
            table: Arc::clone(&self.table),
            group: self.name,
            instance: self.common.instance.clone(),
            batch: usize::from(self.common.consumer_batch),
            assigned: Arc::clone(&self.assigned),
        };
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
        let (db, expected, stop) =
            (self.db.clone(), Arc::clone(&self.expected), self.stages.intake.stop.clone());
        async move { health::wait_until_migrated(&db, &expected, &stop).await }
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
        self.prunes.push(Prune { table, batch: Arc::new(batch) });
    }

    fn keep(&self) {
        let keeper = Keeper { db: self.db.clone(), own: self.prunes.clone() };
        let (stop, ready) = (self.stages.work.stop.clone(), self.when_migrated());
        self.spawn(&self.stages.work, "retention", async move {
            ready.await;
            keeper.run(stop).await;
            Ok(())
        });
    }

    fn relay(&self) {
        for shard in 0..self.db.shards() {
            let relay = Relay {
                db: self.db.clone(),
                kafka: self.kafka.clone(),
                shard,
                owner: self.instance.clone(),
                batch: i64::from(self.common.relay_batch),
            };
            let (stop, ready) = (self.stages.relay.stop.clone(), self.when_migrated());
            self.spawn(&self.stages.relay, "relay", async move {
                ready.await;
                relay.run(stop).await;
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

/// The document of a service's HTTP interface, with the routes that all have.
pub fn openapi<A: App>() -> utoipa::openapi::OpenApi {
    A::openapi().merge_from(parked::document()).merge_from(audit::document())
}

/// The messaging core's migrations and the service's own, in one history.
pub fn migrations<A: App>() -> Migrator {
    let all = crate::MIGRATIONS.iter().chain(A::migrations().iter()).cloned().collect();
    Migrator::with_migrations(all)
}

/// Between half and all of `wait`, so that what failed together does not try again together.
pub(crate) fn jittered(wait: Duration) -> Duration {
    // Ids are random in their low bits; a generator of its own would be one more dependency.
    let random = (crate::envelope::new_id().as_u128() & 0xffff) as u32;
    wait / 2 + wait / 2 * random / 0xffff
}
