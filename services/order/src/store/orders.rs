//! Statements about orders.

use schemas::common::{Address, Money, PricedLine};
use schemas::order::RejectOrder;
use serde_json::Value;
use shared::unit_of_work::UnitOfWork;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{Order, Return, Status};

shared::row! {
    /// An order's row.
    #[derive(Debug)]
    pub struct OrderRow {
        id: Uuid,
        customer_id: String,
        /// The status by the sagas, or by the carrier for an order that stands.
        status: String,
        items: Json<Vec<PricedLine>>,
        total_amount: i64,
        currency: String,
        reason: Option<String>,
        detail: Option<Json<Value>>,
        cancellation: Option<String>,
        cancellation_reason: Option<String>,
        return_id: Option<Uuid>,
        return_status: Option<String>,
        return_reason: Option<String>,
        created_at: OffsetDateTime,
        version: i64,
    }
}

impl From<OrderRow> for Order {
    fn from(row: OrderRow) -> Self {
        let returning = row.return_id.zip(row.return_status);
        Self {
            id: row.id,
            // The table's check constraint allows no other text.
            status: Status::parse(&row.status).unwrap_or(Status::Pending),
            customer_id: row.customer_id,
            items: row.items.0,
            total: Money { amount: row.total_amount, currency: row.currency },
            reason: row.reason,
            detail: row.detail.map(|Json(detail)| detail),
            cancellation: row.cancellation,
            cancellation_reason: row.cancellation_reason,
            returning: returning.map(|(id, status)| Return { id, status, reason: row.return_reason }),
            created_at: row.created_at,
            version: row.version,
        }
    }
}

/// A new order.
#[derive(Debug)]
pub struct NewRow<'o> {
    pub order: &'o Order,
    pub shipping_address: &'o Address,
    pub email: Option<&'o str>,
}

shared::row! {
    /// An order that a command has settled.
    #[derive(Debug)]
    pub struct SettledRow {
        pub id: Uuid,
        pub total_amount: i64,
        pub currency: String,
        pub version: i64,
    }
}

pub(super) const ORDER: &str = "id, customer_id, case status when 'confirmed' then coalesce(delivery, status) else status end as status, \
                     items, total_amount, currency, reason, detail, cancellation, cancellation_reason, return_id, return_status, \
                     return_reason, created_at, version";

/// Inserts new orders.
pub fn insert_orders(uow: &mut UnitOfWork, rows: &[NewRow<'_>]) {
    uow.defer(
        "insert into orders (id, customer_id, status, items, total_amount, currency, shipping_address, email)
         select id, customer_id, 'pending', items, total_amount, currency, shipping_address, email
         from unnest($1::uuid[], $2::text[], $3::json[], $4::bigint[], $5::text[], $6::json[], $7::text[])
              as row (id, customer_id, items, total_amount, currency, shipping_address, email)",
        |parameters| {
            parameters
                .bind(rows.iter().map(|row| row.order.id).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.order.customer_id.as_str()).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| Json(&row.order.items)).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.order.total.amount).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.order.total.currency.as_str()).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| Json(row.shipping_address)).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.email).collect::<Vec<_>>());
        },
    );
}

/// Confirms those of the orders that are pending, and returns them.
pub async fn confirm(db: &mut PgConnection, orders: &[Uuid]) -> Result<Vec<SettledRow>, sqlx::Error> {
    sqlx::query_as(
        "update orders set status = 'confirmed', version = version + 1, updated_at = now()
         where id = any($1) and status = 'pending' returning id, total_amount, currency, version",
    )
    .bind(orders)
    .fetch_all(db)
    .await
}

/// Rejects those of the orders that are pending, and returns them.
pub async fn reject(db: &mut PgConnection, orders: &[&RejectOrder]) -> Result<Vec<SettledRow>, sqlx::Error> {
    sqlx::query_as(
        "update orders o
         set status = 'rejected', reason = row.reason, detail = row.detail, version = version + 1, updated_at = now()
         from unnest($1::uuid[], $2::text[], $3::json[]) as row (id, reason, detail)
         where o.id = row.id and o.status = 'pending' returning o.id, o.total_amount, o.currency, o.version",
    )
    .bind(orders.iter().map(|order| order.order_id).collect::<Vec<_>>())
    .bind(orders.iter().map(|order| order.reason.as_str()).collect::<Vec<_>>())
    .bind(orders.iter().map(|order| order.detail.as_ref().map(Json)).collect::<Vec<_>>())
    .fetch_all(db)
    .await
}

/// Cancels those of the orders that are pending, and returns them.
pub async fn cancel(db: &mut PgConnection, orders: &[Uuid]) -> Result<Vec<SettledRow>, sqlx::Error> {
    sqlx::query_as(
        "update orders set status = 'cancelled', cancellation = null, version = version + 1, updated_at = now()
         where id = any($1) and status = 'pending' returning id, total_amount, currency, version",
    )
    .bind(orders)
    .fetch_all(db)
    .await
}

/// Writes the delivery status of orders that stand. It goes from shipped to delivered, and never back. Returns the orders that
/// are not confirmed yet.
pub async fn save_delivery(
    db: &mut PgConnection,
    orders: &[(Uuid, Status)],
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "with saved as (update orders o set delivery = row.delivery, version = version + 1, updated_at = now()
         from unnest($1::uuid[], $2::text[]) as row (id, delivery)
         where o.id = row.id and o.status = 'confirmed'
           and (o.delivery is null or (o.delivery = 'shipped' and row.delivery = 'delivered')))
         select row.id from unnest($1::uuid[]) as row (id) left join orders o using (id)
         where o.id is null or o.status = 'pending'",
    )
    .bind(orders.iter().map(|(order, _)| *order).collect::<Vec<_>>())
    .bind(orders.iter().map(|(_, status)| status.as_str()).collect::<Vec<_>>())
    .fetch_all(db)
    .await
}

/// Returns the number of pending orders, counted up to `most`.
pub async fn count_pending(db: &mut PgConnection, most: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "select count(*) from (select from orders where status = 'pending' limit $1) as counted",
    )
    .bind(most)
    .fetch_one(db)
    .await
}

/// Returns an order.
pub async fn find(db: &mut PgConnection, id: Uuid) -> Result<Option<Order>, sqlx::Error> {
    let find = format!("select {ORDER} from orders where id = $1");
    let row: Option<OrderRow> = sqlx::query_as(sqlx::AssertSqlSafe(find)).bind(id).fetch_optional(db).await?;
    Ok(row.map(Order::from))
}

/// Returns those of the orders that have settled.
pub async fn find_settled(db: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Order>, sqlx::Error> {
    let find = format!("select {ORDER} from orders where id = any($1) and status <> 'pending'");
    let rows: Vec<OrderRow> = sqlx::query_as(sqlx::AssertSqlSafe(find)).bind(ids).fetch_all(db).await?;
    Ok(rows.into_iter().map(Order::from).collect())
}

/// Returns the status of an order.
pub async fn find_status(db: &mut PgConnection, id: Uuid) -> Result<Option<Status>, sqlx::Error> {
    let find = "select case status when 'confirmed' then coalesce(delivery, status) else status end
                from orders where id = $1";
    let status: Option<String> = sqlx::query_scalar(find).bind(id).fetch_optional(db).await?;
    Ok(status.and_then(|status| Status::parse(&status)))
}
