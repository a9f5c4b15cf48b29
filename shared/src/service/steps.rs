//! The routes under `/steps`, which every service has: the saga steps at this service, and the resolution of an open one by
//! an operator. `/operator-acts` lists what operators have done.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::db::Db;
use crate::envelope::Direction;
use crate::operator_act::{self, ActRow};
use crate::router::MessageRouter;
use crate::saga::external_call::Resolution;
use crate::saga::external_call::resolution::{self, Unresolved, store};
use crate::service::http::{Body, Path, Query};
use crate::service::problem::{Invalid, Problem, operator_text};
use crate::step_outcome::StepKey;

/// The largest number of open steps in one answer.
const MAX_OPEN: i64 = 200;

/// The state of the routes.
#[derive(Clone)]
pub(super) struct App {
    pub db: Db,
    pub messages: Arc<MessageRouter>,
}

/// Returns the routes.
pub(super) fn router(app: App) -> axum::Router {
    documented().with_state(app).into()
}

/// Returns the OpenAPI document of the routes.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    documented().into_openapi()
}

fn documented() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(open))
        .routes(routes!(of_saga))
        .routes(routes!(resolve))
        .routes(routes!(acts))
}

/// Steps at this service.
#[derive(Debug, Serialize, ToSchema)]
struct Steps {
    steps: Vec<StepView>,
}

/// A step of a saga at this service.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ParticipantStep)]
struct StepView {
    saga_id: Uuid,
    step: String,
    /// `do` or `undo`.
    direction: String,
    /// The type of the command.
    #[serde(rename = "type")]
    kind: String,
    /// What the command is about, while a call is to be made for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// `pending` (the provider has not answered), `done`, `refused`, or `tombstoned` (undone before it began).
    status: String,
    /// Whether the provider still has to withdraw what it may have done.
    withdrawing: bool,
    /// The number of calls without an answer.
    attempts: i32,
    /// The time from which the step is open, or the time of its outcome.
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
    /// The time of the next call, if there is one.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    next_call_at: Option<OffsetDateTime>,
}

impl From<store::StepRow> for StepView {
    fn from(row: store::StepRow) -> Self {
        Self {
            subject: row.subject(),
            withdrawing: row.claimed_until.is_some() && row.status != "pending",
            saga_id: row.saga_id,
            step: row.step,
            direction: row.direction,
            kind: row.kind,
            status: row.status,
            attempts: row.attempts,
            since: row.recorded_at,
            next_call_at: row.claimed_until,
        }
    }
}

/// Lists the steps for which this service has to call a provider, the longest open first, at most 200.
#[utoipa::path(get, path = "/steps", tag = "steps", responses((status = 200, body = Steps)))]
async fn open(State(app): State<App>) -> Result<Json<Steps>, Problem> {
    let rows = store::list_open(&mut *app.db.for_lists().read().await?, MAX_OPEN).await?;
    Ok(Json(Steps { steps: rows.into_iter().map(StepView::from).collect() }))
}

/// Lists the steps of a saga at this service.
#[utoipa::path(get, path = "/steps/{sagaId}", tag = "steps", params(("sagaId" = Uuid, Path)), responses(
    (status = 200, body = Steps),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn of_saga(State(app): State<App>, Path(saga): Path<Uuid>) -> Result<Json<Steps>, Problem> {
    let rows = store::find_steps(&mut *app.db.read().await?, saga).await?;
    if rows.is_empty() {
        return Err(Problem::not_found(format!("no step of the saga {saga} is on record here")));
    }
    Ok(Json(Steps { steps: rows.into_iter().map(StepView::from).collect() }))
}

/// The outcome that an operator states for an open step.
#[derive(Debug, Deserialize, ToSchema)]
struct ResolveStep {
    /// `undo` for the undo of the step; `do` if it is left out.
    direction: Option<String>,
    /// `done` or `refused`.
    outcome: String,
    /// Why it counts as refused: a refusal code of the command.
    code: Option<String>,
    /// What the service must know of the provider's answer, if it is done.
    #[schema(value_type = Option<Object>)]
    reply: Option<Value>,
    /// How the operator knows.
    reason: String,
    /// The name of the operator.
    by: String,
}

impl ResolveStep {
    /// Returns the direction and the resolution, or what is wrong.
    fn read(&self) -> Result<(Direction, Resolution), Vec<Invalid>> {
        let mut invalid = Vec::new();
        invalid.extend(operator_text("reason", &self.reason).err());
        invalid.extend(operator_text("by", &self.by).err());
        let direction = match self.direction.as_deref() {
            None | Some("do") => Direction::Do,
            Some("undo") => Direction::Undo,
            Some(_) => {
                invalid.push(Invalid::new("/direction", "is `do` or `undo`"));
                Direction::Do
            }
        };
        let resolution = match (self.outcome.as_str(), &self.code, &self.reply) {
            ("done", None, reply) => {
                let reply = reply.clone().unwrap_or_else(|| json!({}));
                // PostgreSQL has no text with a NUL character.
                if !reply.is_object() || reply.to_string().contains("\\u0000") {
                    invalid.push(Invalid::new("/reply", "is a JSON object without NUL characters"));
                }
                Some(Resolution::Done { reply })
            }
            ("done", Some(_), _) => {
                invalid.push(Invalid::new("/code", "a step that is done has no code"));
                None
            }
            ("refused", Some(code), None) => Some(Resolution::Refused { code: code.clone() }),
            ("refused", None, _) => {
                invalid.push(Invalid::new("/code", "a refused step needs the code of its refusal"));
                None
            }
            ("refused", _, Some(_)) => {
                invalid.push(Invalid::new("/reply", "a refused step has no reply"));
                None
            }
            _ => {
                invalid.push(Invalid::new("/outcome", "is `done` or `refused`"));
                None
            }
        };
        match resolution {
            Some(resolution) if invalid.is_empty() => Ok((direction, resolution)),
            _ => Err(invalid),
        }
    }
}

/// Resolves an open step: its provider does not answer, and an operator has found out what it did.
///
/// The service records the outcome as if the provider had answered so, and answers the saga. A later answer changes nothing.
/// If the step is refused, the provider is told to withdraw what it may have done, until it answers.
#[utoipa::path(post, path = "/steps/{sagaId}/{step}/resolution", tag = "steps", request_body = ResolveStep,
    params(("sagaId" = Uuid, Path), ("step" = String, Path)),
    responses(
        (status = 200, body = Steps),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The step is not open.", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ))]
async fn resolve(
    State(app): State<App>,
    Path((saga_id, step)): Path<(Uuid, String)>,
    Body(input): Body<ResolveStep>,
) -> Result<Json<Steps>, Problem> {
    let (direction, resolution) = input.read().map_err(Problem::invalid)?;
    // PostgreSQL has no such text, so no step has such a name.
    let step = step.replace('\0', "\u{fffd}");
    let step = StepKey { saga_id, step, direction };
    let operator = (input.by.trim(), input.reason.trim());
    let resolved = resolution::resolve(&app.db, &app.messages, &step, &resolution, operator).await;
    resolved.map_err(|unresolved| problem(&step, unresolved))?;
    let rows = store::find_steps(&mut *app.db.read().await?, saga_id).await?;
    Ok(Json(Steps { steps: rows.into_iter().map(StepView::from).collect() }))
}

fn problem(step: &StepKey, unresolved: Unresolved) -> Problem {
    let name = step.step.escape_debug();
    match unresolved {
        Unresolved::Unknown => Problem::not_found(format!(
            "the step {name} ({}) of the saga {} is not on record here",
            step.direction.as_str(),
            step.saga_id
        )),
        Unresolved::NotOpen(status) => {
            let title = "The step is not open";
            Problem::new(StatusCode::CONFLICT, "/problems/step-not-open", title)
                .detail(format!("{name} ({}) is {status}", step.direction.as_str()))
        }
        Unresolved::Unfit(text) => {
            let (pointer, detail) = match text.split_once(' ') {
                Some((pointer, detail)) if pointer.starts_with('/') => (pointer, detail),
                _ => ("/outcome", text.as_str()),
            };
            Problem::invalid(vec![Invalid::new(pointer, detail)])
        }
        Unresolved::Fault(fault) => fault.into(),
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ActsQuery {
    /// The largest number of acts, at most 200.
    limit: Option<u16>,
    /// The `next` of the previous page.
    cursor: Option<Uuid>,
}

/// A page of operators' acts.
#[derive(Debug, Serialize, ToSchema)]
struct Acts {
    acts: Vec<ActView>,
    /// The `cursor` of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Uuid>,
}

/// An act of an operator.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OperatorAct)]
struct ActView {
    id: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    /// What was done, for example `resolve_step`.
    act: String,
    by: String,
    reason: String,
    /// What it was done to.
    #[schema(value_type = Object)]
    detail: Value,
}

impl From<ActRow> for ActView {
    fn from(row: ActRow) -> Self {
        Self { id: row.id, at: row.at, act: row.act, by: row.by, reason: row.reason, detail: row.detail.0 }
    }
}

/// Lists what operators have done at this service, the newest first.
#[utoipa::path(get, path = "/operator-acts", tag = "steps", params(ActsQuery), responses((status = 200, body = Acts)))]
async fn acts(State(app): State<App>, Query(query): Query<ActsQuery>) -> Result<Json<Acts>, Problem> {
    let limit = i64::from(query.limit.unwrap_or(50).clamp(1, 200));
    let rows = operator_act::list(&mut *app.db.for_lists().read().await?, query.cursor, limit).await?;
    let next = rows.last().filter(|_| rows.len() as i64 == limit).map(|row| row.id);
    Ok(Json(Acts { acts: rows.into_iter().map(ActView::from).collect(), next }))
}
