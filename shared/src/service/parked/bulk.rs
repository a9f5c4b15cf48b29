//! The routes under `/parked-messages`: acts of an operator on many parked messages at once.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::routes::App;
use crate::parked::bulk::{self, Filter, Operator, Progress};
use crate::parked::store::bulk::CauseRow;
use crate::service::config::duration;
use crate::service::http::Body;
use crate::service::problem::{Invalid, Problem, operator_text};

pub(super) fn documented() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(skip)).routes(routes!(retry))
}

/// Which parked messages, and why. Every member of the selection that is set must match; at least one must be set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ParkedSelection)]
struct Selection {
    /// The type of the message.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// A part of the reason for which the message was parked.
    cause: Option<String>,
    /// The topic of the record.
    topic: Option<String>,
    /// The shortest time since the message was parked, for example `1h`.
    older_than: Option<String>,
    /// Only count what would be changed.
    #[serde(default)]
    dry_run: bool,
    /// The `next` of the previous answer.
    cursor: Option<i64>,
    reason: String,
    by: String,
}

impl Selection {
    /// Returns the filter, or what is wrong.
    fn read(&self) -> Result<Filter, Problem> {
        let mut invalid = Vec::new();
        invalid.extend(operator_text("reason", &self.reason).err());
        invalid.extend(operator_text("by", &self.by).err());
        for (pointer, text) in [("type", &self.kind), ("cause", &self.cause), ("topic", &self.topic)] {
            invalid.extend(text.as_ref().and_then(|text| operator_text(pointer, text).err()));
        }
        let older_than = self.older_than.as_deref().map(duration).transpose();
        let older_than = older_than.unwrap_or_else(|error| {
            invalid.push(Invalid::new("/olderThan", error));
            None
        });
        let (kind, cause, topic) = (self.kind.clone(), self.cause.clone(), self.topic.clone());
        let filter = Filter { kind, cause, topic, older_than };
        if filter.is_empty() {
            invalid.push(Invalid::new("", "must name a type, a cause, a topic or an age"));
        }
        if invalid.is_empty() { Ok(filter) } else { Err(Problem::invalid(invalid)) }
    }

    fn operator(&self) -> Operator<'_> {
        Operator { by: self.by.trim(), reason: self.reason.trim() }
    }
}

/// What was done, or what would be.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = ParkedProgress)]
struct Done {
    /// The number of messages that were skipped or replayed.
    messages: u64,
    /// The number of keys whose first message failed again.
    failed: u64,
    /// The `cursor` of the next request; it is there if one request was too short for all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
    /// In a dry run: what is selected, by its cause, at most 50 causes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    selected: Vec<Cause>,
}

/// Why messages are parked, and how many of them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ParkedCause)]
struct Cause {
    topic: String,
    /// The type of the messages, if they could be read.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    reason: String,
    messages: i64,
    keys: i64,
    /// The time at which the first of them was parked.
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
}

impl From<CauseRow> for Cause {
    fn from(row: CauseRow) -> Self {
        let CauseRow { topic, kind, reason, messages, keys, since } = row;
        Self { topic, kind, reason, messages, keys, since }
    }
}

impl From<Progress> for Done {
    fn from(progress: Progress) -> Self {
        let Progress { done, failed, next } = progress;
        Self { messages: done, failed, next, selected: Vec::new() }
    }
}

impl From<Vec<CauseRow>> for Done {
    fn from(causes: Vec<CauseRow>) -> Self {
        Self { selected: causes.into_iter().map(Cause::from).collect(), ..Self::default() }
    }
}

/// Skips the selected messages for good, wherever they are in their keys. They stay on record.
#[utoipa::path(post, path = "/parked-messages/skip", tag = "parked", request_body = Selection, responses(
    (status = 200, body = Done),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn skip(State(app): State<App>, Body(selection): Body<Selection>) -> Result<Json<Done>, Problem> {
    let filter = selection.read()?;
    if selection.dry_run {
        return Ok(Json(bulk::survey(&app.db, &filter, false).await?.into()));
    }
    let after = selection.cursor.unwrap_or(0);
    let skipped = bulk::skip(&app.db, &filter, after, selection.operator(), &app.stopping).await?;
    Ok(Json(skipped.into()))
}

/// Replays the keys whose first message is selected, each in order up to the first message that fails again.
#[utoipa::path(post, path = "/parked-messages/retry", tag = "parked", request_body = Selection, responses(
    (status = 200, body = Done),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn retry(State(app): State<App>, Body(selection): Body<Selection>) -> Result<Json<Done>, Problem> {
    let filter = selection.read()?;
    if selection.dry_run {
        return Ok(Json(bulk::survey(&app.db, &filter, true).await?.into()));
    }
    let after = selection.cursor.unwrap_or(0);
    let operator = selection.operator();
    let retried = bulk::retry(&app.db, &app.messages, &filter, after, operator, &app.stopping).await?;
    Ok(Json(retried.into()))
}
