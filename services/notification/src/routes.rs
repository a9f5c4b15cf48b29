//! Notification's HTTP interface: the notices to customers.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::db::Db;
use shared::service::audit::report;
use shared::service::http::Query;
use shared::service::problem::Problem;
use time::OffsetDateTime;
use utoipa::{IntoParams, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::store::audit::Figures;
use crate::store::{self, NotificationRow};

#[derive(OpenApi)]
#[openapi(info(title = "Amends: notification", description = "The notices to customers."))]
struct Document;

/// Returns the routes with their OpenAPI document.
pub fn router() -> OpenApiRouter<Db> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(list))
        .merge(report::router::<Figures, _>())
}

/// A notice to a customer.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Notification)]
struct NotificationView {
    id: Uuid,
    order_id: Uuid,
    customer_id: String,
    /// The notice's subject, for example `order_confirmed`.
    kind: String,
    text: String,
    /// `smtp` for a mail, or `kept` for a notice that is only kept here.
    channel: String,
    /// `sending`, `sent` or `failed`.
    status: String,
    /// Why it failed, in the mail server's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl From<NotificationRow> for NotificationView {
    fn from(row: NotificationRow) -> Self {
        Self {
            id: row.id,
            order_id: row.order_id,
            customer_id: row.customer_id,
            kind: row.kind,
            text: row.text,
            channel: row.channel,
            status: row.status,
            reason: row.reason,
            created_at: row.created_at,
        }
    }
}

/// A page of notices to customers.
#[derive(Serialize, ToSchema)]
struct Notifications {
    notifications: Vec<NotificationView>,
    /// Give it as `cursor` to get the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Uuid>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
struct ListQuery {
    /// Only notices about this order.
    order_id: Option<Uuid>,
    /// How many, at most 200; 50 unless given.
    limit: Option<u16>,
    /// The `next` of the page before.
    cursor: Option<Uuid>,
}

/// Lists the notices to customers, the newest first.
#[utoipa::path(get, path = "/notifications", params(ListQuery), responses((status = 200, body = Notifications)))]
async fn list(State(db): State<Db>, Query(query): Query<ListQuery>) -> Result<Json<Notifications>, Problem> {
    let limit = i64::from(query.limit.unwrap_or(50).clamp(1, 200));
    let mut db = db.for_lists().read().await?;
    let rows = store::list(&mut db, query.order_id, query.cursor, limit).await?;
    let next = rows.last().filter(|_| rows.len() as i64 == limit).map(|row| row.id);
    Ok(Json(Notifications { notifications: rows.into_iter().map(NotificationView::from).collect(), next }))
}
