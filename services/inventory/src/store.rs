//! Every SQL statement of the inventory service. Functions take the caller's transaction.

pub mod audit;

use std::collections::HashMap;

use schemas::common::Line;
use shared::unit_of_work::UnitOfWork;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{End, Shelf};

shared::row! {
    /// A product as the routes show it.
    #[derive(Debug)]
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
}

/// The wanted state of a product.
#[derive(Debug)]
pub struct ProductPut<'p> {
    pub sku: &'p str,
    pub name: &'p str,
    pub price_amount: i64,
    pub price_currency: &'p str,
    pub low_threshold: i64,
}

/// The reservations that a batch makes and ends, and its ledger entries.
#[derive(Debug, Default)]
pub struct Moves<'m> {
    pub held: Vec<(Uuid, &'m [Line])>,
    pub ended: Vec<(Uuid, End)>,
    pub entries: Vec<Entry>,
}

/// A row of the ledger.
#[derive(Debug)]
pub struct Entry {
    pub order_id: Uuid,
    pub kind: &'static str,
    pub sku: String,
    pub quantity: i64,
}

shared::row! {
    /// A row of an order's ledger, as the routes show it.
    #[derive(Debug)]
    pub struct EntryRow {
        pub kind: String,
        pub sku: String,
        pub quantity: i64,
        pub at: OffsetDateTime,
    }
}

shared::row! {
    struct Locked {
        order_id: Option<Uuid>,
        items: Option<Json<Vec<Line>>>,
        taken: bool,
        sku: Option<String>,
        on_hand: i64,
        low_threshold: i64,
    }
}

/// The lines of orders, by order.
pub type Lines = HashMap<Uuid, Vec<Line>>;

/// Locks these products, and those that `ending` orders hold or have taken. It locks them in the order of their sku, so that
/// two batches can't deadlock. Returns the products, what the orders hold, and what they have taken. The caller holds the
/// orders' locks.
pub async fn lock_stock(
    db: &mut PgConnection,
    skus: &[&str],
    ending: &[Uuid],
) -> Result<(Shelf, Lines, Lines), sqlx::Error> {
    let rows: Vec<Locked> = sqlx::query_as(
        "with ending as materialized (
             select order_id, items, status = 'committed' as taken
             from reservation where order_id = any($2) and status in ('held', 'committed')),
         wanted as (
             select sku from unnest($1::text[]) as row (sku)
             union select line ->> 'sku' from ending, json_array_elements(items) as line),
         locked as materialized (
             select p.sku, p.on_hand, p.low_threshold from product p join wanted using (sku)
             order by p.sku for no key update of p)
         select null::uuid as order_id, null::json as items, false as taken, sku, on_hand, low_threshold from locked
         union all
         select order_id, items, taken, null, 0, 0 from ending",
    )
    .bind(skus)
    .bind(ending)
    .fetch_all(db)
    .await?;
    let (mut shelf, mut held, mut taken) = (Shelf::default(), Lines::new(), Lines::new());
    for row in rows {
        match (row.sku, row.order_id, row.items) {
            (Some(sku), ..) => shelf.put(sku, row.on_hand, row.low_threshold),
            (None, Some(order), Some(Json(items))) => {
                let lines = if row.taken { &mut taken } else { &mut held };
                lines.insert(order, items);
            }
            _ => {}
        }
    }
    Ok((shelf, held, taken))
}

/// Writes the moves of a batch: the products, which are locked, the reservations, and the ledger.
pub fn save_moves(uow: &mut UnitOfWork, shelf: &Shelf, moves: &Moves<'_>) {
    let changes = shelf.changes();
    uow.defer(
        "update product p
         set on_hand = p.on_hand + row.on_hand, reserved = p.reserved + row.reserved,
             shipped = p.shipped + row.shipped, updated_at = now()
         from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[])
              as row (sku, on_hand, reserved, shipped)
         where p.sku = row.sku",
        |parameters| {
            parameters
                .bind(changes.iter().map(|change| change.sku).collect::<Vec<_>>())
                .bind(changes.iter().map(|change| change.on_hand).collect::<Vec<_>>())
                .bind(changes.iter().map(|change| change.reserved).collect::<Vec<_>>())
                .bind(changes.iter().map(|change| change.shipped).collect::<Vec<_>>());
        },
    );
    if !moves.held.is_empty() {
        uow.defer(
            "insert into reservation (order_id, status, items)
             select order_id, 'held', items from unnest($1::uuid[], $2::json[]) as row (order_id, items)",
            |parameters| {
                parameters
                    .bind(moves.held.iter().map(|(order, _)| *order).collect::<Vec<_>>())
                    .bind(moves.held.iter().map(|(_, lines)| Json(*lines)).collect::<Vec<_>>());
            },
        );
    }
    if !moves.ended.is_empty() {
        uow.defer(
            "update reservation r set status = row.status, updated_at = now()
             from unnest($1::uuid[], $2::text[]) as row (order_id, status) where r.order_id = row.order_id",
            |parameters| {
                parameters
                    .bind(moves.ended.iter().map(|(order, _)| *order).collect::<Vec<_>>())
                    .bind(moves.ended.iter().map(|(_, end)| end.as_str()).collect::<Vec<_>>());
            },
        );
    }
    uow.defer(
        "insert into stock_entry (sku, kind, quantity, order_id)
         select sku, kind, quantity, order_id
         from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[]) as row (order_id, kind, sku, quantity)",
        |parameters| {
            parameters
                .bind(moves.entries.iter().map(|entry| entry.order_id).collect::<Vec<_>>())
                .bind(moves.entries.iter().map(|entry| entry.kind).collect::<Vec<_>>())
                .bind(moves.entries.iter().map(|entry| entry.sku.as_str()).collect::<Vec<_>>())
                .bind(moves.entries.iter().map(|entry| entry.quantity).collect::<Vec<_>>());
        },
    );
}

const PRODUCT: &str =
    "sku, name, price_amount, price_currency, on_hand, reserved, shipped, received, version";

/// Creates or changes a product. Its stock stays as it is. Returns the product with its new version, and whether it is new.
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

/// Adds received pieces to a product, and returns it; `None` if the product does not exist.
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

/// Returns a product.
pub async fn find_product(db: &mut PgConnection, sku: &str) -> Result<Option<ProductRow>, sqlx::Error> {
    let find = format!("select {PRODUCT} from product where sku = $1");
    sqlx::query_as(sqlx::AssertSqlSafe(find)).bind(sku).fetch_optional(db).await
}

/// Returns a page of products behind the sku `after`, by sku.
pub async fn list_products(
    db: &mut PgConnection,
    after: &str,
    limit: i64,
) -> Result<Vec<ProductRow>, sqlx::Error> {
    let list = format!("select {PRODUCT} from product where sku > $1 order by sku limit $2");
    sqlx::query_as(sqlx::AssertSqlSafe(list)).bind(after).bind(limit).fetch_all(db).await
}

/// Returns all products, for the audit.
pub async fn all_products(db: &mut PgConnection) -> Result<Vec<ProductRow>, sqlx::Error> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {PRODUCT} from product"))).fetch_all(db).await
}

/// Returns the status of an order's reservation.
pub async fn find_reservation(db: &mut PgConnection, order: Uuid) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("select status from reservation where order_id = $1")
        .bind(order)
        .fetch_optional(db)
        .await
}

/// Returns the ledger's entries of an order, in the order in which they were written.
pub async fn find_entries(db: &mut PgConnection, order: Uuid) -> Result<Vec<EntryRow>, sqlx::Error> {
    sqlx::query_as("select kind, sku, quantity, at from stock_entry where order_id = $1 order by id")
        .bind(order)
        .fetch_all(db)
        .await
}
