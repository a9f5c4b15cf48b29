//! `GET /audit/outbox`, which every service has: what its outbox committed, to be compared with its topics.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::db::Db;
use crate::outbox::receipts::{self, OutboxLine};
use crate::relay;
use crate::service::http::Query;
use crate::service::problem::Problem;

/// The routes.
pub(crate) fn router(db: Db) -> axum::Router {
    documented().with_state(db).into()
}

/// What the routes add to a service's OpenAPI document.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    documented().into_openapi()
}

fn documented() -> OpenApiRouter<Db> {
    OpenApiRouter::new().routes(routes!(outbox))
}

/// The time to look back.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Window {
    /// The last so many minutes, at most 20160, which is two weeks; 5 unless given.
    minutes: Option<u16>,
}

/// What a service has committed to its outbox.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct OutboxLedger {
    /// The time of the service's database.
    #[serde(with = "time::serde::rfc3339")]
    now: OffsetDateTime,
    /// Counts by minute and topic.
    lines: Vec<OutboxLine>,
    /// The reasons why shards of the outbox stand still: the broker refuses a message of theirs for good, or the database
    /// was restored into another cluster.
    stopped: Vec<String>,
}

/// Returns what was committed to the outbox in the last minutes, and how much of it the broker has not acknowledged yet.
///
/// It reads the whole outbox, which holds the messages of the last three minutes, so call it seldom.
#[utoipa::path(get, path = "/audit/outbox", tag = "audit", params(Window), responses((status = 200, body = OutboxLedger)))]
async fn outbox(State(of): State<Db>, Query(window): Query<Window>) -> Result<Json<OutboxLedger>, Problem> {
    let minutes = i32::from(window.minutes.unwrap_or(5).clamp(1, 20_160));
    let mut db = of.scan().await?;
    let now = now(&mut db).await?;
    let lines = receipts::list(&mut db, minutes).await?;
    let stopped = relay::standing_still(&mut db).await?.into_iter().map(|(_, reason)| reason);
    let blocked = relay::blocked(&mut db, of.shards()).await?;
    let stopped = stopped.chain(blocked.map(|blocked| blocked.describe(of.source()))).collect();
    db.end().await?;
    Ok(Json(OutboxLedger { now, lines, stopped }))
}

/// Returns the time of the database's clock.
async fn now(db: &mut PgConnection) -> Result<OffsetDateTime, sqlx::Error> {
    sqlx::query_scalar("select clock_timestamp()").fetch_one(db).await
}
