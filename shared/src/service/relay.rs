//! `POST /relay/adoption`, which every service has: lets the relays of a restored database send again.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::db::Db;
use crate::relay::{self, Adopted, AdoptionError};
use crate::service::http::Body;
use crate::service::problem::{Problem, operator_text};

/// Returns the routes.
pub(super) fn router(db: Db) -> axum::Router {
    documented().with_state(db).into()
}

/// Returns the OpenAPI document of the routes.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    documented().into_openapi()
}

fn documented() -> OpenApiRouter<Db> {
    OpenApiRouter::new().routes(routes!(adopt))
}

/// The reason for an adoption, and the name of the operator.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Adoption {
    reason: String,
    by: String,
    /// Whether to answer only what would happen.
    #[serde(default)]
    dry_run: bool,
}

/// The result of an adoption.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AdoptionResult {
    /// The reason why the relays had stopped: `other_cluster` or `foreign_rows`.
    blocked: &'static str,
    /// The number of messages that are sent, or sent again.
    rows: i64,
    dry_run: bool,
}

/// Lets the relays of a restored database send again. Unsent messages, and those that may be unsent, are sent in their
/// order. The act is recorded with its reason.
#[utoipa::path(post, path = "/relay/adoption", tag = "relay", request_body = Adoption, responses(
    (status = 200, body = AdoptionResult),
    (status = 409, description = "The relays are not stopped by a restored database",
     body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The outbox is in use", body = Problem, content_type = "application/problem+json"),
))]
async fn adopt(
    State(db): State<Db>,
    Body(adoption): Body<Adoption>,
) -> Result<Json<AdoptionResult>, Problem> {
    let (reason, by) = match (operator_text("reason", &adoption.reason), operator_text("by", &adoption.by)) {
        (Ok(reason), Ok(by)) => (reason, by),
        (reason, by) => {
            return Err(Problem::invalid([reason.err(), by.err()].into_iter().flatten().collect()));
        }
    };
    let result =
        if adoption.dry_run { relay::preview(&db).await } else { relay::adopt(&db, by, reason).await };
    let Adopted { blocked, rows } = result.map_err(|error| match error {
        AdoptionError::NotBlocked => {
            let title = "The relays are not stopped by a restored database";
            Problem::new(StatusCode::CONFLICT, "/problems/relay-not-blocked", title).detail(error.to_string())
        }
        AdoptionError::Database(error) => error.into(),
    })?;
    Ok(Json(AdoptionResult { blocked: blocked.name(), rows, dry_run: adoption.dry_run }))
}
