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

    /// Writes one row a transaction at its scheduled time, or as soon after as a writer is free.
    pub async fn on_schedule(&self, rate: u32) -> anyhow::Result<()> {
        let begin = tokio::time::Instant::now();
        let writer = async || {
            while let Some(row) = self.take(1) {
                tokio::time::sleep_until(begin + Duration::from_secs_f64(row as f64 / f64::from(rate))).await;
                self.write(row..row + 1).await?;
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
        let mut claimed = self.db.write(&keys).await.context("a write could not begin")?;
        let cause = Cause::request(new_id(), None);
        for (row, key) in rows.clone().zip(&keys) {
            // Counted with the lock held, as an aggregate's version is.
            let sequence = {
                let mut sequences = self.sequences.borrow_mut();
                sequences[number(row)] += 1;
                sequences[number(row)]
            };
            claimed
                .publish(key, &cause, &RowWritten::new(row, sequence))
                .map_err(|fault| anyhow::anyhow!("a row was refused: {}", fault.chain()))?;
        }
        claimed.commit().await.context("a commit failed")?;
        let now = Instant::now();
        self.committed.borrow_mut()[rows].fill(Some(now));
        Ok(())
    }
}

fn key(number: usize) -> String {
    format!("key-{number:04}")
}
