//! The yardstick's own audit: every order has ended, and money and stock add up over the five databases.

use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::PgConnection;

use super::ground::Ground;
use super::{INVENTORY, NOTIFY, ORDERS, PAYMENT, SHIPPING};

/// The last steps of the last orders come after the orders have ended.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the databases contain after a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    pub completed: i64,
    pub rejected: i64,
    pub unfinished: i64,
    pub skus_with_lost_stock: i64,
    pub accounts_wrongly_charged: i64,
    pub authorized_not_captured: i64,
    /// The databases that do not have exactly the orders that they should have.
    pub id_set_mismatches: Vec<&'static str>,
}

/// Sets of orders that must be those of the orders' database with a status.
const SETS: [(&str, &str, &str, &str); 6] = [
    ("COMPLETED", "reserved", INVENTORY, "reservations where status = 'RESERVED'"),
    ("COMPLETED", "captured", PAYMENT, "payments where status = 'CAPTURED'"),
    ("COMPLETED", "shipped", SHIPPING, "shipments"),
    ("COMPLETED", "notified", NOTIFY, "notifications"),
    ("REJECTED", "released", INVENTORY, "reservations where status = 'RELEASED'"),
    ("REJECTED", "declined", PAYMENT, "payments where status = 'DECLINED'"),
];

impl Sums {
    /// Reads the sums again and again until they are right, at most for a while.
    pub async fn settled(ground: &Ground) -> anyhow::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sums = Self::read(ground).await?;
            if sums.failures().is_empty() || Instant::now() > deadline {
                return Ok(sums);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn read(ground: &Ground) -> anyhow::Result<Self> {
        let mut orders = ground.connect(ORDERS).await?;
        let mut inventory = ground.connect(INVENTORY).await?;
        let mut payment = ground.connect(PAYMENT).await?;
        let (completed, rejected, unfinished) = sqlx::query_as(
            "select count(*) filter (where status = 'COMPLETED'), count(*) filter (where status = 'REJECTED'),
                    count(*) filter (where status not in ('COMPLETED', 'REJECTED')) from orders",
        )
        .fetch_one(&mut orders)
        .await?;
        let lost_stock = "select count(*) from inventory i left join
            (select sku, sum(qty) n from reservations where status = 'RESERVED' group by 1) r using (sku)
            where initial - i.qty <> coalesce(n, 0)";
        let wrongly_charged = "select count(*) from accounts a left join
            (select account, sum(amount) n from payments where status in ('AUTHORIZED', 'CAPTURED') group by 1) p
            on p.account = a.id where initial - credit <> coalesce(n, 0)";
        let not_captured = "select count(*) from payments where status = 'AUTHORIZED'";
        let mut mismatches = Vec::new();
        for (status, name, database, table) in SETS {
            let mut db = ground.connect(database).await?;
            let expected = set(&mut orders, "id", &format!("orders where status = '{status}'")).await?;
            if set(&mut db, "order_id", table).await? != expected {
                mismatches.push(name);
            }
        }
        Ok(Self {
            completed,
            rejected,
            unfinished,
            skus_with_lost_stock: sqlx::query_scalar(lost_stock).fetch_one(&mut inventory).await?,
            accounts_wrongly_charged: sqlx::query_scalar(wrongly_charged).fetch_one(&mut payment).await?,
            authorized_not_captured: sqlx::query_scalar(not_captured).fetch_one(&mut payment).await?,
            id_set_mismatches: mismatches,
        })
    }

    pub fn money(&self) -> bool {
        self.accounts_wrongly_charged == 0 && self.authorized_not_captured == 0
    }

    pub fn stock(&self) -> bool {
        self.skus_with_lost_stock == 0
    }

    /// Returns what does not add up; empty if all does.
    pub fn failures(&self) -> Vec<String> {
        let counts = [
            (self.unfinished, "orders have not ended"),
            (self.skus_with_lost_stock, "products have lost stock"),
            (self.accounts_wrongly_charged, "accounts were charged wrongly"),
            (self.authorized_not_captured, "payments were authorized and not captured"),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let sets = self.id_set_mismatches.iter();
        counts
            .map(|(count, what)| format!("the yardstick: {count} {what}"))
            .chain(
                sets.map(|name| {
                    format!("the yardstick: the {name} orders are not those that they should be")
                }),
            )
            .collect()
    }
}

/// Returns a digest of a set of orders.
async fn set(db: &mut PgConnection, id: &str, table: &str) -> anyhow::Result<String> {
    // The names are our own constants.
    let digest = format!("select coalesce(md5(string_agg({id}, ',' order by {id})), '-') from {table}");
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(digest)).fetch_one(db).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_add_up_is_named() {
        assert!(Sums::default().failures().is_empty());
        let wrong = Sums {
            unfinished: 2,
            id_set_mismatches: vec!["shipped"],
            skus_with_lost_stock: 1,
            ..Sums::default()
        };
        let said = wrong.failures().join("\n");
        assert!(said.contains("2 orders have not ended") && said.contains("shipped"), "{said}");
        assert_eq!((wrong.money(), wrong.stock()), (true, false));
    }
}
