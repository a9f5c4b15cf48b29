//! Places orders: at a constant rate (open loop), or from clients that wait until each order has settled (closed loop).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, StatusCode};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::board::Board;
use super::mix::Mix;
use super::plan::Due;

/// The most requests at a time. Further requests wait for their turn, and their latencies include the wait.
const MOST_AT_ONCE: usize = 512;
/// How long the order service may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a client pauses after an error without `Retry-After`.
const REST: Duration = Duration::from_millis(100);

/// What is ordered.
pub trait Orders: Send + Sync + 'static {
    /// Returns the body of the order with this number.
    fn body(&self, number: u64) -> String;

    /// Returns the id of this order after it was accepted.
    fn id(&self, number: u64, headers: &HeaderMap) -> Option<Uuid>;
}

impl Orders for Mix {
    fn body(&self, number: u64) -> String {
        Self::body(self, number)
    }

    /// The order service chooses the id.
    fn id(&self, _number: u64, headers: &HeaderMap) -> Option<Uuid> {
        location(headers)
    }
}

/// Places orders and puts them on the board.
pub struct Placing<O> {
    client: Client,
    url: String,
    orders: O,
    board: Arc<Board>,
    turns: Semaphore,
    number: AtomicU64,
    /// Ends the placing early.
    stop: CancellationToken,
}

/// The result of a request.
enum Answer {
    Accepted(oneshot::Receiver<()>),
    /// It has the pause before the next request, if the service named one.
    Failed(Option<Duration>),
    /// It was not sent, because the run was stopped.
    Dropped,
}

impl<O: Orders> Placing<O> {
    pub fn new(client: Client, url: String, orders: O, board: &Arc<Board>, stop: &CancellationToken) -> Self {
        let (board, stop) = (Arc::clone(board), stop.clone());
        let turns = Semaphore::new(MOST_AT_ONCE);
        Self { client, url, orders, board, turns, number: AtomicU64::new(0), stop }
    }

    async fn place(&self, part: usize, began: Instant) -> Answer {
        let Ok(_turn) = self.turns.acquire().await else { return Answer::Dropped };
        if self.stop.is_cancelled() {
            return Answer::Dropped;
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let body = self.orders.body(number);
        let request = self.client.post(&self.url).header(CONTENT_TYPE, "application/json").body(body);
        let response = match request.timeout(ANSWER).send().await {
            Ok(response) => response,
            Err(error) => {
                self.board.failed(part, kind(&error).to_owned());
                return Answer::Failed(None);
            }
        };
        let now = Instant::now();
        let status = response.status();
        let (id, wait) = (self.orders.id(number, response.headers()), retry_after(response.headers()));
        // The body must be read to its end, or the connection can't be reused.
        let _ = response.bytes().await;
        match id {
            Some(id) if status == StatusCode::ACCEPTED => {
                Answer::Accepted(self.board.accepted(id, part, began, now))
            }
            _ => {
                self.board.failed(part, status.as_u16().to_string());
                Answer::Failed(wait)
            }
        }
    }

    /// Places an order at each time of the schedule. Returns when the schedule is over and every request is answered.
    pub async fn open_loop(
        self: &Arc<Self>,
        began: Instant,
        schedule: impl Iterator<Item = Due> + Send + 'static,
    ) -> anyhow::Result<()> {
        let (send, mut dues) = mpsc::unbounded_channel();
        let stop = self.stop.clone();
        // It has a thread of its own, because the runtime's timers have a resolution of a millisecond.
        std::thread::Builder::new().name("pace".into()).spawn(move || pace(began, schedule, &stop, &send))?;
        let mut flights = JoinSet::new();
        loop {
            tokio::select! {
                due = dues.recv() => {
                    let Some(due) = due else { break };
                    let placing = Arc::clone(self);
                    flights.spawn(async move { placing.place(due.part, began + due.at).await; });
                }
                Some(ended) = flights.join_next() => ended?,
            }
        }
        while let Some(ended) = flights.join_next().await {
            ended?;
        }
        Ok(())
    }

    /// Lets this many clients place one order after the other until `end`. Orders from `measured` on count for the first
    /// phase.
    pub async fn closed_loop(
        self: &Arc<Self>,
        clients: usize,
        measured: Instant,
        end: Instant,
    ) -> anyhow::Result<()> {
        let mut running = JoinSet::new();
        for _ in 0..clients {
            let placing = Arc::clone(self);
            running.spawn(async move { placing.client(measured, end).await });
        }
        while let Some(ended) = running.join_next().await {
            ended?;
        }
        Ok(())
    }

    async fn client(&self, measured: Instant, end: Instant) {
        loop {
            let began = Instant::now();
            if began >= end || self.stop.is_cancelled() {
                return;
            }
            match self.place(usize::from(began >= measured), began).await {
                Answer::Accepted(settled) => {
                    tokio::select! {
                        _ = settled => {}
                        () = tokio::time::sleep_until(end.into()) => return,
                        () = self.stop.cancelled() => return,
                    }
                }
                Answer::Failed(wait) => {
                    let rested = Instant::now() + wait.unwrap_or(REST);
                    let rest = tokio::time::sleep_until(rested.min(end).into());
                    let _ = self.stop.run_until_cancelled(rest).await;
                }
                Answer::Dropped => return,
            }
        }
    }
}

/// Sends each order when it is due, as exactly as the system wakes a thread.
fn pace(
    began: Instant,
    schedule: impl Iterator<Item = Due>,
    stop: &CancellationToken,
    send: &mpsc::UnboundedSender<Due>,
) {
    // At a slow rate, a stop is noticed after this time at the latest.
    const LONGEST_NAP: Duration = Duration::from_millis(100);
    for due in schedule {
        loop {
            if stop.is_cancelled() {
                return;
            }
            let left = (began + due.at).saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(LONGEST_NAP));
        }
        if send.send(due).is_err() {
            return;
        }
    }
}

fn location(headers: &HeaderMap) -> Option<Uuid> {
    headers.get(LOCATION)?.to_str().ok()?.rsplit('/').next()?.parse().ok()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn kind(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_kept_however_late_it_begins() {
        let (send, mut dues) = mpsc::unbounded_channel();
        let late = Instant::now() - Duration::from_secs(1);
        let schedule = (0..100).map(|n| Due { at: Duration::from_millis(n), part: 1 });
        pace(late, schedule, &CancellationToken::new(), &send);
        drop(send);
        let told: Vec<Due> = std::iter::from_fn(|| dues.try_recv().ok()).collect();
        assert_eq!(told.len(), 100, "none is left out to catch up");
        assert_eq!(told[7].at, Duration::from_millis(7), "each keeps its time");
    }

    #[test]
    fn a_pace_that_is_stopped_ends() {
        let (send, mut dues) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        stop.cancel();
        pace(Instant::now(), std::iter::repeat(Due { at: Duration::ZERO, part: 1 }), &stop, &send);
        assert!(dues.try_recv().is_err());
    }

    #[test]
    fn the_answer_says_which_order_and_when_to_come_back() {
        let mut headers = HeaderMap::new();
        assert_eq!((location(&headers), retry_after(&headers)), (None, None));
        let id = Uuid::from_u128(7);
        headers.insert(LOCATION, format!("/orders/{id}").parse().expect("a header"));
        headers.insert(RETRY_AFTER, "3".parse().expect("a header"));
        assert_eq!((location(&headers), retry_after(&headers)), (Some(id), Some(Duration::from_secs(3))));
    }
}
