//! The health routes: `/healthz` (the process runs), `/readyz` (it can work) and `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::circuit_breaker::Dependency;
use crate::consumer::{Assigned, gaps};
use crate::db::Db;
use crate::kafka::TopicChecker;
use crate::relay;
use crate::service::instance::InstanceName;
use crate::service::migrations::Migrations;
use crate::service::on_demand::OnDemand;
use crate::service::startup::Startup;
use crate::service::telemetry;
use crate::service::topics::TopicWatch;

/// The timeout of each check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How old an answer may be.
pub(super) const MAX_AGE: Duration = Duration::from_millis(500);
/// The timeout of the answer. The checks that are running may have begun too early for it.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(3500);

/// The sources of the readiness checks.
pub(super) struct Health {
    pub db: Db,
    pub broker: TopicChecker,
    pub stopping: CancellationToken,
    /// How far the service's start has come.
    pub startup: Startup,
    /// Whether the consumer has its share of the partitions.
    pub assigned: Arc<Assigned>,
    /// The migrations that the database must have.
    pub migrations: Migrations,
    /// The external dependencies that the service calls.
    pub dependencies: Vec<Arc<Dependency>>,
    pub topics: Arc<TopicWatch>,
    pub instance: Arc<InstanceName>,
}

/// The answer of `/readyz`.
#[derive(Clone, Serialize)]
pub(super) struct Ready {
    ready: bool,
    checks: Vec<Check>,
}

#[derive(Clone, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl Check {
    fn of(name: &'static str, result: Result<(), String>) -> Self {
        Self { name, ok: result.is_ok(), detail: result.err() }
    }

    /// Returns a check that does not fail because of a notice.
    fn noticed(name: &'static str, result: Result<Option<String>, String>) -> Self {
        let ok = result.is_ok();
        Self { name, ok, detail: result.unwrap_or_else(Some) }
    }
}

/// Returns the routes. `readiness` is computed by [`check`].
pub(super) fn router(readiness: OnDemand<Ready>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(metrics))
        .route("/readyz", get(ready))
        .with_state(readiness)
}

async fn metrics() -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], telemetry::render_metrics()).into_response()
}

async fn ready(State(readiness): State<OnDemand<Ready>>) -> Response {
    let ready = readiness.get(ANSWER_TIMEOUT).await.unwrap_or_else(|| {
        let stopping = Err("the service is stopping, or too busy to check itself".to_owned());
        Ready { ready: false, checks: vec![Check::of("service", stopping)] }
    });
    let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ready)).into_response()
}

/// Checks whether the service can work.
pub(super) async fn check(health: Arc<Health>) -> Ready {
    // The checks run at the same time, so that the answer arrives in time even if one of them gets no answer.
    let (database, broker, (relay, records)) = tokio::join!(
        database(&health.db, health.migrations),
        broker(Arc::clone(&health)),
        messages(&health.db)
    );
    let (database, migrations) = match database {
        Ok(migrations) => (Ok(()), migrations),
        Err(error) => (Err(error), Err("the database does not answer".to_owned())),
    };
    let consumer = if health.stopping.is_cancelled() {
        Err("the service is stopping".to_owned())
    } else if health.assigned.any_behind() {
        let service = health.db.source();
        Err(format!(
            "nothing is read: the consumer group has handled messages that this database does not know, so the database was \
             set back in time; run `amends consumer rewind --service {service}`, see docs/restore.md"
        ))
    } else if health.assigned.all() {
        Ok(())
    } else {
        Err("no partitions are assigned yet".to_owned())
    };
    let startup = health.startup.obstacle().map_or(Ok(()), Err);
    let mut checks = vec![
        Check::of("startup", startup),
        Check::of("database", database),
        Check::of("migrations", migrations),
        Check::of("broker", broker),
        Check::noticed("topics", health.topics.verdict()),
        Check::of("consumer", consumer),
        Check::of("instance", health.instance.verdict()),
        relay,
        records,
    ];
    // Declaring the service unready would not repair a silent dependency. The steps that need it wait.
    let dependency = |dependency: &Arc<Dependency>| Check {
        name: "dependency",
        ok: true,
        detail: Some(dependency.describe()),
    };
    checks.extend(health.dependencies.iter().map(dependency));
    Ready { ready: checks.iter().all(|check| check.ok), checks }
}

async fn database(db: &Db, migrations: Migrations) -> Result<Result<(), String>, String> {
    let check = async {
        let mut connection = db.read().await.map_err(|error| error.to_string())?;
        sqlx::query("select 1").execute(&mut *connection).await.map_err(|error| error.to_string())?;
        Ok(migrations.missing(&mut connection).await)
    };
    let missing: Result<Vec<String>, String> =
        tokio::time::timeout(CHECK_TIMEOUT, check).await.map_err(|_| "no answer in time".to_owned())?;
    let missing = missing?;
    if missing.is_empty() {
        return Ok(Ok(()));
    }
    Ok(Err(format!("{} not applied: run the service with --migrate", missing.join(", "))))
}

/// Checks whether the relays may send, and whether records were deleted before they were read. If the database does not
/// answer, another check says so.
async fn messages(db: &Db) -> (Check, Check) {
    let request = async {
        let mut connection = db.read().await?;
        let blocked = relay::blocked(&mut connection, db.shards()).await?;
        let shards = relay::standing_still(&mut connection).await?;
        Ok::<_, sqlx::Error>((blocked, shards, gaps::noticed(&mut connection).await?))
    };
    let Ok(Ok((blocked, shards, gaps))) = tokio::time::timeout(CHECK_TIMEOUT, request).await else {
        return (Check::of("relay", Ok(())), Check::of("records", Ok(())));
    };
    let joined = |lines: Vec<String>| Some(lines.join("; ")).filter(|text| !text.is_empty());
    let shards = shards.iter().map(|(shard, reason)| format!("shard {shard} is stopped: {reason}")).collect();
    let relay = match blocked {
        Some(blocked) => Err(blocked.describe(db.source())),
        // A stopped shard needs an operator, but the service can work. Declaring it unready would not help.
        None => Ok(joined(shards)),
    };
    // Nor can a service bring back records that were deleted before it read them.
    let records = Ok(joined(gaps.iter().map(ToString::to_string).collect()));
    (Check::noticed("relay", relay), Check::noticed("records", records))
}

async fn broker(health: Arc<Health>) -> Result<(), String> {
    #[expect(clippy::disallowed_methods, reason = "the client blocks; it must not block the runtime")]
    let running = tokio::task::spawn_blocking(move || health.broker.missing(CHECK_TIMEOUT));
    let missing = running.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("the topics {} are missing; `amends topics apply` creates them", missing.join(", ")))
}
