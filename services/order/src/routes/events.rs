//! `GET /orders/{id}/events`: what happens to an order, as server-sent events.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures::stream;
use shared::service::http::{Path, event_stream};
use shared::service::problem::Problem;
use tracing::warn;
use uuid::Uuid;

use super::App;
use super::read::unknown;
use crate::order_events::{OrderWatch, Seen};
use crate::store::{self, TimelineRow};

/// Streams what happens to an order.
///
/// Each entry of the timeline is an event with its position as id. When the order has settled, an event `settled` with the
/// order ends the stream. `Last-Event-ID` resumes a stream that broke off.
#[utoipa::path(get, path = "/orders/{id}/events",
    params(
        ("id" = Uuid, Path),
        ("Last-Event-ID" = Option<i64>, Header, description = "The last event that was received."),
    ),
    responses(
        (status = 200, description = "The events.", content_type = "text/event-stream", body = String),
        (status = 204, description = "The order has settled, and nothing is new behind `Last-Event-ID`."),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn get(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let last: Option<i64> = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let mut db = app.db.read().await?;
    let status = store::find_status(&mut db, id).await?.ok_or_else(|| unknown(id))?;
    if let Some(last) = last
        && status.is_settled()
        && store::tells_settlement(&mut db, id).await?
        && store::find_timeline(&mut db, id, last).await?.is_empty()
    {
        // 204 tells a browser's EventSource not to reconnect.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    drop(db);
    let follow = Follow {
        watch: app.events.watch(id),
        app,
        order: id,
        last: last.unwrap_or(0),
        looked: false,
        ready: vec![],
        settled: None,
        ended: false,
    };
    let events = stream::unfold(follow, |mut follow| async move {
        let event = follow.next().await?;
        Some((event, follow))
    });
    Ok(event_stream(events))
}

struct Follow {
    app: App,
    watch: OrderWatch,
    order: Uuid,
    last: i64,
    /// Whether the order was looked at.
    looked: bool,
    /// The events to send, the next one last.
    ready: Vec<Event>,
    /// When the order was first seen settled.
    settled: Option<Instant>,
    ended: bool,
}

/// How long a stream waits for the timeline of a settled order. Longer, and it would wait for an operator: a message of the
/// order is parked.
const LONGEST_TIMELINE: Duration = Duration::from_secs(10);

impl Follow {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop() {
                return Some(event);
            }
            if self.ended || self.app.stopping.is_cancelled() {
                return None;
            }
            // What happens between two looks is kept by the watch, so that none is needed without it.
            if std::mem::replace(&mut self.looked, true) {
                tokio::select! {
                    () = self.watch.changed() => {}
                    () = self.longest_timeline() => {}
                    () = self.app.stopping.cancelled() => return None,
                }
            }
            match self.look().await {
                Ok(events) => self.ready = events,
                Err(problem) => {
                    // The client reconnects with its Last-Event-ID.
                    warn!(order = %self.order, title = %problem.title, "an event stream broke off");
                    return None;
                }
            }
        }
    }

    /// Waits until the timeline of a settled order is waited for no longer. Without a settlement it waits for ever.
    async fn longest_timeline(&self) {
        match self.settled {
            Some(since) => tokio::time::sleep_until((since + LONGEST_TIMELINE).into()).await,
            None => std::future::pending().await,
        }
    }

    /// Returns the new events, the first one last.
    async fn look(&mut self) -> Result<Vec<Event>, Problem> {
        let mut db = self.app.db.read().await?;
        // The order and the end of its timeline are looked at before the timeline is read.
        let order = store::find(&mut db, self.order).await?.ok_or_else(|| unknown(self.order))?;
        let settled = order.status.is_settled().then(|| *self.settled.get_or_insert_with(Instant::now));
        let ends = match settled {
            None => false,
            Some(since) if since.elapsed() >= LONGEST_TIMELINE => true,
            Some(_) => store::tells_settlement(&mut db, self.order).await?,
        };
        let rows = store::find_timeline(&mut db, self.order, self.last).await?;
        // The settlement may have been told between the two. Nothing would wake the stream for it again.
        let ends = ends || (settled.is_some() && rows.iter().any(TimelineRow::tells_settlement));
        let mut events = Vec::with_capacity(rows.len() + 1);
        for row in rows {
            self.last = row.position;
            let event = Event::default().id(row.position.to_string()).event(&row.kind);
            events.push(event.data(serde_json::to_string(&row)?));
        }
        self.watch.saw(Seen { version: order.version, position: self.last });
        if ends {
            self.ended = true;
            events.push(Event::default().event("settled").data(serde_json::to_string(&order)?));
        }
        events.reverse();
        Ok(events)
    }
}
