//! Housekeeping of the core's tables. The inbox is partitioned by the time in the message ids: days that are over are
//! dropped, and days to come are created ahead. Step outcomes, and an application's own tables of that kind, are deleted in
//! small batches.
//!
//! A message that is older than this memory can't be told from one that was handled and forgotten. It is never handled: it
//! is parked, and an operator decides.

mod store;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::backoff::jittered;
use crate::db::Db;
use crate::fault::{Class, Classified};
use crate::metric;
use crate::unit_of_work::UnitOfWork;

/// The largest number of rows that one statement deletes, so that it holds its locks for a moment only.
pub const BATCH: i64 = 1000;

/// How often old rows are looked for.
const EVERY: Duration = Duration::from_secs(600);
/// How much longer things are kept than they are relied on, so that a transaction which began just before something
/// became too old still finds it.
const MARGIN: Duration = Duration::from_secs(3600);

/// Deletes a batch of old rows of one table, at most [`BATCH`], and returns how many they were.
type DeleteBatch =
    dyn for<'a> Fn(&'a mut PgConnection) -> BoxFuture<'a, Result<u64, sqlx::Error>> + Send + Sync;

/// A table of the application's own from which old rows are deleted.
#[derive(Clone)]
struct Prune {
    table: &'static str,
    batch: Arc<DeleteBatch>,
}

/// Keeps the tables small. Any number of replicas may run one: they take turns.
#[derive(Clone)]
pub struct Housekeeper {
    db: Db,
    own: Vec<Prune>,
}

impl Housekeeper {
    /// A housekeeper of the core's own tables.
    pub fn new(db: Db) -> Self {
        Self { db, own: Vec::new() }
    }

    /// Also deletes old rows of a table of the application's own. `batch` deletes at most [`BATCH`] rows and returns how many
    /// it deleted; it is repeated until they are fewer.
    pub fn prune<F>(&mut self, table: &'static str, batch: F)
    where
        F: for<'a> Fn(&'a mut PgConnection) -> BoxFuture<'a, Result<u64, sqlx::Error>>
            + Send
            + Sync
            + 'static,
    {
        self.own.push(Prune { table, batch: Arc::new(batch) });
    }

    /// Looks after the tables at once and every ten minutes, until `stop`. What fails is tried again then: the
    /// partitions are created days ahead.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(error) = self.pass(&stop).await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "old rows could not be removed; it is tried again"
                );
            }
            stop.run_until_cancelled(tokio::time::sleep(jittered(EVERY * 4 / 3))).await;
        }
    }

    async fn pass(&self, stop: &CancellationToken) -> Result<(), sqlx::Error> {
        self.partitions().await?;
        let memory = self.db.retention();
        let kept = memory.inbox + MARGIN;
        self.prune_table(stop, "inbox_other", |db| Box::pin(store::delete_others(db, kept))).await?;
        let kept = memory.steps + MARGIN;
        self.prune_table(stop, "step_outcome", |db| Box::pin(store::delete_steps(db, kept))).await?;
        for own in &self.own {
            self.prune_table(stop, own.table, |db| (own.batch)(db)).await?;
        }
        Ok(())
    }

    /// Makes the days to come and drops those that are over, each in a transaction of its own.
    async fn partitions(&self) -> Result<(), sqlx::Error> {
        let mut db = self.db.read().await?;
        let missing = store::missing_days(&mut db).await?;
        let over = store::days_over(&mut db, self.db.retention().inbox + MARGIN).await?;
        drop(db);
        for day in missing {
            let Some(mut uow) = self.alone().await? else { return Ok(()) };
            if let Err(error) = store::add_day(uow.db(), day).await {
                later(day, error)?;
                continue;
            }
            uow.commit().await?;
        }
        for day in over {
            let Some(mut uow) = self.alone().await? else { return Ok(()) };
            if let Err(error) = store::drop_day(uow.db(), day).await {
                later(day, error)?;
                continue;
            }
            uow.commit().await?;
            info!(%day, "the inbox has forgotten a day");
        }
        let partitions = store::count_partitions(&mut *self.db.read().await?).await?;
        metric::INBOX_PARTITIONS.gauge(&[]).set(partitions as f64);
        Ok(())
    }

    /// Deletes batch by batch, so that nobody waits for long.
    async fn prune_table(
        &self,
        stop: &CancellationToken,
        table: &'static str,
        batch: impl for<'a> Fn(&'a mut PgConnection) -> BoxFuture<'a, Result<u64, sqlx::Error>>,
    ) -> Result<(), sqlx::Error> {
        let mut all = 0;
        while !stop.is_cancelled() {
            let Some(mut uow) = self.alone().await? else { break };
            let deleted = batch(uow.db()).await?;
            uow.commit().await?;
            metric::PRUNED_ROWS.counter(&[table]).increment(deleted);
            all += deleted;
            if deleted < BATCH.cast_unsigned() {
                break;
            }
        }
        if all > 0 {
            info!(table, rows = all, "old rows were deleted");
        }
        Ok(())
    }

    /// A transaction that no other replica's keeper has at the same time; `None` if another is at it.
    async fn alone(&self) -> Result<Option<UnitOfWork>, sqlx::Error> {
        let mut uow = self.db.write(&[]).await?;
        if store::try_lock(uow.db()).await? {
            return Ok(Some(uow));
        }
        uow.abandon().await?;
        Ok(None)
    }
}

/// A day that can't be made or dropped now is tried again with the next pass, and keeps the others from nothing.
fn later(day: time::Date, error: sqlx::Error) -> Result<(), sqlx::Error> {
    if error.as_database_error().is_none() {
        return Err(error);
    }
    if error.class() == Class::Retry {
        debug!(%day, %error, "the inbox is in use; its partitions are looked after later");
    } else {
        warn!(%day, %error, "a partition of the inbox could not be made or dropped; it is tried again");
    }
    Ok(())
}
