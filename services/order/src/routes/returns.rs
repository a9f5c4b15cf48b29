//! `POST /orders/{id}/returns`. A saga of its own decides the request. A repetition returns its present state.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemas::common::Money;
use schemas::order::ReturnRequested;
use shared::envelope::{Cause, Message, new_id};
use shared::outbox::Draft;
use shared::service::http::{NoBody, Path, Trace};
use shared::service::problem::Problem;
use uuid::Uuid;

use super::App;
use super::read::unknown;
use crate::domain::{Order, Status};
use crate::store;

/// Sends an order back. The money is given back, and the goods go back to the shelf.
///
/// 202 means that the request is on record, and that a saga will decide it. The order becomes `returned`, or its `return`
/// becomes `refused` with a reason.
#[utoipa::path(post, path = "/orders/{id}/returns", params(("id" = Uuid, Path)), responses(
    (status = 200, description = "The order is returned.", body = Order),
    (status = 202, description = "The return is under way.", body = Order),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "It can't be returned as it stands.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn give_back(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    trace: Trace,
    _: NoBody,
) -> Result<Response, Problem> {
    let mut uow = app.db.write(&[id.to_string()]).await?;
    let order = store::find(uow.db(), id).await?.ok_or_else(|| unknown(id))?;
    match order.status {
        Status::Confirmed | Status::Delivered => {}
        Status::Returned => return Ok(Json(order).into_response()),
        Status::Pending => {
            let title = "The order is not confirmed yet";
            let what = if order.cancellation.as_deref() == Some("refused") {
                "repeat this when it is".to_owned()
            } else {
                format!("as long as it is pending, cancel it: POST /orders/{id}/cancellation")
            };
            return Err(Problem::new(StatusCode::CONFLICT, "/problems/not-confirmed", title).detail(what));
        }
        Status::Shipped => {
            let title = "The parcel is on its way";
            return Err(Problem::new(StatusCode::CONFLICT, "/problems/in-transit", title)
                .detail("send the order back when it is delivered"));
        }
        Status::Rejected | Status::Cancelled => {
            let title = "There is nothing to return";
            return Err(Problem::new(StatusCode::CONFLICT, "/problems/nothing-to-return", title).detail(
                format!("the order is {}, and everything done for it is undone", order.status.as_str()),
            ));
        }
    }
    if let Some(row) = store::request_return(uow.db(), id, new_id()).await? {
        // The return has a saga of its own.
        let return_id = row.return_id;
        let cause = Cause::request(return_id, trace.0);
        let event = ReturnRequested {
            order_id: id,
            return_id,
            customer_id: row.customer_id,
            total: Money { amount: row.total_amount, currency: row.currency },
            email: row.email,
        };
        let message = uow.publish(&id.to_string(), &cause, Draft::from(&event).version(row.version))?;
        let now = uow.now();
        store::append_timeline(&mut uow, &[(id, message, now, "order", ReturnRequested::TYPE)]);
        uow.commit().await?;
        app.events.notify_changed(&[id]);
    } else {
        // A return is under way already.
        uow.abandon().await?;
    }
    let order = store::find(&mut *app.db.read().await?, id).await?.ok_or_else(|| unknown(id))?;
    Ok((StatusCode::ACCEPTED, Json(order)).into_response())
}
