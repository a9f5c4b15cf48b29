//! `GET /orders/events`: the outcome of every order, as it settles.

use axum::extract::State;
use axum::response::Response;
use axum::response::sse::Event;
use futures::stream;
use shared::service::http::event_stream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::App;
use crate::order_events::Settlement;

/// Streams the outcome of every order that this replica settles from now on.
///
/// Each order gets one event `settled` after its commit. It has `id`, `status`, and the time `at` which the order settled, by
/// the database's clock. The stream does not have earlier outcomes, nor those of other replicas. A reader that is too slow
/// gets an event `missed` with the number of transactions that it missed. `GET /orders/{id}` has the outcome of any order.
#[utoipa::path(get, path = "/orders/events", responses(
    (status = 200, description = "The events.", content_type = "text/event-stream", body = String),
))]
pub(super) async fn get(State(app): State<App>) -> Response {
    // Subscribes before the answer begins, so that a client with the answer misses nothing that settles from then on.
    let feed =
        Feed { settlements: app.events.subscribe(), stopping: app.stopping.clone(), ready: Vec::new() };
    let events = stream::unfold(feed, |mut feed| async move {
        let event = feed.next().await?;
        Some((event, feed))
    });
    event_stream(events)
}

struct Feed {
    settlements: Receiver<Settlement>,
    stopping: CancellationToken,
    /// The events to send, the next one last.
    ready: Vec<Event>,
}

impl Feed {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop() {
                return Some(event);
            }
            let settlement = tokio::select! {
                settlement = self.settlements.recv() => settlement,
                () = self.stopping.cancelled() => return None,
            };
            match settlement {
                Ok(settlement) => match events(&settlement) {
                    Ok(events) => self.ready = events,
                    Err(error) => {
                        warn!(%error, "the feed of settled orders broke off");
                        return None;
                    }
                },
                Err(RecvError::Lagged(missed)) => {
                    return Some(Event::default().event("missed").data(missed.to_string()));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// Returns the events of one commit, the first one last.
fn events(settlement: &Settlement) -> Result<Vec<Event>, axum::Error> {
    let event = |id| Event::default().event("settled").json_data(settlement.outcome(id));
    settlement.orders.iter().rev().map(event).collect()
}
