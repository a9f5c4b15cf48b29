//! Learns the outcomes of orders: from the order service's feed, and by requests for orders that the feed leaves out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{StreamExt, stream};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::board::{Board, Source, Status};
use crate::api::Api;
use crate::events::Events;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often the drain checks whether all orders have settled.
const LOOK_SOON: Duration = Duration::from_millis(10);
/// The most orders that are asked for at a time while orders are placed. They are few, so that the requests are no load.
const FEW: usize = 12;
/// How long the feed may be silent before the drain asks for the remaining orders.
const SILENCE: Duration = Duration::from_secs(2);
const AT_ONCE: usize = 16;
const ANSWER: Duration = Duration::from_secs(5);

/// The feed of the order service.
pub struct Feed {
    pub client: Client,
    pub url: String,
    pub board: Arc<Board>,
    /// How often it broke off or skipped outcomes.
    pub gaps: AtomicU64,
}

#[derive(Deserialize)]
struct Told {
    id: Uuid,
    status: Status,
}

#[derive(Deserialize)]
struct Found {
    status: Status,
}

impl Feed {
    /// Returns the feed of a suite, for the orders on this board.
    pub fn new(api: &Api, client: &Client, board: &Arc<Board>) -> Self {
        let url = api.url("order", "/orders");
        Self { client: client.clone(), url, board: Arc::clone(board), gaps: AtomicU64::new(0) }
    }

    /// Connects to the feed.
    ///
    /// # Errors
    /// If the order service does not offer its feed.
    pub async fn open(&self) -> anyhow::Result<Response> {
        let response = self.client.get(format!("{}/events", self.url)).send().await?;
        response.error_for_status().context("the order service has no feed of settled orders")
    }

    /// Notes the outcomes from the feed, and connects again whenever it breaks off, until `stop`.
    pub async fn follow(&self, first: Response, stop: CancellationToken) {
        let mut response = Some(first);
        loop {
            if let Some(response) = response.take() {
                if stop.run_until_cancelled(self.read(response)).await.is_none() {
                    return;
                }
                self.gaps.fetch_add(1, Ordering::Relaxed);
            }
            if stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
                return;
            }
            response = self.open().await.ok();
        }
    }

    /// Reads the feed until it breaks off.
    async fn read(&self, response: Response) {
        let (mut events, mut chunks) = (Events::default(), response.bytes_stream());
        let mut outcomes = Vec::new();
        while let Some(Ok(chunk)) = chunks.next().await {
            let now = Instant::now();
            events.push(&chunk, |kind, data| match (kind, serde_json::from_str::<Told>(data)) {
                ("settled", Ok(told)) => outcomes.push((told.id, told.status)),
                _ => {
                    self.gaps.fetch_add(1, Ordering::Relaxed);
                }
            });
            self.board.settled(&outcomes, now, Source::Feed);
            outcomes.clear();
        }
    }

    /// Asks for orders that the feed leaves out, until `stop`. Another replica may have settled them.
    pub async fn ask(&self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            self.ask_for(self.board.overdue(Instant::now(), FEW)).await;
        }
    }

    /// Waits until every order has settled, at most for `patience`.
    pub async fn drain(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut asked = Instant::now();
        while self.board.standing().pending > 0 {
            if Instant::now() > deadline {
                return self.ask_for(self.board.pending()).await;
            }
            if self.board.last_told().max(asked).elapsed() > SILENCE {
                self.ask_for(self.board.pending()).await;
                asked = Instant::now();
            }
            tokio::time::sleep(LOOK_SOON).await;
        }
    }

    async fn ask_for(&self, orders: Vec<Uuid>) {
        let asked = stream::iter(orders).map(|id| self.ask_for_one(id)).buffer_unordered(AT_ONCE);
        asked.collect::<Vec<()>>().await;
    }

    /// Asks for one order. If the service does not answer, the order is asked for again later.
    async fn ask_for_one(&self, id: Uuid) {
        let request = self.client.get(format!("{}/{id}", self.url)).timeout(ANSWER);
        let Ok(response) = request.send().await else { return };
        if response.status() == StatusCode::NOT_FOUND {
            self.board.lost(id);
        } else if let Ok(found) = response.json::<Found>().await {
            self.board.settled(&[(id, found.status)], Instant::now(), Source::Asked);
        }
    }
}
