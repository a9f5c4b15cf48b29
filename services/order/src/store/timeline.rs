//! Statements about the timeline, which has what every service did for an order.

use schemas::order::{OrderCancelled, OrderConfirmed, OrderRejected};
use serde::Serialize;
use shared::envelope::Message;
use shared::unit_of_work::UnitOfWork;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

shared::row! {
    /// An event of an order.
    #[derive(Debug, Clone, Serialize, ToSchema)]
    pub struct TimelineRow {
        /// Counts up within an order. It is the event's id in the stream of server-sent events.
        #[serde(skip)]
        pub position: i64,
        #[serde(with = "time::serde::rfc3339")]
        pub at: OffsetDateTime,
        pub service: String,
        /// The message's type.
        #[serde(rename = "type")]
        pub kind: String = "type",
    }
}

shared::row! {
    /// How far an order has come.
    #[derive(Debug)]
    pub struct ProgressRow {
        pub id: Uuid,
        pub version: i64,
        /// The position of the last entry of its timeline.
        pub position: i64,
    }
}

/// Appends entries to timelines: (order, message, time, service, type). Entries that are there already stay as they are. The
/// caller holds the orders' locks.
pub fn append_timeline(uow: &mut UnitOfWork, entries: &[(Uuid, Uuid, OffsetDateTime, &str, &str)]) {
    uow.defer(
        "insert into order_timeline (order_id, message_id, at, service, type)
         select order_id, message_id, at, service, type
         from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::text[])
              with ordinality as row (order_id, message_id, at, service, type, ordinal)
         order by ordinal
         on conflict do nothing",
        |parameters| {
            parameters
                .bind(entries.iter().map(|entry| entry.0).collect::<Vec<_>>())
                .bind(entries.iter().map(|entry| entry.1).collect::<Vec<_>>())
                .bind(entries.iter().map(|entry| entry.2).collect::<Vec<_>>())
                .bind(entries.iter().map(|entry| entry.3).collect::<Vec<_>>())
                .bind(entries.iter().map(|entry| entry.4).collect::<Vec<_>>());
        },
    );
}

/// The entries that tell how an order settled.
const SETTLEMENTS: [&str; 3] = [OrderConfirmed::TYPE, OrderRejected::TYPE, OrderCancelled::TYPE];

impl TimelineRow {
    /// Returns whether the entry tells how the order settled.
    pub fn tells_settlement(&self) -> bool {
        SETTLEMENTS.contains(&self.kind.as_str())
    }
}

/// Returns whether the timeline tells how the order settled. It does so a moment after the order.
pub async fn tells_settlement(db: &mut PgConnection, order: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from order_timeline where order_id = $1 and type = any($2))")
        .bind(order)
        .bind(SETTLEMENTS)
        .fetch_one(db)
        .await
}

/// Returns how far these orders have come.
pub async fn find_progress(db: &mut PgConnection, orders: &[Uuid]) -> Result<Vec<ProgressRow>, sqlx::Error> {
    sqlx::query_as(
        "select o.id, o.version,
                coalesce((select max(t.position) from order_timeline t where t.order_id = o.id), 0) as position
         from orders o where o.id = any($1)",
    )
    .bind(orders)
    .fetch_all(db)
    .await
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
