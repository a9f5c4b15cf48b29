//! What an order costs, in counts and not in times: messages, writing transactions and statements. Whoever adds one finds out
//! here. `docs/benchmarks.md` has the same figures with times.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::message::Message;

use crate::harness::kafka::header;
use crate::harness::{Order, SERVICES, Suite, order};

/// The orders come one after the other, as at an ordinary load.
const ORDERS: usize = 50;
const EVERY: Duration = Duration::from_millis(40);

/// The most that a confirmed order without a parcel may cost.
const MESSAGES: f64 = 16.0;
const WRITES: f64 = 13.0;
const STATEMENTS: f64 = 80.0;

impl Suite {
    async fn place_at_an_ordinary_rate(&self) -> Vec<Order> {
        let mut tick = tokio::time::interval(EVERY);
        let mut orders = Vec::with_capacity(ORDERS);
        for _ in 0..ORDERS {
            tick.tick().await;
            orders.push(self.place(&order()).await);
        }
        orders
    }

    /// Returns the number of messages about each order, once all their sagas have ended. It asks no database, because that
    /// would be counted.
    async fn messages(&self, orders: &[Order]) -> HashMap<String, usize> {
        let keys: Vec<String> = orders.iter().map(|order| order.id.to_string()).collect();
        self.until("every saga to end", async |suite| {
            let ended = suite.records().into_iter().filter(|record| {
                header(record, "ce_type").as_deref() == Some("saga.completed.v1")
                    && record.key().is_some_and(|key| keys.iter().any(|one| one.as_bytes() == key))
            });
            ended.count() == orders.len()
        })
        .await;
        let mut messages = HashMap::new();
        for record in self.records() {
            let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
            if keys.contains(&key) {
                *messages.entry(key).or_default() += 1;
            }
        }
        messages
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_at_an_ordinary_load_costs_no_more_messages_transactions_and_statements_than_it_should() {
    let suite = Suite::start().await;
    // The first order opens connections.
    suite.confirmed(&order()).await;
    suite.comes_to_rest().await;
    for service in SERVICES {
        suite.counts_statements(service).await;
    }

    let orders = suite.place_at_an_ordinary_rate().await;
    let messages = suite.messages(&orders).await;
    let of_one = |count: i64| count as f64 / ORDERS as f64;
    let (mut statements, mut writes, mut report) = (0.0, 0.0, String::new());
    for service in SERVICES {
        let calls = suite.calls(service).await;
        let count = |wanted: fn(&str) -> bool| {
            calls.iter().filter(|(query, _)| wanted(query)).map(|(_, calls)| calls).sum::<i64>()
        };
        let all = of_one(count(|_| true));
        let writing = of_one(count(|query| query.starts_with("begin read write")))
            + of_one(count(|query| query.starts_with("update relay_checkpoint")));
        report.push_str(&format!("{service}: {all:.1} statements, {writing:.1} writing transactions\n"));
        statements += all;
        writes += writing;
    }
    let most = messages.values().copied().max().unwrap_or_default() as f64;
    assert_eq!(messages.len(), ORDERS);
    assert!(most <= MESSAGES, "an order is {most} messages: {messages:?}");
    assert!(
        writes <= WRITES && statements <= STATEMENTS,
        "{writes:.1} writes, {statements:.1} statements\n{report}"
    );
    // What was counted is what the services do: an order writes in every one of them.
    assert!(writes >= 5.0 && statements >= 20.0, "{report}");
    suite.comes_to_rest().await;
}
