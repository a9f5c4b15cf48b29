//! `GET /orders`, `GET /orders/{id}` and `GET /products`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemas::common::Money;
use serde::{Deserialize, Serialize};
use shared::service::http::{Path, Query};
use shared::service::problem::{Invalid, Problem};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::App;
use crate::domain::{Order, Status};
use crate::store::{self, ListFilter, TimelineRow};

/// An order, with what every service did for it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderWithTimeline {
    #[serde(flatten)]
    pub order: Order,
    pub timeline: Vec<TimelineRow>,
}

/// A page of orders.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderPage {
    orders: Vec<Order>,
    /// Give it as `cursor` to get the next page. A page with a `next` may be short, or empty: a page is read from a bounded
    /// number of orders, and few of them may have the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Uuid>,
}

/// A product that can be ordered.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Product {
    sku: String,
    name: String,
    price: Money,
}

/// A page of the products that can be ordered.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Products {
    products: Vec<Product>,
    /// Give it as `cursor` to get the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ProductsQuery {
    /// How many, at most 200; 50 unless given.
    limit: Option<u16>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListQuery {
    /// `pending`, `confirmed`, `shipped`, `delivered`, `rejected`, `cancelled` or `returned`.
    status: Option<String>,
    customer_id: Option<String>,
    /// How many, at most 200; 50 unless given.
    limit: Option<u16>,
    /// The `next` of the page before.
    cursor: Option<Uuid>,
}

/// Lists orders, the newest first.
#[utoipa::path(get, path = "/orders", params(ListQuery), responses(
    (status = 200, body = OrderPage),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<Json<OrderPage>, Problem> {
    let status = query.status.as_deref().map(|text| Status::parse(text).ok_or(text)).transpose();
    let status = status.map_err(|text| {
        let known = Status::ALL.map(Status::as_str).join(", ");
        Problem::invalid(vec![Invalid::new("/status", format!("`{text}` is none of {known}"))])
    })?;
    let limit = i64::from(query.limit.unwrap_or(50).clamp(1, 200));
    let filter =
        ListFilter { status, customer_id: query.customer_id.as_deref(), before: query.cursor, limit };
    let (orders, next) = store::list(&mut *app.db.for_lists().read().await?, &filter).await?;
    Ok(Json(OrderPage { orders, next }))
}

/// Returns an order with its timeline. Send the `ETag` as `If-None-Match` to learn cheaply whether something happened.
#[utoipa::path(get, path = "/orders/{id}", params(("id" = Uuid, Path)), responses(
    (status = 200, body = OrderWithTimeline),
    (status = 304, description = "Nothing has happened since."),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn get(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut db = app.db.read().await?;
    let order = store::find(&mut db, id).await?.ok_or_else(|| unknown(id))?;
    let timeline = store::find_timeline(&mut db, id, 0).await?;
    let tag = format!("\"{}.{}\"", order.version, timeline.len());
    let etag = HeaderValue::try_from(&tag).ok();
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known =
        known.flat_map(|value| value.split(',')).map(|value| value.trim().trim_start_matches("W/"));
    let mut response = if known.any(|value| value == tag || value == "*") {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(OrderWithTimeline { order, timeline }).into_response()
    };
    response.headers_mut().extend(etag.map(|etag| (header::ETAG, etag)));
    Ok(response)
}

/// Lists the products that can be ordered, by sku.
#[utoipa::path(get, path = "/products", params(ProductsQuery), responses((status = 200, body = Products)))]
pub(super) async fn products(
    State(app): State<App>,
    Query(query): Query<ProductsQuery>,
) -> Result<Json<Products>, Problem> {
    let limit = i64::from(query.limit.unwrap_or(50).clamp(1, 200));
    let after = query.cursor.unwrap_or_default();
    let rows = store::list_products(&mut *app.db.for_lists().read().await?, &after, limit).await?;
    let next = rows.last().filter(|_| rows.len() as i64 == limit).map(|row| row.sku.clone());
    let product = |row: store::ProductRow| Product { price: row.price(), sku: row.sku, name: row.name };
    Ok(Json(Products { products: rows.into_iter().map(product).collect(), next }))
}

pub(super) fn unknown(id: Uuid) -> Problem {
    Problem::not_found(format!("there is no order {id}"))
}
