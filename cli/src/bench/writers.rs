//! Writers that write as services do: through `Db::write`, with the locks of their keys.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::try_join_all;
use shared::db::Db;
use shared::envelope::{Cause, new_id};

use super::app::RowWritten;
use super::ground::WRITERS;

/// The number of keys. It is small enough that several writers often want the same key.
pub const KEYS: usize = 1000;
/// The rows of a transaction when rows are written as quickly as possible.
const BULK: usize = 100;

/// A schedule.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Rows a second.
    pub rate: u32,
    /// Rows in a transaction.
    pub per_commit: u32,
    /// How long rows are written before they are measured.
    pub warmup: Duration,
    pub duration: Duration,
}

impl Pace {
    /// Returns how many rows are written, and how many of them belong to the warm-up.
    pub fn rows(self) -> (usize, usize) {
        let rows = |time: Duration| (f64::from(self.rate) * time.as_secs_f64()) as usize;
        (rows(self.warmup + self.duration), rows(self.warmup))
    }
}

/// All rows that are written in one run.
pub struct Writers {
    db: Db,
    /// How many rows each key has so far.
    sequences: RefCell<Vec<u32>>,
    next: Cell<usize>,
    rows: usize,
    /// When each row's commit had returned.
    committed: RefCell<Vec<Option<Instant>>>,
}

impl Writers {
    pub fn new(db: Db, rows: usize) -> Self {
        Self {
            db,
            sequences: RefCell::new(vec![0; KEYS]),
            next: Cell::new(0),
            rows,
            committed: RefCell::new(vec![None; rows]),
        }
    }

    /// Writes all rows as quickly as possible.
    pub async fn at_once(&self) -> anyhow::Result<()> {
        let writer = async || {
            while let Some(first) = self.take(BULK) {
                self.write(first..(first + BULK).min(self.rows)).await?;
            }
            anyhow::Ok(())
        };
        try_join_all((0..WRITERS).map(|_| writer())).await?;
        Ok(())
    }

    /// Writes each transaction at its scheduled time, or as soon after as a writer is free.
    pub async fn on_schedule(&self, pace: Pace) -> anyhow::Result<()> {
        let begin = tokio::time::Instant::now();
        let count = pace.per_commit as usize;
        let writer = async || {
            while let Some(first) = self.take(count) {
                let due = Duration::from_secs_f64(first as f64 / f64::from(pace.rate));
                tokio::time::sleep_until(begin + due).await;
                self.write(first..(first + count).min(self.rows)).await?;
            }
            anyhow::Ok(())
        };
        try_join_all((0..WRITERS).map(|_| writer())).await?;
        Ok(())
    }

    /// Returns when each row's commit had returned.
    pub fn committed(self) -> Vec<Option<Instant>> {
        self.committed.into_inner()
    }

    fn take(&self, count: usize) -> Option<usize> {
        let first = self.next.get();
        self.next.set(first + count);
        (first < self.rows).then_some(first)
    }

    async fn write(&self, rows: std::ops::Range<usize>) -> anyhow::Result<()> {
        // Successive rows have different keys, and every key comes again.
        let number = |row: usize| row.wrapping_mul(7919) % KEYS;
        let keys: Vec<String> = rows.clone().map(|row| key(number(row))).collect();
        let mut uow = self.db.write(&keys).await.context("a write could not begin")?;
        let cause = Cause::request(new_id(), None);
        for (row, key) in rows.clone().zip(&keys) {
            // The lock of the key is held, so the sequence follows the order of the commits.
            let sequence = {
                let mut sequences = self.sequences.borrow_mut();
                sequences[number(row)] += 1;
                sequences[number(row)]
            };
            uow.publish(key, &cause, &RowWritten::new(row, sequence)).context("a row was refused")?;
        }
        uow.commit().await.context("a commit failed")?;
        let now = Instant::now();
        self.committed.borrow_mut()[rows].fill(Some(now));
        Ok(())
    }
}

fn key(number: usize) -> String {
    format!("key-{number:04}")
}
