//! `GET /audit`: whether notification's books are in order.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use shared::db::Db;
use shared::service::audit::{Part, Standings, Statement, list, look_up};
use shared::service::http::Query;
use shared::service::problem::Problem;
use utoipa::ToSchema;

use crate::store::audit;

/// What notification's books say.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Audit {
    statements: Vec<Statement>,
    /// How many notices are in each status. A status without notices is left out.
    notifications: BTreeMap<String, i64>,
}

/// Whether notification's books are in order. It reads all notices, so ask seldom.
#[utoipa::path(get, path = "/audit", responses((status = 200, body = Audit)))]
pub(super) async fn get(State(db): State<Db>) -> Result<Json<Audit>, Problem> {
    let mut db = db.survey().await?;
    let statements = look_up(&mut db, audit::STATEMENTS).await?;
    let notifications = audit::count_by_status(&mut db).await?;
    db.end().await?;
    Ok(Json(Audit { statements, notifications }))
}

/// What customers were told about every order, in the order of the orders' ids, to be held against other services.
#[utoipa::path(get, path = "/audit/orders", params(Part), responses((status = 200, body = Standings)))]
pub(super) async fn orders(
    State(db): State<Db>,
    Query(part): Query<Part>,
) -> Result<Json<Standings>, Problem> {
    Ok(Json(list(&db, audit::STANDINGS, &part).await?))
}
