//! Every SQL statement of the shipping service. Functions take the caller's transaction.

use schemas::shipping::BookShipment;
use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::Status;

/// A shipment's row.
#[derive(Debug, FromRow)]
pub struct ShipmentRow {
    pub order_id: Uuid,
    pub status: String,
    pub address: Json<Box<RawValue>>,
    pub items: Json<Box<RawValue>>,
    pub tracking_number: Option<String>,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// Notes shipments that are about to be booked.
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

/// Writes what the carrier said to bookings that wait for it. How many did.
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

/// Marks booked shipments as cancelled. How many were booked.
pub async fn save_cancelled(db: &mut PgConnection, orders: &[Uuid]) -> Result<u64, sqlx::Error> {
    let saved = sqlx::query(
        "update shipment set status = $2, updated_at = now() where order_id = any($1) and status = $3",
    )
    .bind(orders)
    .bind(Status::Cancelled.as_str())
    .bind(Status::Booked.as_str())
    .execute(db)
    .await?;
    Ok(saved.rows_affected())
}

/// The shipment of an order.
pub async fn find(db: &mut PgConnection, order: Uuid) -> Result<Option<ShipmentRow>, sqlx::Error> {
    sqlx::query_as(
        "select order_id, status, address, items, tracking_number, created_at, updated_at
         from shipment where order_id = $1",
    )
    .bind(order)
    .fetch_optional(db)
    .await
}
