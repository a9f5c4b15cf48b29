//! Shipping's HTTP interface: the shipment of an order.

use axum::Json;
use axum::extract::State;
use schemas::common::{Address, Line};
use serde::Serialize;
use serde_json::value::RawValue;
use shared::db::Db;
use shared::service::audit::report;
use shared::service::http::Path;
use shared::service::problem::Problem;
use time::OffsetDateTime;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::store;
use crate::store::audit::Figures;

#[derive(OpenApi)]
#[openapi(info(title = "Amends: shipping", description = "Shipments."))]
struct Document;

/// Returns the routes with their OpenAPI document.
pub fn router() -> OpenApiRouter<Db> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(get))
        .merge(report::router::<Figures, _>())
}

/// The shipment of an order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Shipment {
    order_id: Uuid,
    /// `booking`, `booked`, `refused`, `stopping`, `cancelled`, `dispatched` or `delivered`.
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_number: Option<String>,
    #[schema(value_type = Address)]
    address: Box<RawValue>,
    #[schema(value_type = Vec<Line>)]
    items: Box<RawValue>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    /// When the carrier picked the parcel up.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    dispatched_at: Option<OffsetDateTime>,
    /// When the customer got the parcel.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    delivered_at: Option<OffsetDateTime>,
}

/// Returns the shipment of an order.
#[utoipa::path(get, path = "/shipments/{orderId}", params(("orderId" = Uuid, Path)), responses(
    (status = 200, body = Shipment),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn get(State(db): State<Db>, Path(order): Path<Uuid>) -> Result<Json<Shipment>, Problem> {
    let Some(row) = store::find(&mut *db.read().await?, order).await? else {
        return Err(Problem::not_found(format!("there is no shipment for the order {order}, or not yet")));
    };
    Ok(Json(Shipment {
        order_id: row.order_id,
        status: row.status,
        tracking_number: row.tracking_number,
        address: row.address.0,
        items: row.items.0,
        created_at: row.created_at,
        updated_at: row.updated_at,
        dispatched_at: row.dispatched_at,
        delivered_at: row.delivered_at,
    }))
}
