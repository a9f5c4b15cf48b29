//! `POST /orders`.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use shared::service::http::idempotency::{self, IdempotencyKey};
use shared::service::http::{Body, Trace, preferred_wait};
use shared::service::problem::{Invalid, Problem};

use super::App;
use super::input::{self, OrderInput};
use crate::domain::{NewOrder, Order};
use crate::intake::{Key, unknown_product};
use crate::store;

/// Places an order.
///
/// The answer comes when the order is on record, and its saga is under way. With `Prefer: wait=N` the answer waits up to N
/// seconds for the order to settle. With an `Idempotency-Key` the request can be repeated safely.
#[utoipa::path(post, path = "/orders", request_body = OrderInput,
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Repeats of the request get the first one's answer."),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds for the order to settle."),
    ),
    responses(
        (status = 201, description = "The order has settled: confirmed or rejected.", body = Order,
            headers(("Location" = String), ("Preference-Applied" = String), ("Idempotency-Replayed" = String))),
        (status = 202, description = "The order is on record.", body = Order,
            headers(("Location" = String), ("Preference-Applied" = String), ("Idempotency-Replayed" = String))),
        (status = 400, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body did not come in time.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body has another media type.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A request with the key is still running.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Members are invalid, or the key was used for another request.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The service can't take it now; `Retry-After` says when to try again.", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn post(
    State(app): State<App>,
    headers: HeaderMap,
    trace: Trace,
    IdempotencyKey(key): IdempotencyKey,
    Body(body): Body<Value>,
) -> Result<Response, Problem> {
    app.admission.check()?;
    let wait = preferred_wait(&headers).map(|wait| wait.min(app.longest_wait));
    let (order, mut errors) = input::read(&body);
    if !errors.is_empty() {
        errors.extend(unknown_products(&app, &order).await?);
        return Err(Problem::invalid(errors));
    }
    // Held until the answer is there. A repetition meanwhile learns that this request is still running.
    let _in_flight = app.intake.reserve_key(key.as_deref())?;
    // The keys of this table are those of this route only, so the target is left out.
    let key = key.map(|text| Key { text, request_hash: idempotency::request_hash("", &body) });
    let placed = app.intake.place(order, key, trace.0).await?;

    // The order is on record, so nothing is an error from here on. After an error, a client might place the order twice.
    let settled = match wait {
        Some(wait) => tokio::select! {
            settled = app.events.wait_until_settled(placed.id, wait, placed.replayed) => settled,
            () = app.stopping.cancelled() => None,
        },
        None => None,
    };
    let settled = settled.and_then(|order| serde_json::to_string(&*order).ok());
    let (status, body) =
        settled.map_or((StatusCode::ACCEPTED, placed.answer), |order| (StatusCode::CREATED, order));
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(format!("/orders/{}", placed.id)) {
        headers.insert(header::LOCATION, location);
    }
    if placed.replayed {
        idempotency::mark_replayed(headers);
    }
    if let Some(applied) =
        wait.and_then(|wait| HeaderValue::try_from(format!("wait={}", wait.as_secs())).ok())
    {
        headers.insert("preference-applied", applied);
    }
    Ok(response)
}

/// Returns errors about the lines with unknown products. An order that is invalid anyway gets them too, so that its client
/// sees all errors at once.
async fn unknown_products(app: &App, order: &NewOrder) -> Result<Vec<Invalid>, Problem> {
    let skus: Vec<&str> = order.items.iter().map(|line| line.sku.as_str()).collect();
    let known = store::find_products(&mut *app.db.read().await?, &skus).await?;
    let lines = order.items.iter().enumerate();
    let unknown = lines.filter(|(_, line)| !line.sku.is_empty() && !known.contains_key(&line.sku));
    Ok(unknown.map(|(index, line)| unknown_product(index, &line.sku)).collect())
}
