//! The orchestrator's HTTP interface: where sagas stand, and what an operator can do about one that is stuck.

mod views;

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use shared::db::Db;
use shared::saga::coordinator::Operator;
use shared::saga::registry::Registry;
use shared::saga::store::{self, SagaRow};
use shared::service::audit::report;
use shared::service::http::idempotency::{self, Begun, Repeatable};
use shared::service::http::{Path, Query, Trace};
use shared::service::problem::{Invalid, Problem, operator_text};
use sqlx::PgConnection;
use utoipa::{IntoParams, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use self::views::{LogView, SagaView, SagaWithLog, view};
use crate::store::audit::Figures;

#[derive(OpenApi)]
#[openapi(info(title = "Amends: orchestrator", description = "Where the sagas stand."))]
struct Document;

/// The state of the routes.
#[derive(Clone)]
pub(crate) struct App {
    pub db: Db,
    pub registry: Arc<Registry>,
    pub operator: Operator,
}

impl FromRef<App> for Db {
    fn from_ref(app: &App) -> Self {
        app.db.clone()
    }
}

/// Returns the routes with their OpenAPI document.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(retry))
        .merge(report::router::<Figures, _>())
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
    /// The `next` of the page before.
    cursor: Option<Uuid>,
}

const STATUSES: [&str; 5] = ["running", "compensating", "completed", "compensated", "stuck"];

/// Lists the sagas, the newest first.
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
    let mut db = app.db.for_lists().read().await?;
    let rows = store::list(&mut db, query.status.as_deref(), query.cursor, limit).await?;
    let next = rows.last().filter(|_| rows.len() as i64 == limit).map(|row| row.saga_id);
    let beyond = store::find_beyond(&mut db, &rows).await?;
    let view = |row| view(&app.registry, row, &beyond);
    let sagas = rows.into_iter().map(view).collect::<Result<_, Problem>>()?;
    Ok(Json(SagaPage { sagas, next }))
}

/// An operator's request to retry a saga.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Retry {
    /// The operator's name, for the log of the saga.
    by: String,
    /// Why the saga should work now, for the log of the saga.
    reason: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
struct IdQuery {
    /// With `sagaId=true` the id in the path is a saga's id, never an order's.
    saga_id: Option<bool>,
}

impl IdQuery {
    async fn find(&self, db: &mut PgConnection, id: Uuid) -> Result<SagaRow, Problem> {
        if self.saga_id == Some(true) { find_by_saga_id(db, id).await } else { find_by_any_id(db, id).await }
    }
}

/// Returns a saga with its log. The id is the saga's or the order's.
///
/// With an order's id, the answer is a saga about the order that is under way, or else the newest. An order's first saga has
/// the id of the order. `sagaId=true` selects that one.
#[utoipa::path(get, path = "/sagas/{id}", params(("id" = Uuid, Path, description = "The saga's id, or the order's"), IdQuery),
    responses(
        (status = 200, body = SagaWithLog),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ))]
async fn get(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    Query(query): Query<IdQuery>,
) -> Result<Json<SagaWithLog>, Problem> {
    let mut db = app.db.read().await?;
    let row = query.find(&mut db, id).await?;
    show(&app, &mut db, row).await
}

/// Retries a saga: every open step is asked at once, as if it had not been asked before.
///
/// The log of the saga records who asked for it, and why.
#[utoipa::path(post, path = "/sagas/{id}/retry", request_body = Retry,
    params(
        ("id" = Uuid, Path, description = "The saga's id, or the order's"),
        IdQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "A repeat of the request asks nothing, and gets the saga as it is."),
    ),
    responses(
        (status = 200, body = SagaWithLog, headers(("Idempotency-Replayed" = String))),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The saga has ended.", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ))]
async fn retry(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    Query(query): Query<IdQuery>,
    trace: Trace,
    Repeatable { body: input, once }: Repeatable<Retry>,
) -> Result<Response, Problem> {
    let (by, reason) = match (operator_text("by", &input.by), operator_text("reason", &input.reason)) {
        (Ok(by), Ok(reason)) => (by.to_owned(), reason.to_owned()),
        (by, reason) => {
            return Err(Problem::invalid([by.err(), reason.err()].into_iter().flatten().collect()));
        }
    };
    let row = query.find(&mut *app.db.read().await?, id).await?;
    let saga = row.saga_id;
    let mut uow = match once.begin(&app.db, std::slice::from_ref(&row.subject)).await? {
        Begun::First(uow) => *uow,
        Begun::Repeated(_) => {
            let mut response = present(&app, saga).await?.into_response();
            idempotency::mark_replayed(response.headers_mut());
            return Ok(response);
        }
    };
    if has_ended(&row) {
        let title = "The saga has ended";
        return Err(Problem::new(StatusCode::CONFLICT, "/problems/not-open", title)
            .detail(format!("it is {}; there is nothing to retry", row.status)));
    }
    app.operator.retry(&mut uow, saga, row.subject, trace.0, by, reason).await?;
    once.commit_without_answer(uow).await?;
    Ok(present(&app, saga).await?.into_response())
}

/// Returns a saga as it is now.
async fn present(app: &App, saga: Uuid) -> Result<Json<SagaWithLog>, Problem> {
    let mut db = app.db.read().await?;
    let row = find_by_saga_id(&mut db, saga).await?;
    show(app, &mut db, row).await
}

/// Returns the saga for a saga's id or an order's id.
///
/// An order's first saga has the id of the order. Such an id therefore selects, of all sagas about the order, one that is
/// under way, or else the newest.
async fn find_by_any_id(db: &mut PgConnection, id: Uuid) -> Result<SagaRow, Problem> {
    let mut about_order = store::find_by_subject(db, &id.to_string()).await?;
    let open = about_order.iter().position(|row| !has_ended(row)).unwrap_or(0);
    let row = if about_order.is_empty() {
        store::find_sagas(db, &[id]).await?.pop()
    } else {
        Some(about_order.swap_remove(open))
    };
    row.ok_or_else(|| {
        Problem::not_found(format!("there is no saga {id} and none of an order {id}, or not yet"))
    })
}

async fn find_by_saga_id(db: &mut PgConnection, saga: Uuid) -> Result<SagaRow, Problem> {
    let row = store::find_sagas(db, &[saga]).await?.pop();
    row.ok_or_else(|| Problem::not_found(format!("there is no saga {saga}")))
}

fn has_ended(row: &SagaRow) -> bool {
    matches!(row.status.as_str(), "completed" | "compensated")
}

async fn show(app: &App, db: &mut PgConnection, row: SagaRow) -> Result<Json<SagaWithLog>, Problem> {
    let log = store::find_log(db, row.saga_id).await?;
    let saga = view(&app.registry, row, &log)?;
    Ok(Json(SagaWithLog { saga, log: log.into_iter().map(LogView::from).collect() }))
}
