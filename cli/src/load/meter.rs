//! When a run is read: at the end of the warm-up, at the end of placing, and when all has settled.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::counters::{self, Database};
use super::per_order::Reading;
use super::processes::Processes;
use crate::api::Api;

/// Reads what the suite uses and does.
pub struct Meter {
    pub api: Arc<Api>,
    pub board: Arc<Board>,
    pub processes: Processes,
    pub database: Database,
}

impl Meter {
    pub async fn read(&mut self) -> Reading {
        let settled = self.board.standing().settled;
        // Some milliseconds of reading files, which must not hold up the orders.
        let ticks = tokio::task::block_in_place(|| self.processes.ticks());
        let commits = self.database.commits().await;
        let published = counters::published(&self.api).await;
        Reading { settled, ticks, published, commits }
    }
}

/// What was read at the end of the warm-up, and how many orders had settled at the end of placing.
pub struct Marks {
    pub meter: Meter,
    pub at: Instant,
    pub first: Reading,
    pub end: Instant,
    pub settled: u64,
}

/// Takes a reading at the moment from which is measured, and counts at the end; both at once on a stop.
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
