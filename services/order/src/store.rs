//! Every SQL statement of the order service. Functions take the caller's transaction.

pub mod audit;
mod customers;
mod orders;
mod returns;
mod timeline;

use std::collections::HashMap;
use std::time::Duration;

use schemas::common::Money;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

pub use self::customers::{find_customer, put_customer};
pub use self::orders::{
    ListFilter, NewRow, OrderRow, SettledRow, cancel, confirm, count_pending, find, find_settled,
    find_status, insert_orders, list, reject, save_delivery,
};
pub use self::returns::{
    finish_returns, refuse_cancellations, refuse_returns, request_cancellation, request_return,
};
pub use self::timeline::{TimelineRow, append_timeline, find_timeline};

/// A product as inventory tells of it.
#[derive(Debug, FromRow)]
pub struct ProductRow {
    pub sku: String,
    pub name: String,
    pub price_amount: i64,
    pub price_currency: String,
    pub version: i64,
}

impl ProductRow {
    pub fn price(&self) -> Money {
        Money { amount: self.price_amount, currency: self.price_currency.clone() }
    }
}

/// What was answered under an Idempotency-Key.
#[derive(Debug, FromRow)]
pub struct AnswerRow {
    pub key: String,
    pub request_hash: Vec<u8>,
    pub order_id: Uuid,
    pub answer: String,
}

/// The products of these skus.
pub async fn find_products(
    db: &mut PgConnection,
    skus: &[&str],
) -> Result<HashMap<String, ProductRow>, sqlx::Error> {
    let rows: Vec<ProductRow> = sqlx::query_as(
        "select sku, name, price_amount, price_currency, version from product where sku = any($1)",
    )
    .bind(skus)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.sku.clone(), row)).collect())
}

/// All products.
pub async fn list_products(db: &mut PgConnection) -> Result<Vec<ProductRow>, sqlx::Error> {
    sqlx::query_as("select sku, name, price_amount, price_currency, version from product order by sku")
        .fetch_all(db)
        .await
}

/// Takes over a product's news, unless newer ones are here already.
pub async fn save_product(db: &mut PgConnection, product: &ProductRow) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into product (sku, name, price_amount, price_currency, version) values ($1, $2, $3, $4, $5)
         on conflict (sku) do update
         set name = excluded.name, price_amount = excluded.price_amount, price_currency = excluded.price_currency,
             version = excluded.version
         where product.version < excluded.version",
    )
    .bind(&product.sku)
    .bind(&product.name)
    .bind(product.price_amount)
    .bind(&product.price_currency)
    .bind(product.version)
    .execute(db)
    .await?;
    Ok(())
}

/// What was answered under these keys. The caller holds their locks.
pub async fn find_answers(
    db: &mut PgConnection,
    keys: &[&str],
) -> Result<HashMap<String, AnswerRow>, sqlx::Error> {
    let rows: Vec<AnswerRow> =
        sqlx::query_as("select key, request_hash, order_id, answer from idempotency_key where key = any($1)")
            .bind(keys)
            .fetch_all(db)
            .await?;
    Ok(rows.into_iter().map(|row| (row.key.clone(), row)).collect())
}

/// Keeps what was answered.
pub async fn insert_answers(db: &mut PgConnection, answers: &[AnswerRow]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into idempotency_key (key, request_hash, order_id, answer)
         select * from unnest($1::text[], $2::bytea[], $3::uuid[], $4::text[])",
    )
    .bind(answers.iter().map(|row| row.key.as_str()).collect::<Vec<_>>())
    .bind(answers.iter().map(|row| row.request_hash.as_slice()).collect::<Vec<_>>())
    .bind(answers.iter().map(|row| row.order_id).collect::<Vec<_>>())
    .bind(answers.iter().map(|row| row.answer.as_str()).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes a batch of answers that were given longer ago than `kept`, and returns how many.
pub async fn delete_answers(db: &mut PgConnection, kept: Duration) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query(
        "delete from idempotency_key
         where key = any (array (select key from idempotency_key
                                 where created_at < now() - $1 * interval '1 second' order by created_at limit $2))",
    )
    .bind(kept.as_secs_f64())
    .bind(shared::housekeeper::BATCH)
    .execute(db)
    .await?;
    Ok(deleted.rows_affected())
}
