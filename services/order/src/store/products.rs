//! Statements about products.

use std::collections::HashMap;

use schemas::common::Money;
use sqlx::{FromRow, PgConnection};

/// A product as inventory published it.
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

/// Returns all products, by sku.
pub async fn list_products(db: &mut PgConnection) -> Result<Vec<ProductRow>, sqlx::Error> {
    sqlx::query_as("select sku, name, price_amount, price_currency, version from product order by sku")
        .fetch_all(db)
        .await
}

/// Writes a product, unless the row has a newer version already.
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
