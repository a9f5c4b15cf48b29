//! Every SQL statement of the notification service. Functions take the caller's transaction.

use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

/// A message to a customer.
pub struct NewNotification<'n> {
    pub id: Uuid,
    pub order_id: Uuid,
    pub customer_id: &'n str,
    pub kind: &'static str,
    pub email: Option<&'n str>,
    pub text: String,
    pub channel: &'static str,
}

/// A message to a customer, as it is shown.
#[derive(Debug, FromRow)]
pub struct NotificationRow {
    pub id: Uuid,
    pub order_id: Uuid,
    pub customer_id: String,
    pub kind: String,
    pub text: String,
    pub channel: String,
    pub status: String,
    pub created_at: OffsetDateTime,
}

/// Writes messages down.
pub async fn insert(db: &mut PgConnection, rows: &[NewNotification<'_>]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into notification (id, order_id, customer_id, kind, email, text, channel, status)
         select id, order_id, customer_id, kind, email, text, channel, 'sent'
         from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
              as row (id, order_id, customer_id, kind, email, text, channel)",
    )
    .bind(rows.iter().map(|row| row.id).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.order_id).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.customer_id).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.kind).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.email).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.channel).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// The messages about an order, or the newest about any.
pub async fn list(
    db: &mut PgConnection,
    order: Option<Uuid>,
    limit: i64,
) -> Result<Vec<NotificationRow>, sqlx::Error> {
    sqlx::query_as(
        "select id, order_id, customer_id, kind, text, channel, status, created_at
         from notification where $1::uuid is null or order_id = $1 order by id desc limit $2",
    )
    .bind(order)
    .bind(limit)
    .fetch_all(db)
    .await
}
