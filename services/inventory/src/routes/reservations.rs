//! `GET /reservations/{orderId}`: the stock that an order holds, took or gave back.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use shared::db::Db;
use shared::service::http::Path;
use shared::service::problem::Problem;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store::{self, EntryRow};

/// The stock of an order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reservation {
    order_id: Uuid,
    /// `held`, `released`, `committed` or `restocked`.
    status: String,
    entries: Vec<Move>,
}

/// An entry of the ledger: a number of pieces of a product that were moved.
#[derive(Debug, Serialize, ToSchema)]
struct Move {
    /// `reserved`, `released`, `committed` or `restocked`.
    kind: String,
    sku: String,
    quantity: i64,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

impl From<EntryRow> for Move {
    fn from(row: EntryRow) -> Self {
        Self { kind: row.kind, sku: row.sku, quantity: row.quantity, at: row.at }
    }
}

/// Returns the stock that an order holds or took, with its ledger entries.
#[utoipa::path(get, path = "/reservations/{orderId}", params(("orderId" = Uuid, Path)), responses(
    (status = 200, body = Reservation),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn get(State(db): State<Db>, Path(order): Path<Uuid>) -> Result<Json<Reservation>, Problem> {
    let mut db = db.read().await?;
    let Some(status) = store::find_reservation(&mut db, order).await? else {
        return Err(Problem::not_found(format!("there is no reservation for the order {order}, or not yet")));
    };
    let entries = store::find_entries(&mut db, order).await?;
    Ok(Json(Reservation { order_id: order, status, entries: entries.into_iter().map(Move::from).collect() }))
}
