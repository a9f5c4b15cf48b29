//! Payment's HTTP interface: the payment of an order and its ledger entries.

use axum::Json;
use axum::extract::State;
use schemas::common::Money;
use serde::Serialize;
use shared::db::Db;
use shared::service::audit::report;
use shared::service::http::Path;
use shared::service::problem::Problem;
use time::OffsetDateTime;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::domain::Status;
use crate::store::audit::Figures;
use crate::store::{self, EntryRow};

#[derive(OpenApi)]
#[openapi(info(title = "Amends: payment", description = "Payments and the ledger of their moves."))]
struct Document;

/// Returns the routes with their OpenAPI document.
pub fn router() -> OpenApiRouter<Db> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(get))
        .merge(report::router::<Figures, _>())
}

/// The payment of an order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Payment)]
struct PaymentView {
    order_id: Uuid,
    status: Status,
    /// Why the card was declined.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The amount on hold. It is 0 once the payment is captured or voided.
    authorized: Money,
    captured: Money,
    refunded: Money,
    entries: Vec<Entry>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// An entry of the ledger. The amount moves from the credited to the debited account.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Entry {
    /// `authorize`, `void`, `capture` or `refund`.
    kind: String,
    debit: String,
    credit: String,
    amount: Money,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

impl From<EntryRow> for Entry {
    fn from(row: EntryRow) -> Self {
        let amount = Money { amount: row.amount, currency: row.currency };
        Self { kind: row.kind, debit: row.debit, credit: row.credit, amount, at: row.at }
    }
}

/// Returns the payment of an order, with its ledger entries.
#[utoipa::path(get, path = "/payments/{orderId}", params(("orderId" = Uuid, Path)), responses(
    (status = 200, body = PaymentView),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn get(State(db): State<Db>, Path(order): Path<Uuid>) -> Result<Json<PaymentView>, Problem> {
    let mut db = db.read().await?;
    let Some(row) = store::find(&mut db, order).await? else {
        return Err(Problem::not_found(format!("there is no payment for the order {order}, or not yet")));
    };
    let entries: Vec<Entry> =
        store::find_entries(&mut db, order).await?.into_iter().map(Entry::from).collect();
    let moved = |kind: &str| entries.iter().filter(|e| e.kind == kind).map(|e| e.amount.amount).sum::<i64>();
    let money = |amount| Money { amount, currency: row.currency.clone() };
    Ok(Json(PaymentView {
        order_id: row.order_id,
        authorized: money(moved("authorize") - moved("void") - moved("capture")),
        captured: money(moved("capture")),
        refunded: money(moved("refund")),
        status: row.status,
        reason: row.reason,
        created_at: row.created_at,
        updated_at: row.updated_at,
        entries,
    }))
}
