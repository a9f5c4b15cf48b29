//! `GET /audit`: whether inventory's books are in order, and the figures that others are held against.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use shared::db::Db;
use shared::service::audit::{Part, Standings, Statement, list, look_up};
use shared::service::http::Query;
use shared::service::problem::Problem;
use utoipa::ToSchema;

use crate::store::{self, audit};

/// What inventory's books say. The figures can be held against order's while no order is pending.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Audit {
    statements: Vec<Statement>,
    /// How many reservations are held, released and committed. A status without reservations is left out.
    reservations: BTreeMap<String, i64>,
    /// What there is of every product, by sku.
    products: BTreeMap<String, Stock>,
}

/// Where the pieces of a product are.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Stock {
    on_hand: i64,
    reserved: i64,
    shipped: i64,
    received: i64,
}

/// Whether inventory's books are in order. It reads the whole ledger, so ask seldom.
#[utoipa::path(get, path = "/audit", responses((status = 200, body = Audit)))]
pub(super) async fn get(State(db): State<Db>) -> Result<Json<Audit>, Problem> {
    let mut db = db.survey().await?;
    let statements = look_up(&mut db, audit::STATEMENTS).await?;
    let stock = |row: store::ProductRow| {
        let stock = Stock {
            on_hand: row.on_hand,
            reserved: row.reserved,
            shipped: row.shipped,
            received: row.received,
        };
        (row.sku, stock)
    };
    let audit = Audit {
        statements,
        reservations: audit::count_by_status(&mut db).await?,
        products: store::list_products(&mut db).await?.into_iter().map(stock).collect(),
    };
    db.end().await?;
    Ok(Json(audit))
}

/// Where the reservation of every order stands, in the order of the orders' ids, to be held against other services.
#[utoipa::path(get, path = "/audit/orders", params(Part), responses((status = 200, body = Standings)))]
pub(super) async fn orders(
    State(db): State<Db>,
    Query(part): Query<Part>,
) -> Result<Json<Standings>, Problem> {
    Ok(Json(list(&db, audit::STANDINGS, &part).await?))
}
