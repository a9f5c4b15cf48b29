//! The business of the yardstick. Each step is one transaction in its own database, with a row that says that it is done,
//! so that a repeated call changes nothing.

use serde::Deserialize;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions, Postgres};
use sqlx::query::Query;
use sqlx::{Error, PgTransaction, query};

use super::{CONNECTIONS, INVENTORY, NOTIFY, ORDERS, PAYMENT, SHIPPING};

#[derive(Debug, Deserialize)]
pub struct Order {
    pub id: String,
    pub sku: i32,
    pub qty: i32,
    pub account: i32,
    pub amount: i64,
}

/// The databases, with an ordinary pool for each.
pub struct Store {
    orders: PgPool,
    inventory: PgPool,
    payment: PgPool,
    shipping: PgPool,
    notify: PgPool,
}

impl Store {
    /// The pools connect when they are used first.
    pub fn new(server: &PgConnectOptions) -> Self {
        let pool = |database| {
            let options = server.clone().database(database);
            PgPoolOptions::new().max_connections(CONNECTIONS).connect_lazy_with(options)
        };
        Self {
            orders: pool(ORDERS),
            inventory: pool(INVENTORY),
            payment: pool(PAYMENT),
            shipping: pool(SHIPPING),
            notify: pool(NOTIFY),
        }
    }

    pub async fn create(&self, order: &Order) -> Result<(), Error> {
        let Some(mut tx) = begin(&self.orders, "create", order).await? else { return Ok(()) };
        let insert = query("insert into orders values($1, $2, $3, $4, $5, 'PENDING', clock_timestamp())");
        let insert = insert.bind(&order.id).bind(order.sku).bind(order.qty);
        one(&mut tx, insert.bind(order.account).bind(order.amount)).await?;
        tx.commit().await
    }

    /// Carries an order out, one step after the other.
    pub async fn carry_out(&self, order: &Order) -> Result<(), Error> {
        if !self.reserve(order).await? {
            return self.finish(order, "reject", "REJECTED").await;
        }
        if !self.authorize(order).await? {
            self.release(order).await?;
            return self.finish(order, "reject", "REJECTED").await;
        }
        self.ship(order).await?;
        self.capture(order).await?;
        self.finish(order, "confirm", "COMPLETED").await?;
        self.notify(order).await
    }

    /// Returns false if there is not enough stock.
    async fn reserve(&self, order: &Order) -> Result<bool, Error> {
        let Some(mut tx) = begin(&self.inventory, "reserve", order).await? else { return Ok(true) };
        let take = query("update inventory set qty = qty - $2 where sku = $1 and qty >= $2");
        if take.bind(order.sku).bind(order.qty).execute(&mut *tx).await?.rows_affected() == 0 {
            return Ok(false);
        }
        let insert = query("insert into reservations values($1, $2, $3, 'RESERVED')");
        one(&mut tx, insert.bind(&order.id).bind(order.sku).bind(order.qty)).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn release(&self, order: &Order) -> Result<(), Error> {
        let Some(mut tx) = begin(&self.inventory, "release", order).await? else { return Ok(()) };
        let release =
            query("update reservations set status = 'RELEASED' where order_id = $1 and status = 'RESERVED'");
        one(&mut tx, release.bind(&order.id)).await?;
        let give_back = query("update inventory set qty = qty + $2 where sku = $1");
        one(&mut tx, give_back.bind(order.sku).bind(order.qty)).await?;
        tx.commit().await
    }

    /// Returns false if there is not enough credit. That is recorded too, so that a repeated call gives the same answer.
    async fn authorize(&self, order: &Order) -> Result<bool, Error> {
        let Some(mut tx) = begin(&self.payment, "authorize", order).await? else {
            let status = sqlx::query_scalar("select status from payments where order_id = $1");
            let status: String = status.bind(&order.id).fetch_one(&self.payment).await?;
            return Ok(status != "DECLINED");
        };
        let charge = query("update accounts set credit = credit - $2 where id = $1 and credit >= $2");
        let charged = charge.bind(order.account).bind(order.amount).execute(&mut *tx).await?;
        let authorized = charged.rows_affected() == 1;
        let insert = query("insert into payments values($1, $2, $3, $4)");
        let insert = insert.bind(&order.id).bind(order.account).bind(order.amount);
        one(&mut tx, insert.bind(if authorized { "AUTHORIZED" } else { "DECLINED" })).await?;
        tx.commit().await?;
        Ok(authorized)
    }

    async fn ship(&self, order: &Order) -> Result<(), Error> {
        let Some(mut tx) = begin(&self.shipping, "ship", order).await? else { return Ok(()) };
        let insert = query("insert into shipments values($1, $2, $3)");
        one(&mut tx, insert.bind(&order.id).bind(order.sku).bind(order.qty)).await?;
        tx.commit().await
    }

    async fn capture(&self, order: &Order) -> Result<(), Error> {
        let Some(mut tx) = begin(&self.payment, "capture", order).await? else { return Ok(()) };
        let capture =
            query("update payments set status = 'CAPTURED' where order_id = $1 and status = 'AUTHORIZED'");
        one(&mut tx, capture.bind(&order.id)).await?;
        tx.commit().await
    }

    async fn finish(&self, order: &Order, step: &str, status: &str) -> Result<(), Error> {
        let Some(mut tx) = begin(&self.orders, step, order).await? else { return Ok(()) };
        let finish = query(
            "update orders set status = $2, finished_at = clock_timestamp() where id = $1 and status = 'PENDING'",
        );
        one(&mut tx, finish.bind(&order.id).bind(status)).await?;
        tx.commit().await
    }

    async fn notify(&self, order: &Order) -> Result<(), Error> {
        let Some(mut tx) = begin(&self.notify, "notify", order).await? else { return Ok(()) };
        let insert = query("insert into notifications values($1, 'order-completed')");
        one(&mut tx, insert.bind(&order.id)).await?;
        tx.commit().await
    }
}

/// Begins the transaction of a step, or returns `None` if the step is already done for this order.
#[expect(
    clippy::disallowed_methods,
    reason = "the yardstick sends no messages, so it has no unit of work to put them into"
)]
async fn begin(db: &PgPool, step: &str, order: &Order) -> Result<Option<PgTransaction<'static>>, Error> {
    let mut tx = db.begin().await?;
    let mark = query("insert into steps(step, order_id) values($1, $2) on conflict do nothing");
    let marked = mark.bind(step).bind(&order.id).execute(&mut *tx).await?;
    Ok((marked.rows_affected() == 1).then_some(tx))
}

/// Executes a statement that must change one row.
async fn one(tx: &mut PgTransaction<'_>, statement: Query<'_, Postgres, PgArguments>) -> Result<(), Error> {
    match statement.execute(&mut **tx).await?.rows_affected() {
        1 => Ok(()),
        rows => {
            Err(Error::Protocol(format!("a statement of the yardstick changed {rows} rows instead of one")))
        }
    }
}
