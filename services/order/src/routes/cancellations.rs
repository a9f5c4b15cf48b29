//! `POST /orders/{id}/cancellation`. The order's saga decides the request. A repetition returns its present state.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use schemas::order::CancellationRequested;
use shared::envelope::{Cause, Message};
use shared::outbox::Draft;
use shared::service::http::{NoBody, Path, Trace, preferred_wait};
use shared::service::problem::Problem;
use uuid::Uuid;

use super::App;
use super::read::unknown;
use crate::domain::{Order, Status};
use crate::store;

/// Cancels an order. That is possible until its money is being taken.
///
/// 202 means that the request is on record, and that the saga will decide it. The order becomes `cancelled`, or its
/// `cancellation` becomes `refused`. With `Prefer: wait=N` the answer waits up to N seconds for the order to settle.
#[utoipa::path(post, path = "/orders/{id}/cancellation",
    params(
        ("id" = Uuid, Path),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds for the order to settle."),
    ),
    responses(
        (status = 200, description = "The order is cancelled.", body = Order),
        (status = 202, description = "The request is on record.", body = Order),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is too late, or there is nothing to cancel.", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn cancel(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    trace: Trace,
    _: NoBody,
) -> Result<Response, Problem> {
    let mut uow = app.db.write(&[id.to_string()]).await?;
    let order = store::find(uow.db(), id).await?.ok_or_else(|| unknown(id))?;
    if let Some(version) = store::request_cancellation(uow.db(), id).await? {
        // The saga has the id of its order.
        let cause = Cause::request(id, trace.0);
        let event = CancellationRequested { order_id: id };
        let message = uow.publish(&id.to_string(), &cause, Draft::from(&event).version(version))?;
        let now = uow.now();
        store::append_timeline(&mut uow, &[(id, message, now, "order", CancellationRequested::TYPE)]);
        uow.commit().await?;
        app.events.notify_changed(&[id]);
    } else {
        uow.abandon().await?;
    }
    if order.status == Status::Pending
        && let Some(wait) = preferred_wait(&headers)
    {
        tokio::select! {
            _ = app.events.wait_until_settled(id, wait.min(app.longest_wait), true) => {}
            () = app.stopping.cancelled() => {}
        }
    }
    let order = store::find(&mut *app.db.read().await?, id).await?.ok_or_else(|| unknown(id))?;
    match order.status {
        Status::Cancelled => Ok(Json(order).into_response()),
        Status::Pending if order.cancellation.as_deref() != Some("refused") => {
            Ok((StatusCode::ACCEPTED, Json(order)).into_response())
        }
        Status::Pending => Err(match order.cancellation_reason.as_deref() {
            Some("already_undone") => nothing_to_cancel("it is being undone for another reason"),
            Some("not_foreseen") => past_pivot("it began when orders could not be cancelled", id),
            _ => past_pivot("its money is being taken", id),
        }),
        Status::Rejected => Err(nothing_to_cancel("it was rejected, and everything done for it is undone")),
        Status::Returned => Err(nothing_to_cancel("it was returned, and the money was given back")),
        Status::Confirmed | Status::Shipped | Status::Delivered => Err(past_pivot("its money is taken", id)),
    }
}

fn past_pivot(why: &str, order: Uuid) -> Problem {
    let title = "The order can't be cancelled any more";
    Problem::new(StatusCode::CONFLICT, "/problems/past-pivot", title)
        .detail(format!("{why}; once it is confirmed, send it back: POST /orders/{order}/returns"))
}

fn nothing_to_cancel(why: &str) -> Problem {
    Problem::new(StatusCode::CONFLICT, "/problems/nothing-to-cancel", "There is nothing to cancel")
        .detail(why)
}
