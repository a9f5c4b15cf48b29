//! Statements about the timeline, which has what every service did for an order.

use serde::Serialize;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// An event of an order.
#[derive(Debug, Clone, Serialize, FromRow, ToSchema)]
pub struct TimelineRow {
    /// Counts up within an order. It is the event's id in the stream of server-sent events.
    #[serde(skip)]
    pub position: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    pub service: String,
    /// The message's type.
    #[serde(rename = "type")]
    #[sqlx(rename = "type")]
    pub kind: String,
}

/// Appends entries to timelines: (order, message, time, service, type). Entries that are there already stay as they are. The
/// caller holds the orders' locks.
pub async fn append_timeline(
    db: &mut PgConnection,
    entries: &[(Uuid, Uuid, OffsetDateTime, &str, &str)],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into order_timeline (order_id, message_id, at, service, type)
         select order_id, message_id, at, service, type
         from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::text[])
              with ordinality as row (order_id, message_id, at, service, type, ordinal)
         order by ordinal
         on conflict do nothing",
    )
    .bind(entries.iter().map(|entry| entry.0).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.1).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.2).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.3).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.4).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// Returns the entries of an order behind this position.
pub async fn find_timeline(
    db: &mut PgConnection,
    order: Uuid,
    after: i64,
) -> Result<Vec<TimelineRow>, sqlx::Error> {
    sqlx::query_as(
        "select position, at, service, type from order_timeline
         where order_id = $1 and position > $2 order by position",
    )
    .bind(order)
    .bind(after)
    .fetch_all(db)
    .await
}
