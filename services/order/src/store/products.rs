//! Statements about products.

use std::collections::HashMap;

use schemas::common::Money;
use schemas::inventory::ProductUpdated;
use shared::read_model::{Heard, Known};
use shared::unit_of_work::UnitOfWork;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

shared::row! {
    /// A product as inventory published it.
    #[derive(Debug)]
    pub struct ProductRow {
        pub sku: String,
        pub name: String,
        pub price_amount: i64,
        pub price_currency: String,
        pub version: i64,
    }
}

impl ProductRow {
    pub fn price(&self) -> Money {
        Money { amount: self.price_amount, currency: self.price_currency.clone() }
    }
}

/// Returns the products with these skus, by sku.
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

/// Returns a page of products behind the sku `after`, by sku.
pub async fn list_products(
    db: &mut PgConnection,
    after: &str,
    limit: i64,
) -> Result<Vec<ProductRow>, sqlx::Error> {
    sqlx::query_as(
        "select sku, name, price_amount, price_currency, version from product where sku > $1 order by sku limit $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Returns what the copies of these products are from, by sku.
pub async fn find_product_versions(
    db: &mut PgConnection,
    skus: &[&str],
) -> Result<HashMap<String, Known>, sqlx::Error> {
    let rows: Vec<(String, i64, Option<Uuid>, OffsetDateTime)> =
        sqlx::query_as("select sku, version, message_id, message_at from product where sku = any($1)")
            .bind(skus)
            .fetch_all(db)
            .await?;
    Ok(rows
        .into_iter()
        .map(|(sku, version, message_id, at)| (sku, Known { version, message_id, at }))
        .collect())
}

/// Writes products. No product comes twice.
pub fn save_products(uow: &mut UnitOfWork, products: &[Heard<ProductUpdated>]) {
    uow.defer(
        "insert into product (sku, name, price_amount, price_currency, version, message_id, message_at)
         select * from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::uuid[],
                              $7::timestamptz[])
         on conflict (sku) do update
         set name = excluded.name, price_amount = excluded.price_amount, price_currency = excluded.price_currency,
             version = excluded.version, message_id = excluded.message_id, message_at = excluded.message_at",
        |parameters| {
            parameters
                .bind(products.iter().map(|heard| heard.data.sku.as_str()).collect::<Vec<_>>())
                .bind(products.iter().map(|heard| heard.data.name.as_str()).collect::<Vec<_>>())
                .bind(products.iter().map(|heard| heard.data.price.amount).collect::<Vec<_>>())
                .bind(products.iter().map(|heard| heard.data.price.currency.as_str()).collect::<Vec<_>>())
                .bind(products.iter().map(|heard| heard.version).collect::<Vec<_>>())
                .bind(products.iter().map(|heard| heard.message_id).collect::<Vec<_>>())
                .bind(products.iter().map(|heard| heard.at).collect::<Vec<_>>());
        },
    );
}
