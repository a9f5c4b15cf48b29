//! The relay's lease and checkpoint.

use std::sync::LazyLock;
use std::time::Duration;

use sqlx::PgConnection;

use super::blocked::{self, Blocked, HELD};
use super::{RelayError, Stop, adoption, answered, signals};
use crate::db::Db;

/// How long a silent relay keeps its shard. A relay whose connection is gone loses the shard at once.
const LEASE: Duration = Duration::from_secs(3);

/// The right to relay a shard. Every save checks the epoch, so that a replaced relay finds out.
#[derive(Debug)]
pub(super) struct Lease {
    pub shard: i16,
    pub epoch: i64,
}

/// The rows that were sent: all rows visible in `acked_snapshot`, and those visible in `window_snapshot` up to
/// `position`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    pub acked_snapshot: String,
    pub window_snapshot: Option<String>,
    pub position: i64,
}

/// A shard whose lease this relay has acquired.
pub(super) struct AcquiredShard {
    pub lease: Lease,
    pub cursor: Cursor,
    /// The record at which the shard was stopped, if it was.
    pub stopped: Option<Stop>,
}

crate::row! {
    struct Taken {
        epoch: i64,
        acked_snapshot: String,
        window_snapshot: Option<String>,
        position: i64,
        stopped_position: Option<i64>,
        stopped_reason: Option<String>,
    }
}

/// The result of an attempt to acquire a shard.
pub(super) enum Attempt {
    Acquired(AcquiredShard),
    /// Another relay holds the shard.
    Held,
    /// No relay may send.
    Blocked(Blocked),
}

/// Acquires the lease if no relay holds it and nothing forbids to send. A lease is free if it was never taken, was released
/// or has expired, or if the holder's connection is gone. If the number of shards has changed, the unsent rows are moved to
/// their shards before.
pub(super) async fn acquire(db: &mut PgConnection, of: &Db, shard: i16) -> Result<Attempt, RelayError> {
    answered(create(db, shard, of.shards())).await?;
    let standing = answered(blocked::standing(db, of.shards())).await?;
    if let Some(blocked) = standing.blocked(of.shards()) {
        return Ok(Attempt::Blocked(blocked));
    }
    if standing.misplaced && !adoption::reshard(db, of).await? {
        return Ok(Attempt::Held);
    }
    let taken = answered(take(db, shard, of)).await?;
    Ok(taken.map_or(Attempt::Held, |taken| Attempt::Acquired(taken.into_shard(shard))))
}

/// Creates the checkpoint of a shard that has none. All its rows are unsent then.
///
/// The epoch is larger than that of a row that somebody has deleted. A relay of that row saves nothing any more.
async fn create(db: &mut PgConnection, shard: i16, shards: i16) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into relay_checkpoint (shard, shards, system_identifier, epoch)
         select $1, $2, system_identifier, (extract(epoch from clock_timestamp()) * 1000)::bigint
         from pg_control_system() on conflict do nothing",
    )
    .bind(shard)
    .bind(shards)
    .execute(db)
    .await?;
    Ok(())
}

async fn take(db: &mut PgConnection, shard: i16, of: &Db) -> Result<Option<Taken>, sqlx::Error> {
    static TAKE: LazyLock<String> = LazyLock::new(|| {
        format!(
            "update relay_checkpoint c
             set epoch = epoch + 1, owner = $2, owner_pid = pg_backend_pid(), shards = $4,
                 lease_until = clock_timestamp() + $3 * interval '1 second', updated_at = clock_timestamp()
             where shard = $1 and not {HELD}
             returning epoch, acked_snapshot::text as acked_snapshot, window_snapshot::text as window_snapshot,
                       position, stopped_position, stopped_reason"
        )
    });
    sqlx::query_as(TAKE.as_str())
        .bind(shard)
        .bind(of.instance())
        .bind(LEASE.as_secs_f64())
        .bind(of.shards())
        .fetch_optional(db)
        .await
}

impl Taken {
    fn into_shard(self, shard: i16) -> AcquiredShard {
        AcquiredShard {
            lease: Lease { shard, epoch: self.epoch },
            cursor: Cursor {
                acked_snapshot: self.acked_snapshot,
                window_snapshot: self.window_snapshot,
                position: self.position,
            },
            stopped: self
                .stopped_position
                .zip(self.stopped_reason)
                .map(|(position, reason)| Stop { position, reason }),
        }
    }
}

/// Saves the cursor and the stop, if there is one, and renews the lease.
///
/// # Errors
/// Fails with [`RelayError::Fenced`] if another relay has the shard. Nothing is changed in that case.
pub(super) async fn save(
    db: &mut PgConnection,
    lease: &Lease,
    cursor: &Cursor,
    stopped: Option<&Stop>,
) -> Result<(), RelayError> {
    let saved = sqlx::query(
        "update relay_checkpoint
         set acked_snapshot = $3::pg_snapshot, window_snapshot = $4::pg_snapshot, position = $5,
             lease_until = clock_timestamp() + $6 * interval '1 second', updated_at = clock_timestamp(),
             stopped_position = $7, stopped_reason = $8,
             stopped_at = case when $7 is null then null
                               when stopped_position = $7 then stopped_at
                               else clock_timestamp() end
         where shard = $1 and epoch = $2",
    )
    .bind(lease.shard)
    .bind(lease.epoch)
    .bind(&cursor.acked_snapshot)
    .bind(&cursor.window_snapshot)
    .bind(cursor.position)
    .bind(LEASE.as_secs_f64())
    .bind(stopped.map(|stop| stop.position))
    .bind(stopped.map(|stop| stop.reason.as_str()))
    .execute(db)
    .await?;
    if saved.rows_affected() == 1 { Ok(()) } else { Err(RelayError::Fenced) }
}

/// Releases the lease, so that another relay can acquire it at once.
pub(super) async fn release(db: &mut PgConnection, lease: &Lease) -> Result<(), sqlx::Error> {
    sqlx::query("update relay_checkpoint set lease_until = '-infinity' where shard = $1 and epoch = $2")
        .bind(lease.shard)
        .bind(lease.epoch)
        .execute(&mut *db)
        .await?;
    signals::notify_free(db, lease.shard).await
}

/// Returns the shards that are stopped at a record which the broker refuses for good, each with the reason.
///
/// # Errors
/// Fails if the database does not answer.
pub async fn standing_still(db: &mut PgConnection) -> Result<Vec<(i16, String)>, sqlx::Error> {
    sqlx::query_as(
        "select shard, stopped_reason from relay_checkpoint where stopped_reason is not null order by shard",
    )
    .fetch_all(db)
    .await
}
