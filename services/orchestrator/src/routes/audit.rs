//! `GET /audit`: whether the sagas' logs are in order.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use shared::service::audit::{Part, Standings, Statement, list, look_up};
use shared::service::http::Query;
use shared::service::problem::Problem;
use utoipa::ToSchema;

use super::App;
use crate::store::audit;

/// What the sagas' logs say.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Audit {
    statements: Vec<Statement>,
    /// How many sagas are in each status. A status without sagas is left out.
    sagas: BTreeMap<String, i64>,
}

/// Whether the sagas' logs are in order. It reads all of them, so ask seldom.
#[utoipa::path(get, path = "/audit", responses((status = 200, body = Audit)))]
pub(super) async fn get(State(app): State<App>) -> Result<Json<Audit>, Problem> {
    let mut db = app.db.survey().await?;
    let statements = look_up(&mut db, audit::STATEMENTS).await?;
    let sagas = audit::count_by_status(&mut db).await?;
    db.end().await?;
    Ok(Json(Audit { statements, sagas }))
}

/// Where the sagas about every order stand, as `definition=status`, in the order of the orders' ids, to be held against
/// other services.
#[utoipa::path(get, path = "/audit/orders", params(Part), responses((status = 200, body = Standings)))]
pub(super) async fn orders(
    State(app): State<App>,
    Query(part): Query<Part>,
) -> Result<Json<Standings>, Problem> {
    Ok(Json(list(&app.db, audit::STANDINGS, &part).await?))
}
