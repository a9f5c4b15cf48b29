//! `GET` and `PUT /customers/{id}`. Notices about an order without an address go to its customer's address.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemas::order::CustomerUpdated;
use serde_json::Value;
use shared::envelope::{Cause, new_id};
use shared::outbox::Draft;
use shared::service::http::{Body, Path, Trace};
use shared::service::problem::Problem;

use super::App;
use super::customer_input::{CustomerInput, read_customer};
use crate::domain::Customer;
use crate::store;

/// Returns a customer.
#[utoipa::path(get, path = "/customers/{id}", params(("id" = String, Path)), responses(
    (status = 200, body = Customer),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn get(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Customer>, Problem> {
    let customer = store::find_customer(&mut *app.db.read().await?, &id).await?;
    customer.map(Json).ok_or_else(|| unknown(&id))
}

/// Creates a customer, or changes name and address. A repetition changes nothing.
#[utoipa::path(put, path = "/customers/{id}", params(("id" = String, Path)), request_body = CustomerInput, responses(
    (status = 200, body = Customer),
    (status = 201, body = Customer),
    (status = 400, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn put(
    State(app): State<App>,
    Path(id): Path<String>,
    trace: Trace,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Customer>), Problem> {
    let (customer, errors) = read_customer(&id, &body);
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    let mut uow = app.db.write(&[]).await?;
    let Some(row) = store::put_customer(uow.db(), &customer).await? else {
        let row = store::find_customer(uow.db(), &id).await?;
        uow.abandon().await?;
        return row.map(|row| (StatusCode::OK, Json(row))).ok_or_else(|| unknown(&id));
    };
    // Every writer of a customer takes this lock behind the row's lock.
    uow.lock([id.clone()]).await?;
    let event = CustomerUpdated { customer_id: id.clone(), name: row.name.clone(), email: row.email.clone() };
    uow.publish(&id, &Cause::request(new_id(), trace.0), Draft::from(&event).version(row.version))?;
    uow.commit().await?;
    Ok((if row.version == 1 { StatusCode::CREATED } else { StatusCode::OK }, Json(row)))
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("there is no customer `{id}`; PUT creates one"))
}
