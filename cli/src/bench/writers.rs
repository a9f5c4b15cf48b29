//! Writers as services have them: through `Db::write`, under the locks of their keys.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::try_join_all;
use shared::db::Db;
use shared::envelope::{Cause, new_id};

use super::app::RowWritten;
use super::ground::WRITERS;

/// How many keys the rows are about: several writers often want the same one.
pub const KEYS: usize = 1000;
/// Rows in a transaction where only their number counts.
const BULK: usize = 100;

/// A schedule.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Rows a second.
    pub rate: u32,
    /// Rows in a transaction.
    pub per_commit: u32,
    /// For how long rows are written that do not count.
    pub warmup: Duration,
    pub duration: Duration,
}

impl Pace {
    /// How many rows are written, and how many of them do not count.
    pub fn rows(self) -> (usize, usize) {
        let rows = |time: Duration| (f64::from(self.rate) * time.as_secs_f64()) as usize;
        (rows(self.warmup + self.duration), rows(self.warmup))
    }
}

/// All rows that are written in one run.
pub struct Writers {
    db: Db,
    /// How many rows a key has.
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

    /// Writes all rows as quickly as it goes.
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

    /// When each row's commit had returned.
    pub fn committed(self) -> Vec<Option<Instant>> {
        self.committed.into_inner()
    }

    fn take(&self, count: usize) -> Option<usize> {
        let first = self.next.get();
        self.next.set(first + count);
        (first < self.rows).then_some(first)
    }

    async fn write(&self, rows: std::ops::Range<usize>) -> anyhow::Result<()> {
        // Neighbours in time are about different keys, and every key comes round again.
        let number = |row: usize| row.wrapping_mul(7919) % KEYS;
        let keys: Vec<String> = rows.clone().map(|row| key(number(row))).collect();
        let mut uow = self.db.write(&keys).await.context("a write could not begin")?;
        let cause = Cause::request(new_id(), None);
        for (row, key) in rows.clone().zip(&keys) {
            // Counted with the lock held, as an aggregate's version is.
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
