//! Statements about the return of orders.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{REPEATED_AFTER, SettledRow};

shared::row! {
    /// An order whose return was requested.
    #[derive(Debug)]
    pub struct ReturnRow {
        pub return_id: Uuid,
        pub customer_id: String,
        pub email: Option<String>,
        pub total_amount: i64,
        pub currency: String,
        pub version: i64,
    }
}

/// Records the request to return an order that stands, unless a return of it is under way. The caller holds the order's lock.
///
/// A return that was not decided for a while is requested again under its own id, because its event may be lost.
pub async fn request_return(
    db: &mut PgConnection,
    order: Uuid,
    id: Uuid,
) -> Result<Option<ReturnRow>, sqlx::Error> {
    sqlx::query_as(
        "update orders
         set return_id = case return_status when 'requested' then return_id else $2 end,
             return_status = 'requested', return_reason = null, version = version + 1, updated_at = now()
         where id = $1 and status = 'confirmed'
           and (return_status is distinct from 'requested' or updated_at < now() - make_interval(secs => $3))
         returning return_id, customer_id, email, total_amount, currency, version",
    )
    .bind(order)
    .bind(id)
    .bind(REPEATED_AFTER.as_secs_f64())
    .fetch_optional(db)
    .await
}

/// Marks orders as returned: (order, return). Returns the orders whose return with that id was under way.
pub async fn finish_returns(
    db: &mut PgConnection,
    returns: &[(Uuid, Uuid)],
) -> Result<Vec<SettledRow>, sqlx::Error> {
    sqlx::query_as(
        "update orders o
         set status = 'returned', return_status = 'done', version = version + 1, updated_at = now()
         from unnest($1::uuid[], $2::uuid[]) as row (id, return_id)
         where o.id = row.id and o.return_id = row.return_id and o.status = 'confirmed' and o.return_status = 'requested'
         returning o.id, o.total_amount, o.currency, o.version",
    )
    .bind(returns.iter().map(|(order, _)| *order).collect::<Vec<_>>())
    .bind(returns.iter().map(|(_, id)| *id).collect::<Vec<_>>())
    .fetch_all(db)
    .await
}

/// Refuses returns, so that their orders stay as they are: (order, return, reason). Returns the orders whose return with that
/// id was under way.
pub async fn refuse_returns(
    db: &mut PgConnection,
    returns: &[(Uuid, Uuid, &str)],
) -> Result<Vec<SettledRow>, sqlx::Error> {
    sqlx::query_as(
        "update orders o
         set return_status = 'refused', return_reason = row.reason, version = version + 1, updated_at = now()
         from unnest($1::uuid[], $2::uuid[], $3::text[]) as row (id, return_id, reason)
         where o.id = row.id and o.return_id = row.return_id and o.return_status = 'requested'
         returning o.id, o.total_amount, o.currency, o.version",
    )
    .bind(returns.iter().map(|(order, ..)| *order).collect::<Vec<_>>())
    .bind(returns.iter().map(|(_, id, _)| *id).collect::<Vec<_>>())
    .bind(returns.iter().map(|(.., reason)| *reason).collect::<Vec<_>>())
    .fetch_all(db)
    .await
}
