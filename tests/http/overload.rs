//! `POST /orders` under overload.

use std::time::{Duration, Instant};

use local::Signal;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::servers::Server;
use crate::harness::{PATIENCE, Setup, Suite, order};

const ORDERS: &str = "select count(*) from orders";
const MESSAGES: &str = "messages wait to be sent";
const PENDING: &str = "orders wait to be settled";

/// Places orders until one is refused for this reason. Returns how many were accepted.
async fn until_refused(suite: &Suite, reason: &str) -> i64 {
    let mut body = order();
    body["items"] = json!([{"sku": "mug", "quantity": 1}]);
    let url = format!("{}/orders", suite.url("order"));
    let deadline = Instant::now() + PATIENCE;
    let mut taken = 0;
    loop {
        assert!(Instant::now() < deadline, "{taken} orders were taken and none was refused: {reason}");
        let answer = suite.client.post(&url).json(&body).send().await.expect("an answer");
        if answer.status() == StatusCode::ACCEPTED {
            taken += 1;
            continue;
        }
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let wait =
            answer.headers().get("retry-after").and_then(|wait| wait.to_str().ok()?.parse::<u32>().ok());
        assert!(wait.is_some_and(|wait| (1..=30).contains(&wait)), "Retry-After: {wait:?}");
        let problem: Value = answer.json().await.expect("JSON");
        assert_eq!(problem["type"], "/problems/overloaded");
        if problem["detail"].as_str().is_some_and(|detail| detail.contains(reason)) {
            return taken;
        }
        // The limit of the outbox is small. The rows that were sent since the relay's last checkpoint exceed it.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_taken_again(suite: &Suite) {
    let url = format!("{}/orders", suite.url("order"));
    suite
        .until("orders to be taken again", async |suite| {
            let request = suite.client.post(&url).json(&order()).timeout(Duration::from_secs(10));
            request.send().await.is_ok_and(|answer| answer.status() == StatusCode::ACCEPTED)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_refused_before_anything_is_written_and_taken_again_when_there_is_room() {
    let settings = vec![("ORDER_OUTBOX_LIMIT", "20".to_owned()), ("ORDER_PENDING_LIMIT", "150".to_owned())];
    let mut suite = Suite::with(Setup { own_servers: true, settings, ..Setup::default() }).await;
    let servers = std::sync::Arc::clone(&suite.servers);

    servers.kill(Server::Kafka);
    let taken = until_refused(&suite, MESSAGES).await;
    assert!(taken > 20, "{taken} orders were taken");
    assert_eq!(until_refused(&suite, MESSAGES).await, 0, "it stays refused while there is no broker");
    assert_eq!(suite.number("order", ORDERS).await, taken, "a refused order is not written");
    servers.restart(Server::Kafka);
    until_taken_again(&suite).await;
    suite.comes_to_rest().await;
    let before = suite.number("order", ORDERS).await;

    // Messages are delivered, but sagas make no progress.
    suite.process("payment").signal(Signal::STOP);
    let taken = until_refused(&suite, PENDING).await;
    assert!(taken > 150, "{taken} orders were taken");
    assert_eq!(suite.number("order", ORDERS).await, before + taken);
    suite.process("payment").signal(Signal::CONT);
    until_taken_again(&suite).await;
    suite.comes_to_rest().await;
    let confirmed = "select count(*) from orders where status = 'confirmed'";
    assert_eq!(suite.number("order", confirmed).await, suite.number("order", ORDERS).await);
    let metrics =
        suite.client.get(format!("{}/metrics", suite.url("order"))).send().await.expect("an answer");
    let metrics = metrics.text().await.expect("text");
    for name in ["amends_orders_refused_total", "amends_order_outbox_backlog_rows", "amends_orders_pending"] {
        assert!(metrics.contains(name), "{name} is not among the metrics");
    }
}
