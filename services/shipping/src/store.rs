//! Every SQL statement of the shipping service. Functions take the caller's transaction.

pub mod audit;

use std::collections::HashMap;
use std::time::Duration;

use schemas::shipping::BookShipment;
use serde_json::value::RawValue;
use shared::unit_of_work::UnitOfWork;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{Move, Pace, Status};

shared::row! {
    /// A shipment's row.
    #[derive(Debug)]
    pub struct ShipmentRow {
        pub order_id: Uuid,
        pub status: String,
        pub address: Json<Box<RawValue>>,
        pub items: Json<Box<RawValue>>,
        pub tracking_number: Option<String>,
        pub created_at: OffsetDateTime,
        pub updated_at: OffsetDateTime,
        pub dispatched_at: Option<OffsetDateTime>,
        pub delivered_at: Option<OffsetDateTime>,
    }
}

/// The release of a shipment by the confirmation of its order.
#[derive(Debug)]
pub struct ReleaseRow {
    pub order_id: Uuid,
    /// The message with the confirmation.
    pub message_id: Uuid,
    pub correlation_id: Uuid,
    pub traceparent: Option<String>,
}

shared::row! {
    /// A shipment to ask the carrier about.
    #[derive(Debug, Clone)]
    pub struct DueRow {
        pub order_id: Uuid,
        pub status: String,
        pub tracking_number: String,
        pub released_at: OffsetDateTime,
    }
}

/// A change of a parcel that the carrier reported.
#[derive(Debug)]
pub struct News {
    pub order_id: Uuid,
    pub tracking_number: String,
    pub step: Move,
}

shared::row! {
    /// A shipment that has moved, with what its events inherit.
    #[derive(Debug)]
    pub struct MovedRow {
        pub order_id: Uuid,
        pub tracking_number: String,
        pub released_by: Uuid,
        pub correlation_id: Uuid,
        pub traceparent: Option<String>,
    }
}

/// Inserts shipments before they are booked.
pub async fn insert_booking(db: &mut PgConnection, bookings: &[&BookShipment]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into shipment (order_id, status, address, items)
         select order_id, $1, address, items
         from unnest($2::uuid[], $3::json[], $4::json[]) as row (order_id, address, items)",
    )
    .bind(Status::Booking.as_str())
    .bind(bookings.iter().map(|booking| booking.order_id).collect::<Vec<_>>())
    .bind(bookings.iter().map(|booking| Json(&booking.address)).collect::<Vec<_>>())
    .bind(bookings.iter().map(|booking| Json(&booking.items)).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// Inserts shipments together with the carrier's answers to their bookings, in the same order.
pub fn insert_decided(
    uow: &mut UnitOfWork,
    bookings: &[&BookShipment],
    verdicts: &[(Uuid, Status, Option<&str>)],
) {
    uow.defer(
        "insert into shipment (order_id, status, address, items, tracking_number)
         select * from unnest($1::uuid[], $2::text[], $3::json[], $4::json[], $5::text[])",
        |parameters| {
            parameters
                .bind(bookings.iter().map(|booking| booking.order_id).collect::<Vec<_>>())
                .bind(verdicts.iter().map(|(_, status, _)| status.as_str()).collect::<Vec<_>>())
                .bind(bookings.iter().map(|booking| Json(&booking.address)).collect::<Vec<_>>())
                .bind(bookings.iter().map(|booking| Json(&booking.items)).collect::<Vec<_>>())
                .bind(verdicts.iter().map(|(_, _, number)| *number).collect::<Vec<_>>());
        },
    );
}

/// Writes the carrier's answers to bookings that wait for one. Returns the number of rows written.
pub async fn save_verdicts(
    db: &mut PgConnection,
    verdicts: &[(Uuid, Status, Option<&str>)],
) -> Result<u64, sqlx::Error> {
    let saved = sqlx::query(
        "update shipment s set status = row.status, tracking_number = row.tracking_number, updated_at = now()
         from unnest($2::uuid[], $3::text[], $4::text[]) as row (order_id, status, tracking_number)
         where s.order_id = row.order_id and s.status = $1",
    )
    .bind(Status::Booking.as_str())
    .bind(verdicts.iter().map(|(order, _, _)| *order).collect::<Vec<_>>())
    .bind(verdicts.iter().map(|(_, status, _)| status.as_str()).collect::<Vec<_>>())
    .bind(verdicts.iter().map(|(_, _, number)| *number).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(saved.rows_affected())
}

/// Keeps booked shipments from leaving. Other shipments do not change. Nor do those that were released before `left`: the
/// carrier may have them already, though it has not reported that yet.
pub async fn save_stopping(
    db: &mut PgConnection,
    orders: &[Uuid],
    left: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update shipment set status = $2, due_at = null, updated_at = now()
         where order_id = any($1) and status = $3 and (released_at is null or released_at > $4)",
    )
    .bind(orders)
    .bind(Status::Stopping.as_str())
    .bind(Status::Booked.as_str())
    .bind(left)
    .execute(db)
    .await?;
    Ok(())
}

/// Marks shipments as booked again that were being stopped. One that was released waits for its pick-up, about which the
/// carrier is asked at `due_at`.
pub async fn save_not_stopped(
    db: &mut PgConnection,
    orders: &[Uuid],
    due_at: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update shipment
         set status = $2, due_at = case when released_at is not null then $4 end, updated_at = now()
         where order_id = any($1) and status = $3",
    )
    .bind(orders)
    .bind(Status::Booked.as_str())
    .bind(Status::Stopping.as_str())
    .bind(due_at)
    .execute(db)
    .await?;
    Ok(())
}

/// Marks those of the shipments as cancelled that have the status `from`. Returns their orders.
pub async fn save_cancelled(
    db: &mut PgConnection,
    orders: &[Uuid],
    from: Status,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "update shipment set status = $2, due_at = null, updated_at = now()
         where order_id = any($1) and status = $3 returning order_id",
    )
    .bind(orders)
    .bind(Status::Cancelled.as_str())
    .bind(from.as_str())
    .fetch_all(db)
    .await
}

/// Marks cancelled shipments as booked anew, with these tracking numbers. A released shipment waits for its pick-up again.
/// Returns the number of rows written.
pub async fn save_resumed(
    db: &mut PgConnection,
    resumed: &[(Uuid, &str)],
    released_at: OffsetDateTime,
    due_at: OffsetDateTime,
) -> Result<u64, sqlx::Error> {
    let saved = sqlx::query(
        "update shipment s
         set status = $1, tracking_number = row.tracking_number, updated_at = now(),
             released_at = case when s.released_at is not null then $2 end,
             due_at = case when s.released_at is not null then $3 end
         from unnest($4::uuid[], $5::text[]) as row (order_id, tracking_number)
         where s.order_id = row.order_id and s.status = $6",
    )
    .bind(Status::Booked.as_str())
    .bind(released_at)
    .bind(due_at)
    .bind(resumed.iter().map(|(order, _)| *order).collect::<Vec<_>>())
    .bind(resumed.iter().map(|(_, number)| *number).collect::<Vec<_>>())
    .bind(Status::Cancelled.as_str())
    .execute(db)
    .await?;
    Ok(saved.rows_affected())
}

/// Releases booked shipments, once each. A shipment that was stopped before is marked as released too, for the case that it
/// is resumed. Returns the orders that have no booked shipment yet.
pub async fn release(
    db: &mut PgConnection,
    releases: &[ReleaseRow],
    released_at: OffsetDateTime,
    due_at: OffsetDateTime,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "with released as (update shipment s
         set released_at = $1, due_at = case when s.status = $7 then $2 end, released_by = row.message_id, correlation_id = row.correlation_id,
             traceparent = row.traceparent, updated_at = now()
         from unnest($3::uuid[], $4::uuid[], $5::uuid[], $6::text[])
              as row (order_id, message_id, correlation_id, traceparent)
         where s.order_id = row.order_id and s.status in ($7, $8, $9) and s.released_at is null)
         select row.order_id from unnest($3::uuid[]) as row (order_id) left join shipment s using (order_id)
         where s.order_id is null or s.status = $10",
    )
    .bind(released_at)
    .bind(due_at)
    .bind(releases.iter().map(|release| release.order_id).collect::<Vec<_>>())
    .bind(releases.iter().map(|release| release.message_id).collect::<Vec<_>>())
    .bind(releases.iter().map(|release| release.correlation_id).collect::<Vec<_>>())
    .bind(releases.iter().map(|release| release.traceparent.as_deref()).collect::<Vec<_>>())
    .bind(Status::Booked.as_str())
    .bind(Status::Stopping.as_str())
    .bind(Status::Cancelled.as_str())
    .bind(Status::Booking.as_str())
    .fetch_all(db)
    .await
}

/// Returns whether there are shipments to ask the carrier about.
pub async fn is_any_due(db: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from shipment where due_at <= now())").fetch_one(db).await
}

/// Leases shipments to ask the carrier about, those that have waited longest first. No other replica leases them until
/// `lease` has passed. Rows that another replica has locked are skipped, so this does not wait.
pub async fn claim_due(
    db: &mut PgConnection,
    lease: Duration,
    limit: i64,
) -> Result<Vec<DueRow>, sqlx::Error> {
    sqlx::query_as(
        // PostgreSQL might run a subquery here more than once, and so lease more than the limit.
        "with due as materialized (
             select order_id from shipment where due_at <= now() order by due_at limit $2 for update skip locked)
         update shipment s set due_at = now() + $1 * interval '1 second'
         from due
         where s.order_id = due.order_id
         returning s.order_id, s.status, s.tracking_number, s.released_at",
    )
    .bind(lease.as_secs_f64())
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Writes changes of shipments, and returns the shipments that changed. A shipment must still stand as it did when the
/// carrier was asked; one that was booked anew since is another parcel. The caller holds the orders' locks.
pub async fn save_moves(
    db: &mut PgConnection,
    news: &[News],
    pace: Pace,
) -> Result<Vec<MovedRow>, sqlx::Error> {
    sqlx::query_as(
        "update shipment s
         set status = row.after, dispatched_at = coalesce(s.dispatched_at, row.dispatched_at),
             delivered_at = row.delivered_at, due_at = row.due_at, updated_at = now()
         from unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
                     $7::text[])
              as row (order_id, before, after, dispatched_at, delivered_at, due_at, tracking_number)
         where s.order_id = row.order_id and s.status = row.before and s.tracking_number = row.tracking_number
         returning s.order_id, s.tracking_number, s.released_by, s.correlation_id, s.traceparent",
    )
    .bind(news.iter().map(|news| news.order_id).collect::<Vec<_>>())
    .bind(news.iter().map(|news| news.step.from.as_str()).collect::<Vec<_>>())
    .bind(news.iter().map(|news| news.step.to.as_str()).collect::<Vec<_>>())
    .bind(news.iter().map(|news| news.step.dispatched_at).collect::<Vec<_>>())
    .bind(news.iter().map(|news| news.step.delivered_at).collect::<Vec<_>>())
    .bind(news.iter().map(|news| pace.next(&news.step)).collect::<Vec<_>>())
    .bind(news.iter().map(|news| news.tracking_number.as_str()).collect::<Vec<_>>())
    .fetch_all(db)
    .await
}

/// Returns the status of the shipments of these orders.
pub async fn find_statuses(
    db: &mut PgConnection,
    orders: &[Uuid],
) -> Result<HashMap<Uuid, Status>, sqlx::Error> {
    let rows: Vec<(Uuid, String)> =
        sqlx::query_as("select order_id, status from shipment where order_id = any($1)")
            .bind(orders)
            .fetch_all(db)
            .await?;
    // The table's check constraint allows no other text.
    Ok(rows.into_iter().filter_map(|(order, status)| Some((order, Status::parse(&status)?))).collect())
}

/// Returns the shipment of an order.
pub async fn find(db: &mut PgConnection, order: Uuid) -> Result<Option<ShipmentRow>, sqlx::Error> {
    sqlx::query_as(
        "select order_id, status, address, items, tracking_number, created_at, updated_at, dispatched_at, delivered_at
         from shipment where order_id = $1",
    )
    .bind(order)
    .fetch_optional(db)
    .await
}
