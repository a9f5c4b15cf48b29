//! The routes under `/parked`: the parked messages of a service, and the actions of operators on them. Every service
//! has these routes. A key is percent-encoded in the path and may contain slashes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::views::{Changed, ParkedKey, ParkedKeys, ParkedMessage, ParkedMessages, Retried};
use crate::db::Db;
use crate::parked::replay::{self, Refused};
use crate::parked::store;
use crate::router::MessageRouter;
use crate::service::http::idempotency::{Begun, Repeatable};
use crate::service::http::{MessageBody, NoBody, Path, Query};
use crate::service::problem::{Invalid, Problem, operator_text};

/// The state of the routes.
#[derive(Clone)]
pub(crate) struct App {
    pub db: Db,
    pub messages: Arc<MessageRouter>,
    pub stopping: CancellationToken,
}

pub(super) fn documented() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(retry))
        .routes(routes!(edit))
        .routes(routes!(skip))
}

/// The reason for skipping a message, and the name of the operator.
#[derive(Debug, Deserialize, ToSchema)]
struct Skip {
    reason: String,
    by: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// The largest number of entries, at most 200.
    limit: Option<u16>,
    /// The `next` of the previous page.
    cursor: Option<i64>,
}

impl Page {
    /// Returns the cursor and the limit of the page.
    fn bounds(&self, usual: u16) -> (i64, usize) {
        (self.cursor.unwrap_or(0), usize::from(self.limit.unwrap_or(usual).clamp(1, 200)))
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct By {
    /// The name of the operator.
    by: String,
}

/// Lists the parked keys, the longest parked first.
#[utoipa::path(get, path = "/parked", tag = "parked", params(Page), responses((status = 200, body = ParkedKeys)))]
async fn list(State(app): State<App>, Query(page): Query<Page>) -> Result<Json<ParkedKeys>, Problem> {
    let (after, limit) = page.bounds(50);
    let mut rows = store::list_keys(&mut *app.db.for_lists().read().await?, after, limit as i64 + 1).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| row.first_id);
    Ok(Json(ParkedKeys { keys: rows.into_iter().map(ParkedKey::from).collect(), next }))
}

/// Lists the messages of a key, in order.
#[utoipa::path(get, path = "/parked/{key}", tag = "parked", params(("key" = String, Path), Page), responses(
    (status = 200, body = ParkedMessages),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn show(
    State(app): State<App>,
    Path(key): Path<String>,
    Query(page): Query<Page>,
) -> Result<Json<ParkedMessages>, Problem> {
    let (after, limit) = page.bounds(20);
    let mut rows =
        store::list_messages(&mut *app.db.for_lists().read().await?, &key, after, limit as i64 + 1).await?;
    if rows.is_empty() && after == 0 {
        return Err(unknown(&key));
    }
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| row.id);
    Ok(Json(ParkedMessages { key, messages: rows.into_iter().map(ParkedMessage::from).collect(), next }))
}

/// Replays the messages of a key in order, up to the first that fails again.
#[utoipa::path(post, path = "/parked/{key}/retry", tag = "parked", params(("key" = String, Path)), responses(
    (status = 200, body = Retried),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "No message of the key is parked any more",
     body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A message failed again",
     body = Problem, content_type = "application/problem+json"),
))]
async fn retry(State(app): State<App>, Path(key): Path<String>, _: NoBody) -> Result<Json<Retried>, Problem> {
    let replay = replay::retry(&app.db, &app.messages, &key, &app.stopping).await?;
    if let Some(failed) = replay.failed {
        let title = "A message failed again";
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "/problems/replay-failed", title);
        let before = match replay.replayed {
            0 => String::new(),
            1 => "1 message was replayed before it; ".to_owned(),
            many => format!("{many} messages were replayed before it; "),
        };
        return Err(problem.detail(format!("message {}: {before}{}", failed.id, failed.reason)));
    }
    match store::left(&mut *app.db.read().await?, &key).await? {
        None => Err(unknown(&key)),
        Some(0) if replay.replayed == 0 => {
            Err(not_parked(format!("nothing of the key {key} is parked any more")))
        }
        Some(left) => Ok(Json(Retried { key, replayed: replay.replayed, left })),
    }
}

/// Replaces the body of a message with a corrected envelope, which is the body of the request. The id of the message
/// must stay, and the subject must be the key. The old body is kept. This does not replay the message.
#[utoipa::path(put, path = "/parked/{key}/messages/{id}", tag = "parked",
    params(("key" = String, Path), ("id" = i64, Path), By),
    request_body(content = Object, description = "The envelope"),
    responses(
        (status = 200, body = Changed),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ))]
async fn edit(
    State(app): State<App>,
    Path((key, id)): Path<(String, i64)>,
    Query(query): Query<By>,
    MessageBody(body): MessageBody,
) -> Result<Json<Changed>, Problem> {
    let by = operator_text("by", &query.by);
    let by = by.map_err(|invalid| Problem::bad_request(format!("query: `by` {}", invalid.detail)))?;
    let edited = replay::edit(&app.db, &app.messages, &key, id, &body, by).await;
    edited.map_err(|refused| problem(&key, id, refused))?;
    let left = store::left(&mut *app.db.read().await?, &key).await?.unwrap_or(0);
    Ok(Json(Changed { key, id, left }))
}

/// Skips one message for good, so that those behind it can be replayed. The message stays on record.
#[utoipa::path(post, path = "/parked/{key}/messages/{id}/skip", tag = "parked",
    params(
        ("key" = String, Path),
        ("id" = i64, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "Repeats of the request get the first one's answer."),
    ),
    request_body = Skip,
    responses(
        (status = 200, body = Changed),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ))]
async fn skip(
    State(app): State<App>,
    Path((key, id)): Path<(String, i64)>,
    Repeatable { body: skip, once }: Repeatable<Skip>,
) -> Result<Response, Problem> {
    let (reason, by) = match (operator_text("reason", &skip.reason), operator_text("by", &skip.by)) {
        (Ok(reason), Ok(by)) => (reason, by),
        (reason, by) => {
            return Err(Problem::invalid([reason.err(), by.err()].into_iter().flatten().collect()));
        }
    };
    let mut uow = match once.begin(&app.db, std::slice::from_ref(&key)).await? {
        Begun::First(uow) => *uow,
        Begun::Repeated(answer) => return Ok(answer.into_response()),
    };
    let left = replay::skip(&mut uow, &key, id, reason, by).await;
    let left = left.map_err(|refused| problem(&key, id, refused))?;
    once.commit(uow, StatusCode::OK, &Changed { key, id, left }).await
}

fn unknown(key: &str) -> Problem {
    Problem::not_found(format!("nothing of the key {key} was ever parked here"))
}

fn not_parked(detail: String) -> Problem {
    Problem::new(StatusCode::CONFLICT, "/problems/not-parked", "It is not parked any more").detail(detail)
}

fn problem(key: &str, id: i64, refused: Refused) -> Problem {
    match refused {
        Refused::Unknown => {
            Problem::not_found(format!("no message {id} of the key {key} was ever parked here"))
        }
        Refused::NotParked { status, by } => {
            let by = by.map(|by| format!(" by {by}")).unwrap_or_default();
            not_parked(format!("message {id} of the key {key} was {status}{by}"))
        }
        Refused::Invalid(wrong) => {
            let invalid = wrong.into_iter().map(|(pointer, detail)| Invalid::new(pointer, detail));
            Problem::invalid(invalid.collect())
        }
        Refused::Fault(fault) => fault.into(),
    }
}
