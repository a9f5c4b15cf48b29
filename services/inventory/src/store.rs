//! Every SQL statement of the inventory service. Functions take the caller's transaction.

pub mod audit;

use std::collections::BTreeMap;

use schemas::common::Line;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::domain::Shelf;

/// A product as it is shown.
#[derive(Debug, FromRow)]
pub struct ProductRow {
    pub sku: String,
    pub name: String,
    pub price_amount: i64,
    pub price_currency: String,
    pub on_hand: i64,
    pub reserved: i64,
    pub shipped: i64,
    pub received: i64,
    pub version: i64,
}

/// What a product is to be.
#[derive(Debug)]
pub struct ProductPut<'p> {
    pub sku: &'p str,
    pub name: &'p str,
    pub price_amount: i64,
    pub price_currency: &'p str,
    pub low_threshold: i64,
}

/// Locks the products in the order of their sku.
pub async fn lock_shelf(db: &mut PgConnection, skus: &[&str]) -> Result<Shelf, sqlx::Error> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "select sku, on_hand, low_threshold from product where sku = any($1) order by sku for no key update",
    )
    .bind(skus)
    .fetch_all(db)
    .await?;
    let mut shelf = Shelf::default();
    for (sku, on_hand, low_threshold) in rows {
        shelf.put(sku, on_hand, low_threshold);
    }
    Ok(shelf)
}

/// Moves pieces of locked products from the shelf to the reserved ones.
pub async fn save_taken(db: &mut PgConnection, taken: &[(&str, i64)]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update product p
         set on_hand = on_hand - quantity, reserved = reserved + quantity, updated_at = now()
         from unnest($1::text[], $2::bigint[]) as row (sku, quantity) where p.sku = row.sku",
    )
    .bind(taken.iter().map(|(sku, _)| *sku).collect::<Vec<_>>())
    .bind(taken.iter().map(|(_, quantity)| *quantity).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// Writes down who holds what.
pub async fn insert_reservations(db: &mut PgConnection, held: &[(Uuid, &[Line])]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into reservation (order_id, status, items)
         select order_id, 'held', items from unnest($1::uuid[], $2::json[]) as row (order_id, items)",
    )
    .bind(held.iter().map(|(order, _)| *order).collect::<Vec<_>>())
    .bind(held.iter().map(|(_, lines)| Json(*lines)).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// Ends held reservations and returns what they held. An order without one is left out.
pub async fn end_reservations(
    db: &mut PgConnection,
    orders: &[Uuid],
    status: &str,
) -> Result<BTreeMap<Uuid, Vec<Line>>, sqlx::Error> {
    let rows: Vec<(Uuid, Json<Vec<Line>>)> = sqlx::query_as(
        "update reservation set status = $2, updated_at = now()
         where order_id = any($1) and status = 'held' returning order_id, items",
    )
    .bind(orders)
    .bind(status)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|(order, Json(items))| (order, items)).collect())
}

/// Moves reserved pieces back to the shelf. Products are locked in the order of their sku.
pub async fn save_released(db: &mut PgConnection, moves: &BTreeMap<String, i64>) -> Result<(), sqlx::Error> {
    save_reserved_move(db, moves, "on_hand = on_hand + quantity").await
}

/// Moves reserved pieces out of the house.
pub async fn save_committed(db: &mut PgConnection, moves: &BTreeMap<String, i64>) -> Result<(), sqlx::Error> {
    save_reserved_move(db, moves, "shipped = shipped + quantity").await
}

async fn save_reserved_move(
    db: &mut PgConnection,
    moves: &BTreeMap<String, i64>,
    target: &str,
) -> Result<(), sqlx::Error> {
    let statement = format!(
        "with locked as (
             select p.sku, row.quantity
             from product p join unnest($1::text[], $2::bigint[]) as row (sku, quantity) using (sku)
             order by p.sku for no key update of p)
         update product p set reserved = reserved - quantity, {target}, updated_at = now()
         from locked where p.sku = locked.sku"
    );
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(moves.keys().map(String::as_str).collect::<Vec<_>>())
        .bind(moves.values().copied().collect::<Vec<_>>())
        .execute(db)
        .await?;
    Ok(())
}

/// Appends moves to the ledger.
pub async fn append_ledger(
    db: &mut PgConnection,
    kind: &str,
    moves: &[(Uuid, String, i64)],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into stock_entry (sku, kind, quantity, order_id)
         select sku, $1, quantity, order_id
         from unnest($2::uuid[], $3::text[], $4::bigint[]) as row (order_id, sku, quantity)",
    )
    .bind(kind)
    .bind(moves.iter().map(|(order, _, _)| *order).collect::<Vec<_>>())
    .bind(moves.iter().map(|(_, sku, _)| sku.as_str()).collect::<Vec<_>>())
    .bind(moves.iter().map(|(_, _, quantity)| *quantity).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

const PRODUCT: &str =
    "sku, name, price_amount, price_currency, on_hand, reserved, shipped, received, version";

/// Creates or changes a product; its stock stays as it is. Returns it with its new version, and whether it is new.
pub async fn put_product(
    db: &mut PgConnection,
    product: &ProductPut<'_>,
) -> Result<(ProductRow, bool), sqlx::Error> {
    let put = format!(
        "insert into product (sku, name, price_amount, price_currency, low_threshold) values ($1, $2, $3, $4, $5)
         on conflict (sku) do update
         set name = excluded.name, price_amount = excluded.price_amount, price_currency = excluded.price_currency,
             low_threshold = excluded.low_threshold, version = product.version + 1, updated_at = now()
         returning {PRODUCT}"
    );
    let row: ProductRow = sqlx::query_as(sqlx::AssertSqlSafe(put))
        .bind(product.sku)
        .bind(product.name)
        .bind(product.price_amount)
        .bind(product.price_currency)
        .bind(product.low_threshold)
        .fetch_one(db)
        .await?;
    let new = row.version == 1;
    Ok((row, new))
}

/// Puts pieces on the shelf. `None` if there is no such product.
pub async fn receive(
    db: &mut PgConnection,
    sku: &str,
    quantity: i64,
) -> Result<Option<ProductRow>, sqlx::Error> {
    let receive = format!(
        "with entry as (
             insert into stock_entry (sku, kind, quantity)
             select sku, 'received', $2 from product where sku = $1)
         update product set on_hand = on_hand + $2, received = received + $2, updated_at = now()
         where sku = $1 returning {PRODUCT}"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(receive)).bind(sku).bind(quantity).fetch_optional(db).await
}

/// A product.
pub async fn find_product(db: &mut PgConnection, sku: &str) -> Result<Option<ProductRow>, sqlx::Error> {
    let find = format!("select {PRODUCT} from product where sku = $1");
    sqlx::query_as(sqlx::AssertSqlSafe(find)).bind(sku).fetch_optional(db).await
}

/// All products.
pub async fn list_products(db: &mut PgConnection) -> Result<Vec<ProductRow>, sqlx::Error> {
    let list = format!("select {PRODUCT} from product order by sku");
    sqlx::query_as(sqlx::AssertSqlSafe(list)).fetch_all(db).await
}
