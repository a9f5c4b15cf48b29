//! A run: the tasks that observe it, the placing of its orders, and the readings at its beginning and end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::counters::Database;
use super::feed::Feed;
use super::meter::{Marks, Meter, mark};
use super::mix::Mix;
use super::per_order::Reading;
use super::place::Placing;
use super::plan::{self, Parts};
use super::processes::{Processes, Usage};
use super::terminal;
use crate::api::{self, Api};
use crate::run::Where;

pub struct Run {
    pub board: Arc<Board>,
    pub feed: Arc<Feed>,
    /// Cancelled when no more orders are to be placed.
    pub stop: CancellationToken,
    api: Arc<Api>,
    placing: Arc<Placing<Mix>>,
    /// Cancelled when the observers are to end.
    over: CancellationToken,
    observers: JoinSet<()>,
}

/// The readings of a run.
pub struct Readings {
    /// When the placing began.
    pub began: Instant,
    pub marks: Marks,
    /// The reading after the last order has settled.
    pub last: Reading,
    pub memory: Usage<f64>,
}

impl Run {
    /// Opens the feed of settled orders and starts the tasks that observe the run.
    pub async fn begin(api: &Arc<Api>, mix: Mix, parts: &Parts) -> anyhow::Result<Self> {
        let board = Arc::new(Board::new(parts.bounds.len())?);
        let client = api::client();
        let feed = Arc::new(Feed::new(api, &client, &board));
        let first = feed.open().await?;
        let (stop, over) = (CancellationToken::new(), CancellationToken::new());
        let mut observers = JoinSet::new();
        observers.spawn({
            let (feed, over) = (Arc::clone(&feed), over.clone());
            async move { feed.follow(first, over).await }
        });
        observers.spawn({
            let (feed, over) = (Arc::clone(&feed), over.clone());
            async move { feed.ask(over).await }
        });
        observers.spawn(terminal::show_progress(Arc::clone(&board), over.clone()));
        observers.spawn({
            let (stop, over) = (stop.clone(), over.clone());
            async move {
                if over.run_until_cancelled(terminal::told_to_end(stop)).await.is_some() {
                    std::process::exit(130);
                }
            }
        });
        let placing = Arc::new(Placing::new(client, api.url("order", "/orders"), mix, &board, &stop));
        Ok(Self { board, feed, stop, api: Arc::clone(api), placing, over, observers })
    }

    /// Places the orders from so many clients, or at the rates of the plan, and waits until they have settled, at most for
    /// `patience`.
    pub async fn measure(
        &self,
        place: &Where,
        parts: &Parts,
        clients: Option<u16>,
        patience: Duration,
    ) -> anyhow::Result<Readings> {
        let meter = Meter {
            api: Some(Arc::clone(&self.api)),
            board: Arc::clone(&self.board),
            processes: Processes::find(place),
            database: Database::open(&place.suite).await,
        };
        let began = Instant::now();
        let (measured, end) = (began + parts.warmup(), began + parts.end());
        let mut marking = JoinSet::new();
        marking.spawn(mark(meter, measured, end, self.stop.clone()));
        match clients {
            Some(clients) => self.placing.closed_loop(usize::from(clients), measured, end).await?,
            None => self.placing.open_loop(began, plan::schedule(&parts.rates, &parts.bounds)).await?,
        }
        let mut marks = marking.join_next().await.context("the readings were not taken")??;
        self.feed.drain(patience).await;
        let last = marks.meter.read().await;
        // Find the processes again: those that were restarted during the run use memory too.
        let memory = Processes::find(place).memory_mb();
        Ok(Readings { began, marks, last, memory })
    }

    /// Ends the tasks that observe the run.
    pub async fn end(&mut self) -> anyhow::Result<()> {
        self.over.cancel();
        while let Some(ended) = self.observers.join_next().await {
            ended?;
        }
        Ok(())
    }
}
