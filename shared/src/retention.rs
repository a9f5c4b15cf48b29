//! What is forgotten, and when. The inbox is partitioned by the time in the message ids; days that are over are dropped,
//! days to come are made ahead. Step outcomes, and a service's own tables of that kind, are deleted in small batches.
//!
//! Whatever is older than this memory can't be told from what was handled and forgotten. It is never handled: such a
//! message is parked, and an operator decides.

mod store;

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::consumer::BoxFuture;
use crate::db::Db;
use crate::fault::{Class, Classified, Fault};
use crate::inbox::Claimed;
use crate::service::jittered;
use crate::steps::StepKey;

/// Most rows that one statement deletes, so that it holds its locks for a moment only.
pub const BATCH: i64 = 1000;

/// The reason for which a message is parked that is older than the inbox remembers.
pub(crate) const STALE: &str =
    "stale: the message is older than the inbox remembers, so it can't be told whether it was handled";

/// How often old rows are looked for.
const EVERY: Duration = Duration::from_secs(600);
/// How much longer things are kept than they are relied on, so that a transaction which began just before something
/// became too old still finds it.
const MARGIN: Duration = Duration::from_secs(3600);

/// How long a service remembers what it has done.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// How long the inbox remembers message ids.
    pub inbox: Duration,
    /// How long the outcomes of saga steps are kept. The longest saga must be shorter.
    pub steps: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        const TWO_WEEKS: Duration = Duration::from_secs(14 * 24 * 3600);
        Self { inbox: TWO_WEEKS, steps: TWO_WEEKS }
    }
}

impl Retention {
    /// Whether it is longer than the topics keep messages.
    ///
    /// # Errors
    /// Which setting is too short, and what it must be. A message that is read again after its id was forgotten would
    /// take effect twice.
    pub fn check(&self, topics: Duration) -> Result<(), String> {
        for (setting, value) in [("INBOX_RETENTION", self.inbox), ("STEP_RETENTION", self.steps)] {
            if value <= topics {
                let (days, needed) = (value.as_secs_f64() / 86_400.0, topics.as_secs_f64() / 86_400.0);
                return Err(format!(
                    "{setting} is {days:.1} days, but the topics keep messages for {needed:.1} days: \
                     a message that is read again after it was forgotten would take effect twice. Set {setting} to more"
                ));
            }
        }
        Ok(())
    }
}

/// The milliseconds since 1970 in an id, if it is a UUIDv7.
fn made_at(id: Uuid) -> Option<i128> {
    (id.get_version_num() == 7).then(|| i128::from((id.as_u128() >> 80) as u64))
}

/// Whether an id is older than `memory`. An id that says no time is remembered from when it came, and is never stale.
pub(crate) fn stale(id: Uuid, now: OffsetDateTime, memory: Duration) -> bool {
    let now = now.unix_timestamp_nanos() / 1_000_000;
    made_at(id).is_some_and(|made| now - made > memory.as_millis().cast_signed())
}

/// The least UUIDv7 that is not older than `memory`.
fn floor(now: OffsetDateTime, memory: Duration) -> Uuid {
    let made = now.unix_timestamp_nanos() / 1_000_000 - memory.as_millis().cast_signed();
    Uuid::from_u128(u128::try_from(made).unwrap_or(0) << 80)
}

/// Refuses a command for a step of which nothing is on record, if what was on record may have been forgotten.
///
/// # Errors
/// If the saga began longer ago than step outcomes are kept. The command is parked.
pub(crate) fn still_known(claimed: &Claimed, step: &StepKey) -> Result<(), Fault> {
    let memory = claimed.retention().steps;
    if !stale(step.saga_id, claimed.now(), memory) {
        return Ok(());
    }
    Err(Fault::permanent(format!(
        "stale: the saga began more than {} days ago, so it can't be told whether this step was done; if it was not, \
         set STEP_RETENTION above the saga's age and retry",
        memory.as_secs() / 86_400
    )))
}

/// Deletes a batch of old rows of one table, at most [`BATCH`], and returns how many they were.
type DeleteBatch =
    dyn for<'a> Fn(&'a mut PgConnection) -> BoxFuture<'a, Result<u64, sqlx::Error>> + Send + Sync;

/// A table of a service's own from which old rows are deleted.
#[derive(Clone)]
pub(crate) struct Prune {
    pub table: &'static str,
    pub batch: Arc<DeleteBatch>,
}

/// Keeps the tables small.
pub(crate) struct Keeper {
    pub db: Db,
    pub own: Vec<Prune>,
}

impl Keeper {
    /// Looks after the tables at once and every ten minutes, until `stop`. What fails is tried again then: the
    /// partitions are made days ahead.
    pub(crate) async fn run(self, stop: CancellationToken) {
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
        self.prune(stop, "inbox_other", |db| Box::pin(store::delete_others(db, kept))).await?;
        let kept = memory.steps + MARGIN;
        self.prune(stop, "step_outcome", |db| Box::pin(store::delete_steps(db, kept))).await?;
        for own in &self.own {
            self.prune(stop, own.table, |db| (own.batch)(db)).await?;
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
            let Some(mut claimed) = self.alone().await? else { return Ok(()) };
            if let Err(error) = store::add_day(claimed.db(), day).await {
                later(day, error)?;
                continue;
            }
            claimed.commit().await?;
        }
        for day in over {
            let Some(mut claimed) = self.alone().await? else { return Ok(()) };
            if let Err(error) = store::drop_day(claimed.db(), day).await {
                later(day, error)?;
                continue;
            }
            claimed.commit().await?;
            info!(%day, "the inbox has forgotten a day");
        }
        let partitions = store::count_partitions(&mut *self.db.read().await?).await?;
        metrics::gauge!("amends_inbox_partitions").set(partitions as f64);
        Ok(())
    }

    /// Deletes batch by batch, so that nobody waits for long.
    async fn prune(
        &self,
        stop: &CancellationToken,
        table: &'static str,
        batch: impl for<'a> Fn(&'a mut PgConnection) -> BoxFuture<'a, Result<u64, sqlx::Error>>,
    ) -> Result<(), sqlx::Error> {
        let mut all = 0;
        while !stop.is_cancelled() {
            let Some(mut claimed) = self.alone().await? else { break };
            let deleted = batch(claimed.db()).await?;
            claimed.commit().await?;
            metrics::counter!("amends_pruned_rows_total", "table" => table).increment(deleted);
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
    async fn alone(&self) -> Result<Option<Claimed>, sqlx::Error> {
        let mut claimed = self.db.write(&[]).await?;
        if store::try_lock(claimed.db()).await? {
            return Ok(Some(claimed));
        }
        claimed.abandon().await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).expect("a time")
    }

    /// An id as it is made at a time.
    fn made(seconds: u64) -> Uuid {
        uuid::Builder::from_unix_timestamp_millis(seconds * 1000, &[0xff; 10]).into_uuid()
    }

    #[test]
    fn an_id_is_stale_when_its_time_is_older_than_the_memory() {
        let now = at(1_800_000_000);
        let memory = 14 * DAY;
        let oldest = 1_800_000_000 - memory.as_secs();
        assert!(!stale(made(oldest), now, memory));
        assert!(stale(made(oldest - 1), now, memory));
        assert!(!stale(made(1_800_000_000 + 3600), now, memory), "a clock that is ahead makes nothing stale");
        let random = uuid::Builder::from_random_bytes([0; 16]).into_uuid();
        assert!(!stale(random, now, memory), "an id of another kind says no time");
    }

    #[test]
    fn the_floor_is_below_every_id_that_is_not_stale_and_above_the_others() {
        let now = at(1_800_000_000);
        let floor = floor(now, DAY);
        assert!(floor < made(1_800_000_000 - DAY.as_secs()));
        assert!(floor > made(1_800_000_000 - DAY.as_secs() - 1));
    }

    #[test]
    fn a_memory_that_is_shorter_than_the_topics_is_refused() {
        let topics = 7 * DAY;
        assert_eq!(Retention::default().check(topics), Ok(()));
        let short = Retention { inbox: topics, ..Retention::default() };
        let said = short.check(topics).expect_err("too short");
        assert!(
            said.starts_with("INBOX_RETENTION is 7.0 days, but the topics keep messages for 7.0 days"),
            "{said}"
        );
        let short = Retention { steps: DAY, ..Retention::default() };
        assert!(short.check(topics).expect_err("too short").starts_with("STEP_RETENTION is 1.0 days"));
    }
}
