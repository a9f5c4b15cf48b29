//! Many orders from many clients, while one service after the other is killed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{join, join_all};
use serde_json::{Value, json};

use crate::harness::{SERVICES, Suite, order};

const ORDERS: usize = 500;
const CLIENTS: usize = 20;

/// Repeats a request with the same key until it is accepted.
async fn place_at_last(suite: &Suite, url: &str, number: usize) {
    let mut body = order();
    if number.is_multiple_of(10) {
        body["paymentToken"] = json!("tok_chargeDeclined");
    }
    let key = format!("order-{number}");
    suite
        .until("an order to be accepted", async |suite| {
            let request = suite.client.post(url).header("Idempotency-Key", &key).json(&body);
            let Ok(answer) = request.timeout(Duration::from_secs(10)).send().await else { return false };
            answer.status() == 202
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_orders_settle_while_each_service_is_killed() {
    let mut suite = Suite::start().await;
    let url = format!("{}/orders", suite.url("order"));
    let accepted = AtomicUsize::new(0);
    // The clients use the suite while the test kills its processes, so they get their own handle.
    let clients = suite.client_side();
    let work = join_all((0..CLIENTS).map(|client| {
        let (clients, url, accepted) = (&clients, &url, &accepted);
        async move {
            for number in (client..ORDERS).step_by(CLIENTS) {
                place_at_last(clients, url, number).await;
                accepted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }));
    let faults = async {
        for (round, service) in SERVICES.into_iter().enumerate() {
            // The kills are spread over the run: the next service dies when the next share of the orders is accepted.
            let due = ORDERS * (round + 1) / (SERVICES.len() + 1);
            clients.until("orders to be accepted", async |_| accepted.load(Ordering::Relaxed) >= due).await;
            suite.crash(service);
        }
    };
    join(work, faults).await;
    for service in SERVICES {
        suite.ready(service).await;
    }
    suite.comes_to_rest().await;
    let count = async |status: &str| {
        suite.number("order", &format!("select count(*) from orders where status = '{status}'")).await
    };
    assert_eq!((count("confirmed").await, count("rejected").await), (450, 50));
    let page: Value = suite.get("order", "/orders?status=rejected&limit=200").await;
    let reasons =
        page["orders"].as_array().expect("orders").iter().filter(|order| order["reason"] == "card_declined");
    assert_eq!(reasons.count(), 50);
}
