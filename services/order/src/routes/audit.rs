//! `GET /audit`: whether order's books are in order, and the sums that others are held against.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use schemas::common::Money;
use serde::Serialize;
use shared::service::audit::{Part, Standings, Statement, list, look_up};
use shared::service::http::Query;
use shared::service::problem::Problem;
use utoipa::ToSchema;

use super::App;
use crate::store::audit;

/// What order's books say. The sums can be held against payment's and inventory's while no order is pending.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Audit {
    statements: Vec<Statement>,
    /// How many orders are pending, confirmed, rejected, cancelled and returned. A status without orders is left out.
    orders: BTreeMap<String, i64>,
    /// What confirmed orders cost together, in each currency: payment must have captured as much.
    confirmed: Vec<Money>,
    /// The pieces in confirmed orders, by sku: inventory must have shipped as many.
    sold: BTreeMap<String, i64>,
}

/// Whether order's books are in order. It reads all orders, so ask seldom.
#[utoipa::path(get, path = "/audit", responses((status = 200, body = Audit)))]
pub(super) async fn get(State(app): State<App>) -> Result<Json<Audit>, Problem> {
    let mut db = app.db.survey().await?;
    let statements = look_up(&mut db, audit::STATEMENTS).await?;
    let audit = Audit {
        statements,
        orders: audit::count_by_status(&mut db).await?,
        confirmed: audit::sum_confirmed(&mut db).await?,
        sold: audit::sum_sold(&mut db).await?,
    };
    db.end().await?;
    Ok(Json(audit))
}

/// Where every order stands, in the order of their ids, to be held against other services.
#[utoipa::path(get, path = "/audit/orders", params(Part), responses((status = 200, body = Standings)))]
pub(super) async fn orders(
    State(app): State<App>,
    Query(part): Query<Part>,
) -> Result<Json<Standings>, Problem> {
    Ok(Json(list(&app.db, audit::STANDINGS, &part).await?))
}
