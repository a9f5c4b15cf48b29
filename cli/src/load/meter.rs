//! The moments of a run at which the suite's counters are read.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::counters::{self, Database};
use super::per_order::Reading;
use super::processes::Processes;
use crate::api::Api;

/// Reads what the suite has used and done so far.
pub struct Meter {
    /// The suite's services, if messages are counted.
    pub api: Option<Arc<Api>>,
    pub board: Arc<Board>,
    pub processes: Processes,
    pub database: Database,
}

impl Meter {
    pub async fn read(&mut self) -> Reading {
        let settled = self.board.standing().settled;
        // Reading the files takes some milliseconds, which must not delay orders.
        let ticks = tokio::task::block_in_place(|| self.processes.ticks());
        let commits = self.database.commits().await;
        let published = match &self.api {
            Some(api) => counters::published(api).await,
            None => None,
        };
        Reading { settled, ticks, published, commits }
    }
}

/// The reading at the end of the warm-up, and the number of orders that had settled at the end of placing.
pub struct Marks {
    pub meter: Meter,
    pub at: Instant,
    pub first: Reading,
    pub end: Instant,
    pub settled: u64,
}

/// Takes a reading at `measured`, and counts the settled orders at `end`. If the run is stopped, both happen at once.
pub async fn mark(mut meter: Meter, measured: Instant, end: Instant, stop: CancellationToken) -> Marks {
    let until = async |moment: Instant| {
        let _ = stop.run_until_cancelled(tokio::time::sleep_until(moment.into())).await;
    };
    until(measured).await;
    let at = Instant::now();
    let first = meter.read().await;
    until(end).await;
    let (end, settled) = (Instant::now(), meter.board.standing().settled);
    Marks { meter, at, first, end, settled }
}
