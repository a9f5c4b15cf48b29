//! The services' own statements, and the feed of settled orders.

mod statements;

use futures::StreamExt;
use serde_json::{Value, json};

use self::statements::{HARMLESS, STATEMENTS};
use crate::harness::{Order, Suite, id, order};

async fn statement(suite: &Suite, service: &'static str, name: &str) -> Value {
    let answer = suite.get(service, "/audit").await;
    let statements = answer["statements"].as_array().unwrap_or_else(|| panic!("no statements in {answer}"));
    let mut known: Vec<&str> = STATEMENTS.iter().filter(|s| s.0 == service).map(|s| s.1).collect();
    known.dedup();
    assert_eq!(statements.len(), known.len(), "each statement of {service} is broken here");
    statements.iter().find(|s| s["name"] == name).unwrap_or_else(|| panic!("no {name} in {answer}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_holds_until_it_is_broken_and_names_its_violations() {
    let suite = Suite::start().await;
    let request =
        suite.client.post(format!("{}/orders", suite.url("order"))).header("Idempotency-Key", "one");
    let placed: Value = request.json(&order()).send().await.expect("an answer").json().await.expect("JSON");
    let confirmed = Order { id: id(&placed) };
    assert_eq!(suite.settled(confirmed).await["status"], "confirmed");
    let mut refused = order();
    refused["items"][0]["sku"] = json!("poster");
    refused["items"][0]["quantity"] = json!(4);
    let refused = suite.place(&refused).await;
    assert_eq!(suite.settled(refused).await["status"], "rejected");

    let sold = suite.get("order", "/audit").await;
    assert_eq!(sold["orders"], json!({"confirmed": 1, "rejected": 1}));
    assert_eq!(sold["sold"], json!({"lamp": 2}));
    assert_eq!(sold["confirmed"], json!([{"amount": 9800, "currency": "EUR"}]));
    let captured = suite.get("payment", "/audit").await;
    assert_eq!((&captured["captured"], &captured["refunded"]), (&sold["confirmed"], &json!([])));
    let stock = suite.get("inventory", "/audit").await;
    let lamps = json!({"onHand": 998, "reserved": 0, "shipped": 2, "received": 1000});
    assert_eq!(stock["products"]["lamp"], lamps);

    suite.released(confirmed).await;

    // The order that is refused has voided its payment; the data of this one is broken on purpose.
    suite.execute("payment", "delete from ledger_entry where order_id in (select order_id from payment where status <> 'captured'); delete from payment where status <> 'captured'; delete from step_outcome where saga_id not in (select order_id from payment)").await;
    for (service, name, breaks, mends) in STATEMENTS {
        let before = statement(&suite, service, name).await;
        assert_eq!((&before["holds"], &before["violations"]), (&json!(true), &json!([])), "{before}");
        suite.execute(service, breaks).await;
        let broken = statement(&suite, service, name).await;
        assert_eq!(broken["holds"], false, "{broken}");
        let violations = broken["violations"].as_array().map_or(0, Vec::len);
        assert!((1..=20).contains(&violations), "{broken}");
        suite.execute(service, mends).await;
    }
    for (service, name, changes, takes_back) in HARMLESS {
        suite.execute(service, changes).await;
        let changed = statement(&suite, service, name).await;
        assert_eq!((&changed["holds"], &changed["violations"]), (&json!(true), &json!([])), "{changed}");
        suite.execute(service, takes_back).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_tells_of_every_order_that_settles() {
    let suite = Suite::start().await;
    let url = format!("{}/orders/events", suite.url("order"));
    let feed = suite.client.get(url).send().await.expect("an answer");
    assert_eq!(feed.headers()["content-type"], "text/event-stream");
    let mut declined = order();
    declined["paymentToken"] = json!("tok_chargeDeclined");
    let placed = [suite.place(&order()).await, suite.place(&declined).await];
    let wanted = [(placed[0].id, "confirmed"), (placed[1].id, "rejected")];

    let (mut text, mut chunks) = (String::new(), feed.bytes_stream());
    while text.matches("event: settled\n").count() < 2 || !text.ends_with("\n\n") {
        let chunk = tokio::time::timeout(crate::harness::PATIENCE, chunks.next()).await.expect("it goes on");
        text.push_str(std::str::from_utf8(&chunk.expect("it does not end").expect("bytes")).expect("UTF-8"));
    }
    for (id, status) in wanted {
        let told: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
            .filter(|told: &Value| told["id"] == id.to_string())
            .collect();
        assert_eq!(told.len(), 1, "{id} once in {text}");
        assert_eq!(told[0]["status"], status);
        assert!(told[0]["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{}", told[0]);
    }
}
