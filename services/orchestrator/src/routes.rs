//! The orchestrator's HTTP interface: where sagas stand.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::db::Db;
use shared::http::{Path, Query};
use shared::problem::{Invalid, Problem};
use time::OffsetDateTime;
use utoipa::{IntoParams, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::engine::{State as SagaState, StepStatus};
use crate::sagas::{Registry, replay};
use crate::store::{self, LogRow, SagaRow};

#[derive(OpenApi)]
#[openapi(info(title = "Amends: orchestrator", description = "Where the sagas stand."))]
struct Document;

/// What the routes work with.
#[derive(Clone)]
pub struct App {
    pub db: Db,
    pub registry: Arc<Registry>,
}

/// The routes, and their OpenAPI document.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi()).routes(routes!(list)).routes(routes!(get))
}

/// A saga.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SagaView {
    id: Uuid,
    order_id: String,
    /// Name and version, `place_order@1`.
    definition: String,
    /// `running`, `compensating`, `completed`, `compensated` or `stuck`.
    status: String,
    /// Why it was undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    /// When it is woken if nothing happens before.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    next_deadline: Option<OffsetDateTime>,
    steps: Vec<StepView>,
}

/// A step of a saga.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StepView {
    name: String,
    /// Steps of one group run side by side.
    group: usize,
    status: StepStatus,
    /// How often it was asked, in its present direction.
    attempts: u32,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    asked_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    ended_at: Option<OffsetDateTime>,
}

/// A saga with its log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SagaWithLog {
    #[serde(flatten)]
    saga: SagaView,
    /// Every input that changed it, and what was decided.
    log: Vec<LogView>,
}

/// An entry of a saga's log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LogView {
    sequence: i32,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    /// The message that brought the input.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<Uuid>,
    #[schema(value_type = Object)]
    input: Box<RawValue>,
    /// What the step replied, if the saga keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    reply: Option<Box<RawValue>>,
    #[schema(value_type = Vec<Object>)]
    decisions: Box<RawValue>,
}

/// A page of sagas.
#[derive(Debug, Serialize, ToSchema)]
struct SagaPage {
    sagas: Vec<SagaView>,
    /// Give it as `cursor` to get the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Uuid>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only sagas with this status.
    status: Option<String>,
    /// How many, at most 200.
    limit: Option<u16>,
    /// Where the page before ended.
    cursor: Option<Uuid>,
}

const STATUSES: [&str; 5] = ["running", "compensating", "completed", "compensated", "stuck"];

/// The sagas, the newest first.
#[utoipa::path(get, path = "/sagas", params(ListQuery), responses(
    (status = 200, body = SagaPage),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn list(State(app): State<App>, Query(query): Query<ListQuery>) -> Result<Json<SagaPage>, Problem> {
    if let Some(status) = &query.status
        && !STATUSES.contains(&status.as_str())
    {
        let detail = format!("`{status}` is none of {}", STATUSES.join(", "));
        return Err(Problem::invalid(vec![Invalid::new("/status", detail)]));
    }
    let limit = i64::from(query.limit.unwrap_or(50).clamp(1, 200));
    let mut db = app.db.read().await?;
    let rows = store::list(&mut db, query.status.as_deref(), query.cursor, limit).await?;
    let next = rows.last().filter(|_| rows.len() as i64 == limit).map(|row| row.saga_id);
    let beyond = store::find_beyond(&mut db, &rows).await?;
    let view = |row| view(&app.registry, row, &beyond);
    let sagas = rows.into_iter().map(view).collect::<Result<_, Problem>>()?;
    Ok(Json(SagaPage { sagas, next }))
}

/// The saga of an order.
#[utoipa::path(get, path = "/sagas/{orderId}", params(("orderId" = Uuid, Path, description = "The order's id")),
    responses(
        (status = 200, body = SagaWithLog),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ))]
async fn get(State(app): State<App>, Path(order): Path<Uuid>) -> Result<Json<SagaWithLog>, Problem> {
    let mut db = app.db.read().await?;
    let sagas = store::find_by_subject(&mut db, &order.to_string()).await?;
    let Some(row) = sagas.into_iter().next() else {
        return Err(Problem::not_found(format!("there is no saga for the order {order}, or not yet")));
    };
    let log = store::find_log(&mut db, row.saga_id).await?;
    let saga = view(&app.registry, row, &log)?;
    Ok(Json(SagaWithLog { saga, log: log.into_iter().map(LogView::from).collect() }))
}

/// How a saga stands. `log` may have entries of other sagas too.
fn view(registry: &Registry, row: SagaRow, log: &[LogRow]) -> Result<SagaView, Problem> {
    let beyond = |entry: &&LogRow| entry.saga_id == row.saga_id && entry.sequence > row.sequence;
    let beyond: Vec<&LogRow> = log.iter().filter(beyond).collect();
    let updated_at = beyond.last().map_or(row.updated_at, |entry| entry.at);
    let mut state: SagaState = serde_json::from_str(row.state.0.get())?;
    // A saga that has ended may be older than any definition that is still here; its row says all.
    let definition = registry.find(&row.definition, row.version).ok();
    if let Some(definition) = definition {
        replay(definition.shape(), &mut state, beyond, |_, _| Ok(()))?;
    }
    let names = definition.map(|found| found.shape().steps.clone()).unwrap_or_default();
    let step = |(index, step): (usize, crate::engine::StepState)| StepView {
        name: names.get(index).map_or_else(|| format!("step {index}"), |shape| shape.name.to_owned()),
        group: names.get(index).map_or(index, |shape| shape.group),
        status: step.status,
        attempts: step.attempts,
        asked_at: step.asked_at,
        ended_at: step.ended_at,
    };
    Ok(SagaView {
        id: row.saga_id,
        order_id: row.subject,
        definition: format!("{}@{}", row.definition, row.version),
        status: state.status.as_str().to_owned(),
        reason: state.refusal.map(|refusal| refusal.code),
        started_at: row.started_at,
        updated_at,
        next_deadline: row.due_at,
        steps: state.steps.into_iter().enumerate().map(step).collect(),
    })
}

impl From<LogRow> for LogView {
    fn from(row: LogRow) -> Self {
        Self {
            sequence: row.sequence,
            at: row.at,
            message_id: row.message_id,
            input: row.input.0,
            reply: row.reply.map(|reply| reply.0),
            decisions: row.decisions.0,
        }
    }
}
