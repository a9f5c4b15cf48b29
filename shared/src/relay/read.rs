//! Reads the outbox by snapshot. The caller may stop at any row, because a later read can continue from every row.

use std::sync::{LazyLock, OnceLock};

use futures::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::RelayError;
use super::blocked::has_foreign_rows;
use super::checkpoint::{Cursor, Lease};
use crate::outbox::unsent::{begun_after, not_shown_by};

/// The largest total of message bodies in one read, in bytes. A larger backlog is read in pieces, as a window.
pub(super) const MAX_READ_BYTES: usize = 4 * 1024 * 1024;

/// The start of a window is searched among this many rows.
const MAX_SCANNED_ROWS: i64 = 100_000;

/// A row of the outbox, borrowed while it is read.
pub(super) struct FoundRow<'r> {
    pub position: i64,
    pub topic: &'r str,
    pub key: &'r str,
    pub traceparent: Option<&'r str>,
    pub body: &'r [u8],
}

impl<'r> FoundRow<'r> {
    /// Returns the row from this column on. Returns `None` for a row without a body, which must not be sent.
    fn of(row: &'r PgRow, first: usize) -> Result<Option<Self>, sqlx::Error> {
        let Some(body) = row.try_get_unchecked(first + 4)? else { return Ok(None) };
        Ok(Some(Self {
            position: row.try_get_unchecked(first)?,
            topic: row.try_get_unchecked(first + 1)?,
            key: row.try_get_unchecked(first + 2)?,
            traceparent: row.try_get_unchecked(first + 3)?,
            body,
        }))
    }
}

/// Passes the next rows to `take`, at most `limit`, until `take` refuses one. Returns the cursor that is valid once
/// the accepted rows are sent. If that cursor is inside a window, more rows may be ready at once.
pub(super) async fn read(
    db: &mut PgConnection,
    lease: &Lease,
    cursor: &Cursor,
    limit: i64,
    take: impl FnMut(FoundRow<'_>) -> bool,
) -> Result<Cursor, RelayError> {
    match &cursor.window_snapshot {
        None => new_window(db, lease, cursor, limit, take).await,
        Some(window_snapshot) => Ok(rest_of_window(db, lease, cursor, window_snapshot, limit, take).await?),
    }
}

/// Reads the rows that are visible now and invisible in `acked_snapshot`. `pg_current_snapshot()` of a statement is
/// the snapshot that the statement itself reads in.
///
/// If there are more than `limit` rows or more than [`MAX_READ_BYTES`] bytes, no row is taken. The rows then become a
/// window, which is read by position in pieces. The cost of a statement therefore does not grow with the backlog.
///
/// No row is taken either if the snapshot does not show the transaction id of a row that it reads. Such a row comes from
/// another cluster. It would be sent again by every read, and by no window.
async fn new_window(
    db: &mut PgConnection,
    lease: &Lease,
    cursor: &Cursor,
    limit: i64,
    mut take: impl FnMut(FoundRow<'_>) -> bool,
) -> Result<Cursor, RelayError> {
    const COLUMNS: &str = "position, topic, key, traceparent, body, xid";
    /// The first column of the row, behind the snapshot and whether the row is foreign.
    const FIRST: usize = 2;
    let next = |unseen: &str| {
        format!(
            "with here as materialized (
                 select pg_current_snapshot() as snapshot, pg_current_snapshot()::text as text)
             select here.text, not pg_visible_in_snapshot(unseen.xid, here.snapshot),
                    unseen.position, unseen.topic, unseen.key, unseen.traceparent, unseen.body
             from here left join (select {COLUMNS} from {unseen} as found limit $3 + 1) as unseen on true
             order by unseen.position"
        )
    };
    static NEXT: OnceLock<String> = OnceLock::new();
    static NEXT_ALONE: OnceLock<String> = OnceLock::new();
    // Mostly no transaction was in progress when the last rows were read, and one half of the search finds all.
    let statement = if is_alone(&cursor.acked_snapshot) {
        NEXT_ALONE.get_or_init(|| next(&begun_after("$2::pg_snapshot", "$1", COLUMNS, "$3 + 1")))
    } else {
        NEXT.get_or_init(|| next(&not_shown_by("$2::pg_snapshot", "$1", COLUMNS, "$3 + 1")))
    };
    let mut stream = sqlx::query(statement.as_str())
        .bind(lease.shard)
        .bind(&cursor.acked_snapshot)
        .bind(limit)
        .fetch(&mut *db);
    let first = stream.try_next().await?.ok_or(sqlx::Error::RowNotFound)?;
    let here: String = first.try_get_unchecked(0)?;
    // It is null for the row that only has the snapshot.
    let is_foreign = |row: &PgRow| row.try_get_unchecked::<Option<bool>, _>(1).map(|it| it == Some(true));
    let mut foreign = is_foreign(&first)?;
    // Only the end of the result shows whether it is too large, so the rows wait until then. A count in the statement
    // would make the server keep them instead.
    let mut rows = vec![first];
    let mut bytes = 0;
    let mut too_large = false;
    while let Some(row) = stream.try_next().await? {
        foreign |= is_foreign(&row)?;
        bytes += FoundRow::of(&row, FIRST)?.map_or(0, |found| found.body.len());
        if rows.len() as i64 == limit || bytes > MAX_READ_BYTES {
            too_large = true;
            break;
        }
        rows.push(row);
    }
    drop(stream);
    // A window needs the look at all rows, because only some of them were read.
    if foreign || too_large && has_foreign_rows(db).await? {
        return Err(RelayError::ForeignRows);
    }
    let cut = |position| Cursor {
        acked_snapshot: cursor.acked_snapshot.clone(),
        window_snapshot: Some(here.clone()),
        position,
    };
    if too_large {
        return Ok(cut(window_start(db, lease, cursor).await?));
    }
    for row in &rows {
        let Some(found) = FoundRow::of(row, FIRST)? else { break };
        let position = found.position;
        if !take(found) {
            return Ok(cut(position - 1));
        }
    }
    Ok(Cursor { acked_snapshot: here, window_snapshot: None, position: 0 })
}

/// Returns whether no transaction was in progress in this snapshot: `xmin:xmax:` without a list behind it.
fn is_alone(snapshot: &str) -> bool {
    snapshot.ends_with(':')
}

/// Returns a position before all rows that are invisible in `acked_snapshot`. The slots still have many sent rows,
/// which need no second look. If there are too many rows, it returns zero without a search, which is always correct.
/// The cost therefore does not grow with the backlog.
async fn window_start(db: &mut PgConnection, lease: &Lease, cursor: &Cursor) -> Result<i64, sqlx::Error> {
    static BEGIN: LazyLock<String> = LazyLock::new(|| {
        format!(
            "select case when count(*) < $3 then coalesce(min(position), 1) - 1 else 0 end from {} as unseen",
            not_shown_by("$2::pg_snapshot", "$1", "position", "$3")
        )
    });
    sqlx::query_scalar(BEGIN.as_str())
        .bind(lease.shard)
        .bind(&cursor.acked_snapshot)
        .bind(MAX_SCANNED_ROWS)
        .fetch_one(db)
        .await
}

/// Continues the window that [`new_window`] began, by position. Rows that became visible later belong to the next
/// window. `limit` bounds the number of scanned rows; rows outside the window come without a body.
async fn rest_of_window(
    db: &mut PgConnection,
    lease: &Lease,
    cursor: &Cursor,
    window_snapshot: &str,
    limit: i64,
    mut take: impl FnMut(FoundRow<'_>) -> bool,
) -> Result<Cursor, sqlx::Error> {
    let mut rows = sqlx::query(
        "select position, topic, key, traceparent, case when unseen then body end
         from (select position, topic, key, traceparent, body,
                      shard = $1 and not pg_visible_in_snapshot(xid, (select $2::pg_snapshot))
                      and pg_visible_in_snapshot(xid, (select $5::pg_snapshot)) as unseen
               from outbox where position > $4 order by position limit $3) as next
         order by position",
    )
    .bind(lease.shard)
    .bind(&cursor.acked_snapshot)
    .bind(limit)
    .bind(cursor.position)
    .bind(window_snapshot)
    .fetch(db);
    let (mut position, mut scanned) = (cursor.position, 0);
    let on = |position| Cursor { position, ..cursor.clone() };
    while let Some(row) = rows.try_next().await? {
        let next = row.try_get_unchecked(0)?;
        if let Some(found) = FoundRow::of(&row, 0)?
            && !take(found)
        {
            return Ok(on(position));
        }
        position = next;
        scanned += 1;
    }
    if scanned == limit {
        return Ok(on(position));
    }
    Ok(Cursor { acked_snapshot: window_snapshot.to_owned(), window_snapshot: None, position: 0 })
}
