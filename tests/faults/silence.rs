//! Connections that fall silent without being closed.

use local::Signal;
use serde_json::Value;

use crate::harness::detour::Detour;
use crate::harness::{Order, Suite, id, order};

/// The server's own timeouts never reach the client then. Whoever waits has to give up by itself.
#[tokio::test(flavor = "multi_thread")]
async fn connections_to_the_database_that_fall_silent_are_given_up_and_replaced() {
    let mut suite = Suite::start().await;
    let detour = Detour::start(&suite).await;
    for service in ["order", "payment", "orchestrator"] {
        assert_eq!(suite.process(service).stop().await.code(), Some(0));
        suite.set("DATABASE_URL", Some(detour.url(&suite, service)));
        suite.launch(service);
        suite.ready(service).await;
    }
    suite.set("DATABASE_URL", None);
    // An order that is in the middle of its saga, and one that is placed over a silent connection.
    suite.process("shipping").signal(Signal::STOP);
    let pending = suite.place(&order()).await;
    suite.step_is(pending, "book_shipment", "asked").await;
    detour.fall_silent();
    suite.process("shipping").signal(Signal::CONT);
    let accepted = std::sync::Mutex::new(None);
    suite
        .until("the order to be accepted", async |suite| {
            let request = suite.client.post(format!("{}/orders", suite.url("order")));
            let request = request.header("Idempotency-Key", "silence").json(&order());
            let answer = request.send().await.expect("an answer");
            if answer.status() != 202 {
                assert_eq!(answer.status(), 503);
                return false;
            }
            let placed: Value = answer.json().await.expect("JSON");
            *accepted.lock().expect("not poisoned") = Some(id(&placed));
            true
        })
        .await;
    let accepted = accepted.into_inner().expect("not poisoned").expect("an order");
    for order in [pending, Order { id: accepted }] {
        assert_eq!(suite.settled(order).await["status"], "confirmed");
    }
    suite.comes_to_rest().await;
}
