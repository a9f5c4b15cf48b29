//! Inventory's HTTP interface: products and their stock.

mod reservations;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemas::common::Money;
use schemas::currency;
use schemas::inventory::ProductUpdated;
use serde::{Deserialize, Serialize};
use shared::db::Db;
use shared::envelope::{Cause, new_id};
use shared::outbox::Draft;
use shared::service::audit::report;
use shared::service::http::idempotency::{Begun, Repeatable};
use shared::service::http::{Body, Path, Query, Trace};
use shared::service::problem::{Invalid, Problem};
use utoipa::{IntoParams, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::store::audit::Figures;
use crate::store::{self, ProductPut, ProductRow};

/// Most pieces that one receipt may bring.
const MOST_PIECES: i64 = 1_000_000_000;

#[derive(OpenApi)]
#[openapi(info(title = "Amends: inventory", description = "Products and their stock."))]
struct Document;

/// Returns the routes with their OpenAPI document.
pub fn router() -> OpenApiRouter<Db> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(list))
        .routes(routes!(get, put))
        .routes(routes!(receive))
        .routes(routes!(reservations::get))
        .merge(report::router::<Figures, _>())
}

/// A product and its stock. `onHand + reserved + shipped` is what was ever received.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Product {
    sku: String,
    name: String,
    price: Money,
    /// The pieces that can still be ordered.
    on_hand: i64,
    /// The pieces that are held for orders under way.
    reserved: i64,
    /// The pieces that were shipped.
    shipped: i64,
    received: i64,
}

impl From<ProductRow> for Product {
    fn from(row: ProductRow) -> Self {
        Self {
            sku: row.sku,
            name: row.name,
            price: Money { amount: row.price_amount, currency: row.price_currency },
            on_hand: row.on_hand,
            reserved: row.reserved,
            shipped: row.shipped,
            received: row.received,
        }
    }
}

/// A page of products.
#[derive(Debug, Serialize, ToSchema)]
struct Products {
    products: Vec<Product>,
    /// Give it as `cursor` to get the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// How many, at most 200; 50 unless given.
    limit: Option<u16>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// The wanted state of a product.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProductInput {
    name: String,
    price: Money,
    /// `inventory.stock_low.v1` is published when fewer pieces than this are on hand; 10 unless given.
    low_threshold: Option<i64>,
}

impl ProductInput {
    fn invalid(&self, sku: &str) -> Vec<Invalid> {
        let mut errors = Vec::new();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if sku.len() > 64 || !sku.chars().all(plain) || matches!(sku, "" | "." | "..") {
            errors.push(Invalid::new(
                "/sku",
                "has 1 to 64 letters, digits, dots, dashes or underscores, and is neither `.` nor `..`",
            ));
        }
        if self.name.trim().is_empty() || self.name.chars().count() > 200 {
            errors.push(Invalid::new("/name", "has 1 to 200 characters, not all of them blank"));
        }
        if !(0..=1_000_000_000).contains(&self.price.amount) {
            errors.push(Invalid::new("/price/amount", "is from 0 to 1000000000 minor units"));
        }
        if currency::decimals(&self.price.currency).is_none() {
            errors.push(Invalid::new("/price/currency", "is the ISO 4217 code of a currency, such as EUR"));
        }
        if self.low_threshold.is_some_and(|threshold| threshold < 0) {
            errors.push(Invalid::new("/lowThreshold", "is not negative"));
        }
        errors
    }
}

/// Pieces that were received.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Receipt {
    quantity: i64,
}

/// Lists products, by sku.
#[utoipa::path(get, path = "/products", params(ListQuery), responses((status = 200, body = Products)))]
async fn list(State(db): State<Db>, Query(query): Query<ListQuery>) -> Result<Json<Products>, Problem> {
    let limit = i64::from(query.limit.unwrap_or(50).clamp(1, 200));
    let after = query.cursor.unwrap_or_default();
    let rows = store::list_products(&mut *db.for_lists().read().await?, &after, limit).await?;
    let next = rows.last().filter(|_| rows.len() as i64 == limit).map(|row| row.sku.clone());
    Ok(Json(Products { products: rows.into_iter().map(Product::from).collect(), next }))
}

/// Returns a product.
#[utoipa::path(get, path = "/products/{sku}", params(("sku" = String, Path)), responses(
    (status = 200, body = Product),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn get(State(db): State<Db>, Path(sku): Path<String>) -> Result<Json<Product>, Problem> {
    let row = store::find_product(&mut *db.read().await?, &sku).await?;
    row.map(|row| Json(row.into())).ok_or_else(|| unknown(&sku))
}

/// Creates a product, or changes its name and price. Its stock stays as it is.
#[utoipa::path(put, path = "/products/{sku}", params(("sku" = String, Path)), request_body = ProductInput, responses(
    (status = 200, body = Product),
    (status = 201, body = Product),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn put(
    State(db): State<Db>,
    Path(sku): Path<String>,
    trace: Trace,
    Body(input): Body<ProductInput>,
) -> Result<(StatusCode, Json<Product>), Problem> {
    let errors = input.invalid(&sku);
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    let mut uow = db.write(&[]).await?;
    let product = ProductPut {
        sku: &sku,
        name: input.name.trim(),
        price_amount: input.price.amount,
        price_currency: &input.price.currency,
        low_threshold: input.low_threshold.unwrap_or(10),
    };
    let (row, new) = store::put_product(uow.db(), &product).await?;
    // Every writer of a product takes this lock behind the row's lock.
    uow.lock([sku.clone()]).await?;
    let event = ProductUpdated { sku: sku.clone(), name: row.name.clone(), price: input.price };
    uow.publish(&sku, &Cause::request(new_id(), trace.0), Draft::from(&event).version(row.version))?;
    uow.commit().await?;
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, Json(row.into())))
}

/// Receives pieces of a product. With an `Idempotency-Key` the request can be repeated safely.
#[utoipa::path(post, path = "/products/{sku}/receipts", request_body = Receipt,
    params(
        ("sku" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "Repeats of the request get the first one's answer."),
    ),
    responses(
        (status = 201, body = Product, headers(("Idempotency-Replayed" = String))),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ))]
async fn receive(
    State(db): State<Db>,
    Path(sku): Path<String>,
    Repeatable { body: receipt, once }: Repeatable<Receipt>,
) -> Result<Response, Problem> {
    if !(1..=MOST_PIECES).contains(&receipt.quantity) {
        return Err(Problem::invalid(vec![Invalid::new("/quantity", format!("is from 1 to {MOST_PIECES}"))]));
    }
    let mut uow = match once.begin(&db, &[]).await? {
        Begun::First(uow) => *uow,
        Begun::Repeated(answer) => return Ok(answer.into_response()),
    };
    let row = store::receive(uow.db(), &sku, receipt.quantity).await?;
    let row = row.ok_or_else(|| unknown(&sku))?;
    once.commit(uow, StatusCode::CREATED, &Product::from(row)).await
}

fn unknown(sku: &str) -> Problem {
    Problem::not_found(format!("there is no product `{sku}`; GET /products lists them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_in_a_currency() {
        let invalid = |currency: &str| {
            let price = Money { amount: 1905, currency: currency.to_owned() };
            ProductInput { name: "Lamp".to_owned(), price, low_threshold: None }.invalid("lamp")
        };
        for currency in ["EUR", "JPY", "KWD"] {
            assert_eq!(invalid(currency), [], "{currency}");
        }
        for currency in ["QQQ", "XXX", "XTS", "XAU", "eur", "EURO", ""] {
            let errors = invalid(currency);
            assert!(matches!(errors.as_slice(), [only] if only.pointer == "/price/currency"), "{currency}");
        }
    }

    #[test]
    fn a_sku_is_usable_as_a_key_and_in_a_url() {
        let price = Money { amount: 4900, currency: "EUR".to_owned() };
        let lamp = ProductInput { name: "Lamp".to_owned(), price, low_threshold: None };
        for usable in ["lamp", "a.b-c_1", "..."] {
            assert_eq!(lamp.invalid(usable), [], "{usable}");
        }
        for unusable in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(65)] {
            let errors = lamp.invalid(unusable);
            assert!(matches!(errors.as_slice(), [only] if only.pointer == "/sku"), "{unusable}: {errors:?}");
        }
    }
}
