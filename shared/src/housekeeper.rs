//! Housekeeping of the core's tables.
//! The inbox is partitioned by the time in the message ids. The housekeeper drops the partitions of past days and
//! creates those of coming days in advance. It deletes old step outcomes in small batches, and can do the same for
//! the application's own tables.
//!
//! A message older than the retention cannot be distinguished from one that was handled and forgotten. It is never
//! handled: it is parked, and an operator decides.

mod store;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::backoff::jittered;
use crate::db::Db;
use crate::deadline::limited;
use crate::fault::Fault;
use crate::metric;
use crate::unit_of_work::UnitOfWork;

/// The largest number of rows that one statement deletes. A small number keeps the locks short.
pub const BATCH: i64 = 1000;

/// The interval between two runs.
const INTERVAL: Duration = Duration::from_secs(600);
/// How much longer rows are kept than the retention. A transaction that began just before a row became too old still
/// finds it.
const MARGIN: Duration = Duration::from_secs(3600);

/// Deletes a batch of old rows of one table, at most [`BATCH`], and returns the number of deleted rows.
type DeleteBatch =
    dyn for<'a> Fn(&'a mut PgConnection) -> BoxFuture<'a, Result<u64, sqlx::Error>> + Send + Sync;

/// A table of the application that the housekeeper prunes.
#[derive(Clone)]
struct Prune {
    table: &'static str,
    batch: Arc<DeleteBatch>,
}

/// Deletes old rows from the core's tables. Any number of replicas may run one; they take turns.
#[derive(Clone)]
pub struct Housekeeper {
    db: Db,
    tables: Vec<Prune>,
}

impl Housekeeper {
    /// Creates a housekeeper of the core's tables.
    pub fn new(db: Db) -> Self {
        Self { db, tables: Vec::new() }
    }

    /// Also deletes old rows of one of the application's tables. `batch` deletes at most [`BATCH`] rows and returns
    /// the number of deleted rows. It is repeated until it deletes fewer.
    pub fn prune<F>(&mut self, table: &'static str, batch: F)
    where
        F: for<'a> Fn(&'a mut PgConnection) -> BoxFuture<'a, Result<u64, sqlx::Error>>
            + Send
            + Sync
            + 'static,
    {
        self.tables.push(Prune { table, batch: Arc::new(batch) });
    }

    /// Runs at once and then every ten minutes, until `stop`. A failure is logged, and the next run tries again.
    /// Partitions are created days in advance, so that a failed run does no harm.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(fault) = self.run_once(&stop).await {
                warn!(%fault, "old rows could not be removed; the next run tries again");
            }
            stop.run_until_cancelled(tokio::time::sleep(jittered(INTERVAL * 4 / 3))).await;
        }
    }

    async fn run_once(&self, stop: &CancellationToken) -> Result<(), Fault> {
        limited(self.partitions()).await?;
        let retention = self.db.retention();
        let kept = retention.inbox + MARGIN;
        self.prune_table(stop, "inbox_other", |db| Box::pin(store::delete_others(db, kept))).await?;
        let kept = retention.steps + MARGIN;
        self.prune_table(stop, "step_outcome", |db| Box::pin(store::delete_steps(db, kept))).await?;
        let kept = retention.inbox;
        self.prune_table(stop, "record_gap", |db| Box::pin(store::delete_gaps(db, kept))).await?;
        for prune in &self.tables {
            self.prune_table(stop, prune.table, |db| (prune.batch)(db)).await?;
        }
        Ok(())
    }

    /// Creates the partitions of coming days and drops those of past days, each in its own transaction.
    async fn partitions(&self) -> Result<(), sqlx::Error> {
        let mut db = self.db.read().await?;
        let missing = store::missing_days(&mut db).await?;
        let past = store::days_over(&mut db, self.db.retention().inbox + MARGIN).await?;
        drop(db);
        for day in missing {
            let Some(mut uow) = self.begin_exclusive().await? else { return Ok(()) };
            if let Err(error) = store::add_day(uow.db(), day).await {
                log_skipped_day(day, error)?;
                continue;
            }
            uow.commit().await?;
        }
        for day in past {
            let Some(mut uow) = self.begin_exclusive().await? else { return Ok(()) };
            if let Err(error) = store::drop_day(uow.db(), day).await {
                log_skipped_day(day, error)?;
                continue;
            }
            uow.commit().await?;
            info!(%day, "a past day of the inbox was dropped");
        }
        let partitions = store::count_partitions(&mut *self.db.read().await?).await?;
        metric::INBOX_PARTITIONS.gauge(&[]).set(partitions as f64);
        Ok(())
    }

    /// Deletes batch by batch, so that other transactions never wait long.
    async fn prune_table(
        &self,
        stop: &CancellationToken,
        table: &'static str,
        batch: impl for<'a> Fn(&'a mut PgConnection) -> BoxFuture<'a, Result<u64, sqlx::Error>>,
    ) -> Result<(), Fault> {
        let mut total = 0;
        while !stop.is_cancelled() {
            let delete = async {
                let Some(mut uow) = self.begin_exclusive().await? else { return Ok(None) };
                let deleted = batch(uow.db()).await?;
                uow.commit().await?;
                Ok::<_, sqlx::Error>(Some(deleted))
            };
            let Some(deleted) = limited(delete).await? else { break };
            metric::PRUNED_ROWS.counter(&[table]).increment(deleted);
            total += deleted;
            if deleted < BATCH.cast_unsigned() {
                break;
            }
        }
        if total > 0 {
            info!(table, rows = total, "old rows were deleted");
        }
        Ok(())
    }

    /// Begins a transaction with the housekeeping lock. Returns `None` if another replica holds the lock.
    async fn begin_exclusive(&self) -> Result<Option<UnitOfWork>, sqlx::Error> {
        let mut uow = self.db.write(&[]).await?;
        if store::try_lock(uow.db()).await? {
            return Ok(Some(uow));
        }
        uow.abandon().await?;
        Ok(None)
    }
}

/// Logs a day whose partition cannot be created or dropped now. The next run tries again, and the other days are not
/// affected. Returns the error if it concerns the connection.
fn log_skipped_day(day: time::Date, error: sqlx::Error) -> Result<(), sqlx::Error> {
    let Some(refusal) = error.as_database_error() else { return Err(error) };
    let code = refusal.code().map(|code| code.into_owned());
    // The lock was not available, the statement waited too long for it, or there was a deadlock.
    let in_use = matches!(code.as_deref(), Some("55P03" | "57014" | "40P01"));
    if in_use {
        debug!(%day, %error, "the inbox is in use; the next run changes its partitions");
    } else {
        warn!(%day, %error, "a partition of the inbox could not be created or dropped; the next run tries again");
    }
    Ok(())
}
