//! `GET /audit`: whether payment's books are in order, and the sums that others are held against.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use schemas::common::Money;
use serde::Serialize;
use shared::db::Db;
use shared::service::audit::{Part, Standings, Statement, list, look_up};
use shared::service::http::Query;
use shared::service::problem::Problem;
use utoipa::ToSchema;

use crate::store::audit;

/// What payment's books say. The sums can be held against order's while no order is pending.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Audit {
    statements: Vec<Statement>,
    /// How many payments are in each status. A status without payments is left out.
    payments: BTreeMap<String, i64>,
    /// What the ledger has captured, in each currency.
    captured: Vec<Money>,
    /// What of that it has given back.
    refunded: Vec<Money>,
}

/// Whether payment's books are in order. It reads the whole ledger, so ask seldom.
#[utoipa::path(get, path = "/audit", responses((status = 200, body = Audit)))]
pub(super) async fn get(State(db): State<Db>) -> Result<Json<Audit>, Problem> {
    let mut db = db.survey().await?;
    let statements = look_up(&mut db, audit::STATEMENTS).await?;
    let audit = Audit {
        statements,
        payments: audit::count_by_status(&mut db).await?,
        captured: audit::sum_moved(&mut db, "capture").await?,
        refunded: audit::sum_moved(&mut db, "refund").await?,
    };
    db.end().await?;
    Ok(Json(audit))
}

/// Where the payment of every order stands, in the order of the orders' ids, to be held against other services.
#[utoipa::path(get, path = "/audit/orders", params(Part), responses((status = 200, body = Standings)))]
pub(super) async fn orders(
    State(db): State<Db>,
    Query(part): Query<Part>,
) -> Result<Json<Standings>, Problem> {
    Ok(Json(list(&db, audit::STANDINGS, &part).await?))
}
