//! Statements about the cancellation of orders.

use sqlx::PgConnection;
use uuid::Uuid;

use super::REPEATED_AFTER;

/// Records the request to cancel a pending order. Returns the order's new version; `None` if the request is on record already
/// or the order is not pending. The caller holds the order's lock.
///
/// A request that was not decided for a while is made again, because its event may be lost.
pub async fn request_cancellation(db: &mut PgConnection, order: Uuid) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "update orders set cancellation = 'requested', version = version + 1, updated_at = now()
         where id = $1 and status = 'pending'
           and (cancellation is null or (cancellation = 'requested' and updated_at < now() - make_interval(secs => $2)))
         returning version",
    )
    .bind(order)
    .bind(REPEATED_AFTER.as_secs_f64())
    .fetch_optional(db)
    .await
}

/// Records that cancellations were refused. Each item is an order with the reason.
pub async fn refuse_cancellations(
    db: &mut PgConnection,
    orders: &[(Uuid, String)],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update orders o
         set cancellation = 'refused', cancellation_reason = row.reason, version = version + 1, updated_at = now()
         from unnest($1::uuid[], $2::text[]) as row (id, reason)
         where o.id = row.id and o.cancellation = 'requested'",
    )
    .bind(orders.iter().map(|(order, _)| *order).collect::<Vec<_>>())
    .bind(orders.iter().map(|(_, reason)| reason.as_str()).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}
