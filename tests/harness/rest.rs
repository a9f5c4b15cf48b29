//! Checks of a suite at rest: money and stock add up, all messages were sent, and none is parked.

use std::collections::BTreeMap;

use sqlx::types::Json;
use uuid::Uuid;

use super::{SERVICES, Suite};

const UNSENT: &str = "select count(*) from outbox o left join relay_checkpoint c on c.shard = o.shard
    where c.shard is null or not (pg_visible_in_snapshot(o.xid, c.acked_snapshot)
          or (c.window_snapshot is not null and pg_visible_in_snapshot(o.xid, c.window_snapshot) and o.position <= c.position))";

impl Suite {
    /// Waits until nothing is under way. Then it checks the databases, and runs the audit.
    pub async fn comes_to_rest(&self) {
        self.adds_up().await;
        self.audit().await;
    }

    /// Waits until nothing is under way. Then it checks the databases.
    pub async fn adds_up(&self) {
        self.until("every saga to end", async |suite| {
            suite
                .number(
                    "orchestrator",
                    "select count(*) from saga where status in ('running', 'compensating')",
                )
                .await
                == 0
                && suite.number("order", "select count(*) from orders where status = 'pending'").await == 0
        })
        .await;
        for service in SERVICES {
            self.has_sent_everything(service).await;
            assert_eq!(
                self.number(service, "select count(*) from parked where status = 'parked'").await,
                0,
                "{service} has parked messages"
            );
            let open = "select count(*) from step_outcome where status = 'pending'";
            assert_eq!(self.number(service, open).await, 0, "{service} has open calls");
        }
        self.every_order_has_its_saga().await;
        self.money_adds_up().await;
        self.stock_adds_up().await;
    }

    /// Waits until all committed messages of a service are in Kafka.
    pub async fn has_sent_everything(&self, service: &str) {
        self.until(&format!("{service} to have sent everything"), async |suite| {
            suite.unsent(service).await == 0
        })
        .await;
    }

    /// Returns how many rows of a service's outbox are not known to be in Kafka.
    pub(super) async fn unsent(&self, service: &str) -> i64 {
        self.number(service, UNSENT).await
    }

    async fn every_order_has_its_saga(&self) {
        let sagas = self
            .texts(
                "orchestrator",
                "select saga_id::text from saga where definition = 'place_order' order by saga_id",
            )
            .await;
        assert_eq!(sagas, self.texts("order", "select id::text from orders order by id").await);
    }

    /// Checks, order by order, that the captured and not refunded money is what confirmed orders cost, and that nothing else
    /// is held or taken.
    async fn money_adds_up(&self) {
        let totals =
            self.amounts("order", "select id, total_amount from orders where status = 'confirmed'").await;
        let captured =
            "select order_id, sum(case kind when 'capture' then amount else -amount end)::bigint from ledger_entry
             where kind in ('capture', 'refund') group by order_id having count(*) filter (where kind = 'refund') = 0";
        assert_eq!(
            self.amounts("payment", captured).await,
            totals,
            "captured is not what confirmed orders cost"
        );
        let held = "select sum(case when debit = 'holds' then amount when credit = 'holds' then -amount else 0 end)::bigint
                    from ledger_entry";
        assert_eq!(self.number("payment", held).await, 0, "an authorization is left");
        let shipped = self
            .texts(
                "shipping",
                "select order_id::text from shipment where status in ('booked', 'dispatched', 'delivered')
                 order by order_id",
            )
            .await;
        let confirmed =
            self.texts("order", "select id::text from orders where status = 'confirmed' order by id").await;
        let returned =
            self.texts("order", "select id::text from orders where status = 'returned' order by id").await;
        // A returned order may have been delivered before.
        let standing: Vec<_> = shipped.into_iter().filter(|order| !returned.contains(order)).collect();
        assert_eq!(standing, confirmed, "shipments are not what confirmed orders need");
        let mut paid = [confirmed, returned.clone()].concat();
        paid.sort_unstable();
        let told =
            |kind| format!("select order_id::text from notification where kind = '{kind}' order by order_id");
        assert_eq!(
            self.texts("notification", &told("order_confirmed")).await,
            paid,
            "customers were not told once each"
        );
        assert_eq!(self.texts("notification", &told("order_returned")).await, returned, "of returns, too");
    }

    async fn amounts(&self, service: &str, sql: &str) -> BTreeMap<Uuid, i64> {
        let mut db = self.connect(service).await;
        let rows: Vec<(Uuid, i64)> =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&mut db).await.expect("amounts");
        rows.into_iter().collect()
    }

    /// Checks that the shipped pieces are those of confirmed orders, that none is reserved, and that the sum is what was
    /// received.
    async fn stock_adds_up(&self) {
        let mut db = self.connect("order").await;
        let rows: Vec<Json<Vec<schemas::common::PricedLine>>> =
            sqlx::query_scalar("select items from orders where status = 'confirmed'")
                .fetch_all(&mut db)
                .await
                .expect("orders");
        let mut sold: BTreeMap<String, i64> = BTreeMap::new();
        for line in rows.into_iter().flat_map(|Json(lines)| lines) {
            *sold.entry(line.sku).or_default() += line.quantity;
        }
        let mut db = self.connect("inventory").await;
        let products: Vec<(String, i64, i64, i64, i64)> =
            sqlx::query_as("select sku, on_hand, reserved, shipped, received from product")
                .fetch_all(&mut db)
                .await
                .expect("products");
        for (sku, on_hand, reserved, shipped, received) in products {
            assert_eq!(on_hand + reserved + shipped, received, "{sku} does not add up");
            assert_eq!(reserved, 0, "{sku} is still held");
            assert_eq!(shipped, sold.get(&sku).copied().unwrap_or(0), "{sku} shipped is not what was sold");
        }
        let ledger = "select count(*) from product p where
            (on_hand, reserved, shipped) <>
            (select (coalesce(sum(quantity * case kind when 'received' then 1 when 'released' then 1 when 'restocked' then 1 when 'reserved' then -1 else 0 end), 0))::bigint,
                    (coalesce(sum(quantity * case kind when 'reserved' then 1 when 'released' then -1 when 'committed' then -1 else 0 end), 0))::bigint,
                    (coalesce(sum(quantity * case kind when 'committed' then 1 when 'restocked' then -1 else 0 end), 0))::bigint
             from stock_entry e where e.sku = p.sku)";
        assert_eq!(
            self.number("inventory", ledger).await,
            0,
            "the ledger tells another story than the shelves"
        );
    }
}
