//! What must be true before a service works, and the task that waits for it: a database that answers, has the tables, and
//! is the service's own, a clock that agrees with the database's, and topics that are the service's own.
//!
//! What may pass is waited for, with the reason in the log and in `/readyz`. What will not pass by itself ends the
//! service, with the reason and what to correct.

use std::time::{Duration, Instant};

use anyhow::bail;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::{Connection, PgConnection};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::migrations::Migrations;
use super::problem::Problem;
use crate::db::Db;
use crate::db::server::{self, CLOCK_LIMIT, ServerError};
use crate::deadline::limited;
use crate::fault::Fault;
use crate::kafka::Kafka;
use crate::kafka::owners;
use crate::owner::{self, OwnerError};

/// How long to wait before the next try.
const TRY_EVERY: Duration = Duration::from_millis(200);
/// How long a request waits for the start.
const HELD_BACK: Duration = Duration::from_secs(3);
/// How often a reason that stays the same is logged.
const REMIND_EVERY: Duration = Duration::from_secs(30);
/// How often the clock is compared while the service runs.
const COMPARE_CLOCKS_EVERY: Duration = Duration::from_secs(10);

/// How far a service has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// The database is waited for.
    Database(String),
    /// The database is ready, and the broker is waited for.
    Broker(String),
    /// Everything is ready.
    Done,
}

/// The progress of a service's start. Tasks wait for it.
#[derive(Clone)]
pub(super) struct Startup {
    progress: watch::Sender<Progress>,
}

/// Why a service does not work yet.
enum Obstacle {
    /// It may pass.
    Passing(String),
    /// It will not pass by itself.
    Lasting(anyhow::Error),
}

impl From<sqlx::Error> for Obstacle {
    fn from(error: sqlx::Error) -> Self {
        Self::Passing(format!("the database does not answer: {error}"))
    }
}

impl From<ServerError> for Obstacle {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::Database(error) => error.into(),
            ServerError::Version { .. } | ServerError::Pooler => Self::Lasting(error.into()),
        }
    }
}

impl From<OwnerError> for Obstacle {
    fn from(error: OwnerError) -> Self {
        match error {
            OwnerError::Database(error) => error.into(),
            OwnerError::Foreign { .. } => Self::Lasting(error.into()),
        }
    }
}

impl Startup {
    pub(super) fn new() -> Self {
        Self { progress: watch::Sender::new(Progress::Database("the service is starting".to_owned())) }
    }

    /// Returns why the service does not work yet.
    pub(super) fn obstacle(&self) -> Option<String> {
        match &*self.progress.borrow() {
            Progress::Database(reason) | Progress::Broker(reason) => Some(reason.clone()),
            Progress::Done => None,
        }
    }

    /// Returns what is wrong with the database, if the service has not yet found it ready.
    fn without_database(&self) -> Option<String> {
        match &*self.progress.borrow() {
            Progress::Database(reason) => Some(reason.clone()),
            Progress::Broker(_) | Progress::Done => None,
        }
    }

    /// Waits until the database is ready, or until the service is stopped.
    pub(super) fn database(&self, stop: CancellationToken) -> BoxFuture<'static, ()> {
        self.reached(stop, |progress| !matches!(progress, Progress::Database(_)))
    }

    /// Waits until the broker is ready too, or until the service is stopped.
    pub(super) fn broker(&self, stop: CancellationToken) -> BoxFuture<'static, ()> {
        self.reached(stop, |progress| *progress == Progress::Done)
    }

    fn reached(&self, stop: CancellationToken, goal: fn(&Progress) -> bool) -> BoxFuture<'static, ()> {
        let mut progress = self.progress.subscribe();
        let wait = async move {
            // The sender lives as long as the service.
            let _ = stop.run_until_cancelled(progress.wait_for(goal)).await;
        };
        wait.boxed()
    }

    /// Brings the service up, then watches its clock until the stop.
    ///
    /// # Errors
    /// Fails if there is an obstacle that will not pass by itself, or if the clock is wrong while the service runs.
    pub(super) async fn run(
        self,
        db: Db,
        kafka: Kafka,
        migrations: Migrations,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let database = || look_at_database(&db, migrations).boxed();
        let Some(database) = self.until(&stop, Progress::Database, database).await? else { return Ok(()) };
        self.progress.send_replace(Progress::Broker("the broker is asked whose topics these are".to_owned()));
        let topics = || look_at_topics(&kafka, &db, database).boxed();
        let Some(()) = self.until(&stop, Progress::Broker, topics).await? else { return Ok(()) };
        self.progress.send_replace(Progress::Done);
        while stop.run_until_cancelled(tokio::time::sleep(COMPARE_CLOCKS_EVERY)).await.is_some() {
            // A database that does not answer is noticed by those who need it.
            let compared = limited(async { wrong_clock(&mut *db.read().await?).await }).await;
            if let Ok(Some(wrong)) = compared {
                bail!("{wrong}");
            }
        }
        Ok(())
    }

    /// Looks again and again, until there is no obstacle. Returns `None` after a stop.
    async fn until<'f, T>(
        &self,
        stop: &CancellationToken,
        waiting: fn(String) -> Progress,
        look: impl Fn() -> BoxFuture<'f, Result<T, Obstacle>> + Send,
    ) -> anyhow::Result<Option<T>> {
        let mut told: Option<(String, Instant)> = None;
        loop {
            let looked = limited(async { Ok::<_, Fault>(look().await) });
            let reason = match stop.run_until_cancelled(looked).await {
                None => return Ok(None),
                Some(Ok(Ok(found))) => return Ok(Some(found)),
                Some(Ok(Err(Obstacle::Lasting(error)))) => return Err(error),
                Some(Ok(Err(Obstacle::Passing(reason)))) => reason,
                Some(Err(silent)) => silent.to_string(),
            };
            let known =
                told.as_ref().is_some_and(|(last, at)| *last == reason && at.elapsed() < REMIND_EVERY);
            if !known {
                tracing::warn!("waiting: {reason}");
                self.progress.send_replace(waiting(reason.clone()));
                told = Some((reason, Instant::now()));
            }
            if stop.run_until_cancelled(tokio::time::sleep(TRY_EVERY)).await.is_none() {
                return Ok(None);
            }
        }
    }
}

/// Holds requests back until the database is known to be the service's own, and refuses them if that takes long. Before it,
/// nothing may be read or written.
pub(super) async fn only_with_a_database(
    State(startup): State<Startup>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if startup.without_database().is_some() {
        // Mostly it takes a moment after a restart, which clients need not notice.
        let _ = tokio::time::timeout(HELD_BACK, startup.database(CancellationToken::new())).await;
    }
    let Some(reason) = startup.without_database() else { return Ok(next.run(request).await) };
    let problem =
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "/problems/unavailable", "The service is starting");
    Err(problem.detail(format!("nothing was changed; waiting: {reason}")).retry_after(1))
}

/// Returns the id of the database if the service can work with it.
async fn look_at_database(db: &Db, migrations: Migrations) -> Result<Uuid, Obstacle> {
    let mut writer = db.connect().await?;
    server::check_version(&mut writer).await?;
    let mut reader = db.read().await?;
    server::check_sessions(&mut writer, &mut reader).await?;
    // Another service's database must not be called one that lacks migrations.
    owner::check(&mut writer, db.schema(), db.source()).await?;
    let missing = migrations.missing(&mut reader).await;
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(Obstacle::Passing(format!(
            "the migrations {missing} are not applied; run the service with --migrate"
        )));
    }
    if let Some(wrong) = wrong_clock(&mut reader).await? {
        return Err(Obstacle::Passing(wrong));
    }
    let database = owner::claim(&mut writer, db.schema(), db.source()).await?;
    // The server would log a connection that just vanishes.
    let _ = writer.close().await;
    Ok(database)
}

/// Says that the clock of this process is wrong, if it is.
async fn wrong_clock(db: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    let difference = server::clock_difference(db).await?;
    Ok((difference > CLOCK_LIMIT).then(|| {
        format!(
            "the clock of this process and that of the database differ by {} s, and {} s are allowed; set the clocks \
             (NTP), because the age of messages is judged by them",
            difference.as_secs(),
            CLOCK_LIMIT.as_secs()
        )
    }))
}

/// Takes the service's topics for its database.
async fn look_at_topics(kafka: &Kafka, db: &Db, database: Uuid) -> Result<(), Obstacle> {
    let (kafka, service) = (kafka.clone(), db.source());
    #[expect(clippy::disallowed_methods, reason = "the client blocks; it must not block the runtime")]
    let asked = tokio::task::spawn_blocking(move || owners::claim(&kafka, service, database));
    match asked.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if !error.may_pass() => Err(Obstacle::Lasting(error.into())),
        Ok(Err(error)) => Err(Obstacle::Passing(error.to_string())),
        Err(error) => Err(Obstacle::Passing(error.to_string())),
    }
}
