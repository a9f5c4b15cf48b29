//! `/healthz` (the process runs), `/readyz` (it can work) and `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::breaker::Outside;
use crate::db::Db;
use crate::kafka::{Inquirer, Kafka};
use crate::{relay, telemetry};

/// How long each check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// What readiness is made of.
pub(super) struct Health {
    pub db: Db,
    pub broker: Inquirer,
    pub stopping: CancellationToken,
    /// Set while partitions are assigned; not present in a service that consumes nothing.
    pub assigned: Arc<AtomicBool>,
    /// The versions of all migrations that the database must have.
    pub expected: Arc<[i64]>,
    /// What the service calls.
    pub outsides: Vec<Arc<Outside>>,
}

impl Health {
    pub(super) fn new(
        db: Db,
        kafka: &Kafka,
        topics: &[&str],
        expected: Arc<[i64]>,
        stopping: CancellationToken,
        assigned: Arc<AtomicBool>,
        outsides: Vec<Arc<Outside>>,
    ) -> anyhow::Result<Self> {
        Ok(Self { db, broker: Inquirer::new(kafka, topics)?, stopping, assigned, expected, outsides })
    }
}

/// The answer of `/readyz`.
#[derive(Serialize)]
struct Ready {
    ready: bool,
    checks: Vec<Check>,
}

#[derive(Serialize)]
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
}

pub(super) fn router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(metrics))
        .route("/readyz", get(ready))
        .with_state(health)
}

async fn metrics() -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], telemetry::render_metrics()).into_response()
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    // At once, so that whoever asks hears what is wrong while something does not answer.
    let (database, broker, standing_still) = tokio::join!(
        database(&health.db, &health.expected),
        broker(Arc::clone(&health)),
        standing_still(&health.db)
    );
    let (database, migrations) = match database {
        Ok(migrations) => (Ok(()), migrations),
        Err(error) => (Err(error), Err("the database does not answer".to_owned())),
    };
    let consumer = if health.stopping.is_cancelled() {
        Err("the service is stopping".to_owned())
    } else if health.assigned.load(Ordering::Acquire) {
        Ok(())
    } else {
        Err("no partitions are assigned yet".to_owned())
    };
    // A shard that stands still needs its operator, but the service can work: taking it out would help nobody.
    let relay = Check { name: "relay", ok: true, detail: standing_still };
    let mut checks = vec![
        Check::of("database", database),
        Check::of("migrations", migrations),
        Check::of("broker", broker),
        Check::of("consumer", consumer),
        relay,
    ];
    // An outside that is silent is nothing that taking the service out would mend: its steps wait.
    let outside =
        |outside: &Arc<Outside>| Check { name: "outside", ok: true, detail: Some(outside.standing()) };
    checks.extend(health.outsides.iter().map(outside));
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, checks })).into_response()
}

async fn database(db: &Db, expected: &[i64]) -> Result<Result<(), String>, String> {
    let check = async {
        let mut connection = db.read().await.map_err(|error| error.to_string())?;
        sqlx::query("select 1").execute(&mut *connection).await.map_err(|error| error.to_string())?;
        Ok(missing(&mut connection, expected).await)
    };
    let missing: Result<Vec<i64>, String> =
        tokio::time::timeout(CHECK_TIMEOUT, check).await.map_err(|_| "no answer in time".to_owned())?;
    let missing: Vec<String> = missing?.iter().map(|version| format!("{version:04}")).collect();
    if missing.is_empty() {
        return Ok(Ok(()));
    }
    Ok(Err(format!("{} not applied: run the service with --migrate", missing.join(", "))))
}

/// Which shards of the outbox stand still, and why; nothing if none does, or if the database does not say.
async fn standing_still(db: &Db) -> Option<String> {
    let ask = async {
        let mut connection = db.read().await.ok()?;
        relay::standing_still(&mut connection).await.ok()
    };
    let shards = tokio::time::timeout(CHECK_TIMEOUT, ask).await.ok()??;
    let lines = shards.iter().map(|(shard, reason)| format!("shard {shard} stands still: {reason}"));
    Some(lines.collect::<Vec<_>>().join("; ")).filter(|text| !text.is_empty())
}

/// Those of the migrations that are not applied; all of them in an empty database. The newest alone would not tell:
/// the core's later ones have lower numbers than a service's first.
async fn missing(db: &mut sqlx::PgConnection, expected: &[i64]) -> Vec<i64> {
    let applied =
        sqlx::query_scalar("select version from _sqlx_migrations where success").fetch_all(db).await;
    let applied: Vec<i64> = applied.unwrap_or_default();
    expected.iter().copied().filter(|version| !applied.contains(version)).collect()
}

async fn broker(health: Arc<Health>) -> Result<(), String> {
    #[expect(clippy::disallowed_methods, reason = "the client blocks; it must not block the runtime")]
    let asked = tokio::task::spawn_blocking(move || health.broker.missing(CHECK_TIMEOUT));
    let missing = asked.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("the topics {} are missing; `amends topics apply` creates them", missing.join(", ")))
}

/// Waits for the service's tables, so that a service may be started before its database.
pub(super) async fn wait_until_migrated(db: &Db, expected: &[i64], stop: &CancellationToken) {
    let mut told = false;
    loop {
        if let Ok(mut connection) = db.read().await
            && missing(&mut connection, expected).await.is_empty()
        {
            return;
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!("waiting for the database and its migrations");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
}
