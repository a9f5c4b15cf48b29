//! Empties the outbox by truncation. Writers use three slots in turn, one minute each. A slot is truncated when every
//! relay has sent all its rows and no transaction uses it.

use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use tracing::warn;

use crate::fault::{Class, Classified};
use crate::metric;
use crate::outbox::receipts;
use crate::outbox::unsent::IS_SENT;

/// How often a relay checks for a slot to truncate.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long truncation may be blocked before a warning, and the interval between warnings.
const WARN_AFTER: Duration = Duration::from_secs(10);
const WARN_INTERVAL: Duration = Duration::from_secs(300);

/// The state of truncation between two checks.
#[derive(Default)]
pub(super) struct Slots {
    checked_at: Option<Instant>,
    blocked_since: Option<Instant>,
    warned_at: Option<Instant>,
}

/// The result of a check of the next slot.
enum SlotState {
    /// The slot is empty, or was truncated.
    Empty,
    /// Some of its rows are not sent yet.
    Unsent,
    /// A transaction uses the slot.
    InUse,
}

impl Slots {
    /// Truncates the slot that will be written next, if it has rows and all of them are on Kafka. If a transaction
    /// prevents this, the gauge `outbox_truncation_held_back_seconds` says for how long. The gauge
    /// `outbox_truncation_holder_pid` and the log name the server process.
    pub(super) async fn truncate_sent(&mut self, db: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.checked_at.is_some_and(|checked_at| checked_at.elapsed() < CHECK_INTERVAL) {
            return Ok(());
        }
        self.checked_at = Some(Instant::now());
        let next: i64 = sqlx::query_scalar("select (extract(epoch from now())::bigint / 60 + 1) % 3")
            .fetch_one(&mut *db)
            .await?;
        let slot = format!("outbox_{next}");
        match truncate(db, &slot).await {
            Ok(SlotState::Empty) => {
                self.blocked_since = None;
                self.warned_at = None;
                report_blocked(Duration::ZERO);
                report_holder(None);
                Ok(())
            }
            Ok(slot_state) => self.report_blocked(db, &slot, slot_state).await,
            Err(error) if error.class() == Class::Retry && error.as_database_error().is_some() => {
                self.report_blocked(db, &slot, SlotState::InUse).await
            }
            Err(error) => Err(error),
        }
    }

    async fn report_blocked(
        &mut self,
        db: &mut PgConnection,
        slot: &str,
        slot_state: SlotState,
    ) -> Result<(), sqlx::Error> {
        let blocked_for = self.blocked_since.get_or_insert_with(Instant::now).elapsed();
        let holder = oldest_user(db, slot).await?;
        let age = holder.as_ref().map_or(0.0, |holder| holder.age);
        report_holder(holder.as_ref());
        report_blocked(blocked_for.max(Duration::try_from_secs_f64(age).unwrap_or_default()));
        if (blocked_for < WARN_AFTER && age < WARN_AFTER.as_secs_f64())
            || self.warned_at.is_some_and(|warned_at| warned_at.elapsed() < WARN_INTERVAL)
        {
            return Ok(());
        }
        self.warned_at = Some(Instant::now());
        match holder {
            Some(holder) => warn!(
                slot,
                pid = holder.pid,
                since = holder.since,
                application = holder.application,
                state = holder.state,
                "the outbox cannot be truncated: a transaction holds it; end it, or run `select pg_terminate_backend(pid)`"
            ),
            None if matches!(slot_state, SlotState::Unsent) => {
                warn!(slot, "the outbox cannot be truncated: it has rows that were not sent yet");
            }
            None => {}
        }
        Ok(())
    }
}

impl Drop for Slots {
    /// Resets the gauges, because the next relay measures from the start.
    fn drop(&mut self) {
        report_blocked(Duration::ZERO);
        report_holder(None);
    }
}

/// The process is the value and not a label, because each value of a label is a series for ever.
fn report_holder(holder: Option<&Holder>) {
    let pid = holder.map_or(0, |holder| holder.pid);
    metric::OUTBOX_TRUNCATION_HOLDER_PID.gauge(&[]).set(f64::from(pid));
}

fn report_blocked(blocked_for: Duration) {
    metric::OUTBOX_TRUNCATION_HELD_BACK_SECONDS.gauge(&[]).set(blocked_for.as_secs_f64());
}

crate::row! {
    /// A transaction that blocks the truncation of a slot.
    struct Holder {
        pid: i32,
        since: String,
        /// The age of the transaction in seconds.
        age: f64,
        application: String,
        state: String,
    }
}

/// Returns the oldest transaction with a lock on the slot. It has written to the slot or reads it.
async fn oldest_user(db: &mut PgConnection, slot: &str) -> Result<Option<Holder>, sqlx::Error> {
    sqlx::query_as(
        "select a.pid, a.xact_start::text as since,
                a.application_name as application,
                extract(epoch from clock_timestamp() - a.xact_start)::double precision as age,
                coalesce(a.state, '') as state
         from pg_locks l join pg_stat_activity a on a.pid = l.pid
         where l.relation = to_regclass($1) and l.database = (select oid from pg_database where datname = current_database())
           and l.granted and a.pid <> pg_backend_pid() and a.xact_start is not null
         order by a.xact_start limit 1",
    )
    .bind(slot)
    .fetch_optional(db)
    .await
}

async fn truncate(db: &mut PgConnection, slot: &str) -> Result<SlotState, sqlx::Error> {
    let has_rows: bool =
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select exists (select from {slot})")))
            .fetch_one(&mut *db)
            .await?;
    if !has_rows {
        return Ok(SlotState::Empty);
    }
    #[expect(clippy::disallowed_methods, reason = "the relay's own connection, not the pool's")]
    let mut tx = db.begin().await?;
    // While the lock is held no writer is inside the slot, so the check sees all rows. The short timeout keeps
    // writers from waiting.
    sqlx::query("set local lock_timeout = '50ms'").execute(&mut *tx).await?;
    sqlx::query(sqlx::AssertSqlSafe(format!("lock table {slot} in access exclusive mode")))
        .execute(&mut *tx)
        .await?;
    let all_sent: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "select not exists (
             select from {slot} o left join relay_checkpoint c on c.shard = o.shard
             where c.shard is null or not {IS_SENT})"
    )))
    .fetch_one(&mut *tx)
    .await?;
    if all_sent {
        receipts::save_receipt(&mut tx, slot).await?;
        sqlx::query(sqlx::AssertSqlSafe(format!("truncate {slot}"))).execute(&mut *tx).await?;
        metric::OUTBOX_TRUNCATIONS.counter(&[]).increment(1);
    }
    tx.commit().await?;
    Ok(if all_sent { SlotState::Empty } else { SlotState::Unsent })
}
