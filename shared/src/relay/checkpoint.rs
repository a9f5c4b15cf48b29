//! The relay's statements: its lease, its checkpoint, and the read by snapshot.

use std::time::Duration;

use sqlx::{FromRow, PgConnection};

use super::RelayError;

/// How long a relay that says nothing keeps its shard. One whose connection is gone loses it at once.
const LEASE: Duration = Duration::from_secs(3);

/// The right to relay a shard. Every save is conditional on the epoch, so that a relay that was replaced notices.
#[derive(Debug)]
pub(super) struct Lease {
    pub shard: i16,
    pub epoch: i64,
}

/// What was sent: all that `seen` shows, and of what `upto` shows beyond it, all up to `position`.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Cursor {
    pub seen: String,
    pub upto: Option<String>,
    pub position: i64,
}

#[derive(FromRow)]
pub(super) struct Row {
    position: i64,
    pub topic: String,
    pub key: String,
    pub traceparent: Option<String>,
    pub body: Vec<u8>,
    snapshot: String,
}

/// Settings of the relay's own connection.
pub(super) async fn prepare(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    // A checkpoint that a crash of the server loses makes the relay repeat messages, which the inboxes absorb; it
    // loses none, so it need not wait for the disk. The outbox is never analyzed: tell the planner to use its indexes.
    for setting in [
        "set synchronous_commit = off",
        "set enable_seqscan = off",
        "set enable_bitmapscan = off",
        "set max_parallel_workers_per_gather = 0",
        "set plan_cache_mode = force_generic_plan",
    ] {
        sqlx::query(setting).execute(&mut *db).await?;
    }
    Ok(())
}

/// Takes the shard if nobody holds it: never leased, released, expired, or its holder's connection is gone.
pub(super) async fn acquire(
    db: &mut PgConnection,
    shard: i16,
    owner: &str,
) -> Result<Option<(Lease, Cursor)>, RelayError> {
    sqlx::query(
        "insert into relay_checkpoint (shard, system_identifier)
         select $1, system_identifier from pg_control_system() on conflict do nothing",
    )
    .bind(shard)
    .execute(&mut *db)
    .await?;
    let same_cluster: bool = sqlx::query_scalar(
        "select c.system_identifier = s.system_identifier
         from relay_checkpoint c, pg_control_system() s where c.shard = $1",
    )
    .bind(shard)
    .fetch_one(&mut *db)
    .await?;
    if !same_cluster {
        return Err(RelayError::OtherCluster);
    }
    let held: Option<(i64, String, Option<String>, i64)> = sqlx::query_as(
        "update relay_checkpoint
         set epoch = epoch + 1, owner = $2, owner_pid = pg_backend_pid(),
             lease_until = clock_timestamp() + $3 * interval '1 second', updated_at = clock_timestamp()
         where shard = $1
           and (lease_until < clock_timestamp()
                or not exists (select from pg_stat_activity where pid = owner_pid and datname = current_database()))
         returning epoch, seen::text, upto::text, position",
    )
    .bind(shard)
    .bind(owner)
    .bind(LEASE.as_secs_f64())
    .fetch_optional(db)
    .await?;
    Ok(held.map(|(epoch, seen, upto, position)| (Lease { shard, epoch }, Cursor { seen, upto, position })))
}

/// The next rows, and the cursor for when they are sent.
pub(super) async fn read(
    db: &mut PgConnection,
    lease: &Lease,
    cursor: &Cursor,
    limit: i64,
) -> Result<(Vec<Row>, Cursor), sqlx::Error> {
    let rows = match &cursor.upto {
        None => begin_window(db, lease, cursor, limit).await?,
        Some(upto) => continue_window(db, lease, cursor, upto, limit).await?,
    };
    let full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    let next = match (&cursor.upto, rows.last()) {
        // A full batch may have more behind it, in the same window.
        (window, Some(last)) if full => Cursor {
            seen: cursor.seen.clone(),
            upto: Some(window.clone().unwrap_or_else(|| last.snapshot.clone())),
            position: last.position,
        },
        (Some(upto), _) => Cursor { seen: upto.clone(), upto: None, position: 0 },
        (None, Some(last)) => Cursor { seen: last.snapshot.clone(), upto: None, position: 0 },
        (None, None) => cursor.clone(),
    };
    Ok((rows, next))
}

/// What is visible now and was not visible in `seen`. A statement's `pg_current_snapshot()` is the snapshot it reads in.
async fn begin_window(
    db: &mut PgConnection,
    lease: &Lease,
    cursor: &Cursor,
    limit: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as(
        // Two index scans: the planner serves an `or` by reading the whole outbox. Every id in xip is below xmax, so
        // the halves do not overlap; being one statement, they are read in one snapshot. The sum keeps the planner from
        // walking the whole outbox by position to save a sort.
        "select position, topic, key, traceparent, body, pg_current_snapshot()::text as snapshot
         from (select position, topic, key, traceparent, body from outbox
               where shard = $1 and xid >= pg_snapshot_xmax($2::pg_snapshot)
               union all
               select position, topic, key, traceparent, body from outbox
               where shard = $1 and xid = any (array (select pg_snapshot_xip($2::pg_snapshot)))) as unseen
         order by position + 0 limit $3",
    )
    .bind(lease.shard)
    .bind(&cursor.seen)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// The same set as [`begin_window`] read, from where it was cut off; rows that became visible since belong to the next.
async fn continue_window(
    db: &mut PgConnection,
    lease: &Lease,
    cursor: &Cursor,
    upto: &str,
    limit: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as(
        "select position, topic, key, traceparent, body, ''::text as snapshot
         from outbox
         where shard = $1 and position > $4
           and not pg_visible_in_snapshot(xid, $2::pg_snapshot)
           and pg_visible_in_snapshot(xid, $5::pg_snapshot)
         order by position limit $3",
    )
    .bind(lease.shard)
    .bind(&cursor.seen)
    .bind(limit)
    .bind(cursor.position)
    .bind(upto)
    .fetch_all(db)
    .await
}

/// Writes the cursor and renews the lease.
pub(super) async fn save(db: &mut PgConnection, lease: &Lease, cursor: &Cursor) -> Result<(), RelayError> {
    let saved = sqlx::query(
        "update relay_checkpoint
         set seen = $3::pg_snapshot, upto = $4::pg_snapshot, position = $5,
             lease_until = clock_timestamp() + $6 * interval '1 second', updated_at = clock_timestamp()
         where shard = $1 and epoch = $2",
    )
    .bind(lease.shard)
    .bind(lease.epoch)
    .bind(&cursor.seen)
    .bind(&cursor.upto)
    .bind(cursor.position)
    .bind(LEASE.as_secs_f64())
    .execute(db)
    .await?;
    if saved.rows_affected() == 1 { Ok(()) } else { Err(RelayError::Fenced) }
}

/// Gives the shard back, so that another relay can take it at once.
pub(super) async fn release(db: &mut PgConnection, lease: &Lease) -> Result<(), sqlx::Error> {
    sqlx::query("update relay_checkpoint set lease_until = '-infinity' where shard = $1 and epoch = $2")
        .bind(lease.shard)
        .bind(lease.epoch)
        .execute(db)
        .await?;
    Ok(())
}
