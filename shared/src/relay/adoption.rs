//! Adoption: makes an outbox readable for the relays of this database cluster and of this number of shards. Transaction
//! ids mean nothing in another cluster, and a key's messages must be in its shard. Adoption decides which rows are unsent,
//! and stamps them with its own transaction id, so that they are sent in the order of their positions.
//!
//! It is one transaction. Its locks exclude writers and the checkpoints of other relays. A relay that still works loses its
//! lease, and can only have sent rows that are sent again.

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tracing::{info, warn};

use super::blocked::{self, Blocked, HELD};
use crate::db::Db;
use crate::fault::{Class, Classified};
use crate::outbox::unsent::IS_SENT;

/// How long an adoption waits for transactions that write messages. New ones wait behind it meanwhile.
const LOCK_TIMEOUT: &str = "5s";
/// The number of keys whose rows are moved to their shard by one statement.
const KEYS_AT_ONCE: usize = 5000;

/// SQL that is true if the row `o` of the outbox is certainly on Kafka, although its transaction id may be another
/// cluster's. All other rows are sent, because a repetition is harmless and a loss is not.
///
/// A checkpoint of this cluster says something only about rows that were written in it. Their id is the tuple's own. A
/// checkpoint of another cluster says something only about rows that came from there, and whoever restored them had an id of
/// this cluster. A row that was written here has an id that is not above its tuple's, even if a subtransaction wrote it.
fn is_certainly_sent() -> String {
    format!(
        "exists (select from relay_checkpoint c, pg_control_system() s
                 where c.shard = o.shard and {IS_SENT}
                   and case when c.system_identifier = s.system_identifier then o.xmin = o.xid::xid
                            else o.xid::text::bigint > (
                                select n.next - ((n.next - o.xmin::text::bigint) & 4294967295)
                                from (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next) n)
                       end)"
    )
}

/// The result of an adoption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// The reason why the relays had stopped.
    pub blocked: Blocked,
    /// The number of messages that are sent, or sent again.
    pub rows: i64,
}

/// The reason why nothing was adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptionError {
    /// The relays are not stopped for a reason that adoption could mend.
    #[error(
        "the relays are not stopped by transaction ids of another database cluster, so there is nothing to adopt"
    )]
    NotBlocked,
    /// The database did not answer, or transactions that write messages kept their locks. Nothing was changed.
    #[error("the outbox could not be adopted")]
    Database(#[from] sqlx::Error),
}

impl Classified for AdoptionError {
    fn class(&self) -> Class {
        match self {
            Self::NotBlocked => Class::Permanent,
            Self::Database(error) => error.class(),
        }
    }
}

/// Lets the relays of a restored database send again. `by` and `reason` go on record in `relay_adoption`.
///
/// # Errors
/// Fails if the relays are not stopped by transaction ids of another cluster, or if the database does not answer. Nothing
/// has changed in that case.
pub async fn adopt(db: &Db, by: &str, reason: &str) -> Result<Adopted, AdoptionError> {
    let mut connection = db.connect().await?;
    #[expect(
        clippy::disallowed_methods,
        reason = "no unit of work may stamp messages that others have written"
    )]
    let mut tx = connection.begin().await?;
    lock(&mut tx).await?;
    let blocked = adoptable(&mut tx, db.shards()).await?;
    let rows = stamp(&mut tx, db).await?;
    record(&mut tx, &blocked, rows, by, reason).await?;
    tx.commit().await?;
    warn!(blocked = blocked.name(), rows, by, "the outbox was adopted; its unsent messages are sent now");
    Ok(Adopted { blocked, rows })
}

/// Returns what [`adopt`] would do, and changes nothing.
///
/// # Errors
/// Fails as [`adopt`] does.
pub async fn preview(db: &Db) -> Result<Adopted, AdoptionError> {
    let mut connection = db.connect().await?;
    let blocked = adoptable(&mut connection, db.shards()).await?;
    let count = format!("select count(*) from outbox o where not {}", is_certainly_sent());
    let rows = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut connection).await?;
    Ok(Adopted { blocked, rows })
}

/// Moves the unsent messages to the shards of this process. Returns `false` if a relay holds a shard: it may write with
/// another number of shards, so nothing is moved.
pub(super) async fn reshard(connection: &mut PgConnection, db: &Db) -> Result<bool, sqlx::Error> {
    #[expect(clippy::disallowed_methods, reason = "the relay's own connection, not the pool's")]
    let mut tx = connection.begin().await?;
    lock(&mut tx).await?;
    let held = format!("select exists (select from relay_checkpoint c where {HELD})");
    let held: bool = sqlx::query_scalar(AssertSqlSafe(held)).fetch_one(&mut *tx).await?;
    let standing = blocked::standing(&mut tx, db.shards()).await?;
    if held || !standing.misplaced || standing.blocked(db.shards()).is_some() {
        tx.rollback().await?;
        return Ok(!held);
    }
    let rows = stamp(&mut tx, db).await?;
    tx.commit().await?;
    info!(
        shards = db.shards(),
        rows, "the number of shards has changed; the unsent messages were moved to their shards"
    );
    Ok(true)
}

/// Excludes writers of messages and the checkpoints of relays for the rest of the transaction. Reading goes on.
async fn lock(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    // A backlog may be large, and stamping it may take longer than a usual statement.
    sqlx::raw_sql(AssertSqlSafe(format!(
        "set local lock_timeout = '{LOCK_TIMEOUT}'; set local statement_timeout = 0;
         lock table relay_checkpoint in exclusive mode; lock table outbox in exclusive mode"
    )))
    .execute(tx)
    .await?;
    Ok(())
}

/// Returns the reason why the relays have stopped, if an adoption mends it.
async fn adoptable(db: &mut PgConnection, shards: i16) -> Result<Blocked, AdoptionError> {
    match blocked::blocked(db, shards).await? {
        Some(blocked @ (Blocked::OtherCluster | Blocked::ForeignRows)) => Ok(blocked),
        Some(Blocked::OtherShards { .. }) | None => Err(AdoptionError::NotBlocked),
    }
}

/// Stamps the rows and writes the checkpoints. Returns the number of rows to send.
async fn stamp(tx: &mut PgConnection, db: &Db) -> Result<i64, sqlx::Error> {
    let rows = stamp_unsent(tx).await?;
    stamp_sent(tx).await?;
    place_in_shards(tx, db).await?;
    write_checkpoints(tx, db.shards()).await?;
    Ok(rows)
}

/// Stamps the rows to send with this transaction's id, and puts them into the first shard.
async fn stamp_unsent(tx: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let update = format!(
        "update outbox o set xid = pg_current_xact_id(), shard = 0 where not {}",
        is_certainly_sent()
    );
    let stamped = sqlx::query(AssertSqlSafe(update)).execute(tx).await?;
    Ok(stamped.rows_affected().cast_signed())
}

/// Stamps the other rows that came from elsewhere with the oldest id, which every snapshot shows. They are kept for the
/// receipt of their slot.
async fn stamp_sent(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("update outbox set xid = '3', shard = 0 where xid <> pg_current_xact_id() and (xmin <> xid::xid or shard >= 1)")
        .execute(tx)
        .await?;
    Ok(())
}

/// Moves the stamped rows to the shards of their keys.
async fn place_in_shards(tx: &mut PgConnection, db: &Db) -> Result<(), sqlx::Error> {
    if db.shards() == 1 {
        return Ok(());
    }
    let keys: Vec<String> =
        sqlx::query_scalar("select distinct key from outbox where xid = pg_current_xact_id()")
            .fetch_all(&mut *tx)
            .await?;
    for keys in keys.chunks(KEYS_AT_ONCE) {
        let shards: Vec<i16> = keys.iter().map(|key| db.shard(key)).collect();
        sqlx::query(
            "update outbox o set shard = place.shard from unnest($1::text[], $2::smallint[]) as place (key, shard)
             where o.xid = pg_current_xact_id() and o.key = place.key and place.shard <> 0",
        )
        .bind(keys)
        .bind(shards)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Writes a checkpoint for each shard whose snapshot shows everything except this transaction and those that are in
/// progress. Relays that held a shard lose it.
///
/// A snapshot of its own transaction would show this transaction's id, because PostgreSQL leaves it out of the list of those
/// in progress. So it is put into the list.
async fn write_checkpoints(tx: &mut PgConnection, shards: i16) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with here as materialized (select pg_current_snapshot() as snapshot, pg_current_xact_id() as own),
              hidden as (select pg_snapshot_xip(snapshot) as xid from here
                         union select own from here where own < pg_snapshot_xmax(snapshot)),
              checkpoint as (
                  select format('%s:%s:%s', pg_snapshot_xmin(snapshot), pg_snapshot_xmax(snapshot),
                                (select string_agg(xid::text, ',' order by xid) from hidden))::pg_snapshot as snapshot
                  from here)
         insert into relay_checkpoint as kept (shard, shards, system_identifier, acked_snapshot, epoch)
         select shard, $1, s.system_identifier, checkpoint.snapshot,
                (extract(epoch from clock_timestamp()) * 1000)::bigint
         from generate_series(0, $1 - 1) as shard, pg_control_system() s, checkpoint
         on conflict (shard) do update
         set shards = excluded.shards, system_identifier = excluded.system_identifier,
             acked_snapshot = excluded.acked_snapshot, window_snapshot = null, position = 0,
             epoch = kept.epoch + 1, owner = null, owner_pid = null, lease_until = '-infinity',
             updated_at = clock_timestamp(), stopped_position = null, stopped_reason = null, stopped_at = null",
    )
    .bind(shards)
    .execute(&mut *tx)
    .await?;
    sqlx::query("delete from relay_checkpoint where shard >= $1").bind(shards).execute(tx).await?;
    Ok(())
}

async fn record(
    tx: &mut PgConnection,
    blocked: &Blocked,
    rows: i64,
    by: &str,
    reason: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("insert into relay_adoption (adopted_by, reason, blocked, rows) values ($1, $2, $3, $4)")
        .bind(by)
        .bind(reason)
        .bind(blocked.name())
        .bind(rows)
        .execute(tx)
        .await?;
    Ok(())
}
