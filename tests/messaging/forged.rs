//! Messages on the topic of another service. Who has the right to write to one service's topic can neither answer for
//! another service nor begin or cancel a saga. An operator skips such a message, and has what came behind it replayed.

use local::Signal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::parked::{message, text};
use crate::harness::{Order, Suite, order};

impl Suite {
    /// Returns the id of an order's saga.
    async fn saga_of(&self, order: Order) -> Uuid {
        let saga = self.get("orchestrator", &format!("/sagas/{}", order.id)).await;
        saga["id"].as_str().and_then(|id| id.parse().ok()).expect("the saga's id")
    }

    /// Produces a message about an order, and waits until the orchestrator has parked it. Returns the row.
    async fn refuses(&self, topic: &str, order: Order, message: &Value) -> Value {
        let key = order.id.to_string();
        self.produce(topic, &key, message.to_string().as_bytes()).await;
        self.first_parked("orchestrator", &key).await
    }
}

/// Returns an event that says that the card was authorized, as only payment may say it.
fn authorized(order: Order, saga: Uuid) -> Value {
    let mut event = message(
        "payment.authorized.v1",
        &order.id.to_string(),
        saga,
        json!({"orderId": order.id, "amount": {"amount": 1, "currency": "EUR"}, "authorizationId": "auth_forged"}),
    );
    event["metadata"] =
        json!({"sagaId": saga, "step": "authorize_payment", "direction": "do", "outcome": "done"});
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_believed_only_from_the_service_that_owns_the_command() {
    let mut suite = Suite::start().await;
    suite.process("payment").signal(Signal::STOP);
    let placed = suite.place(&order()).await;
    suite.step_is(placed, "reserve_stock", "done").await;
    let saga = suite.saga_of(placed).await;

    let parked = suite.refuses("shipping.events", placed, &authorized(placed, saga)).await;
    let reason = text(&parked["reason"]);
    assert!(
        reason.contains("shipping.events") && reason.contains("only payment.events may answer"),
        "{reason}"
    );
    suite.step_is(placed, "authorize_payment", "asked").await;
    assert_eq!(
        suite.number("orchestrator", "select count(*) from saga_log where reply is not null").await,
        0
    );

    suite.skip("orchestrator", placed, &parked["id"]).await;
    suite.retry("orchestrator", &placed.id.to_string()).await;
    // Order consumes the type for its timeline, and believes it as little.
    let parked = suite.first_parked("order", &placed.id.to_string()).await;
    assert!(text(&parked["reason"]).starts_with("the type payment.authorized.v1 belongs on payment.events"));
    suite.skip("order", placed, &parked["id"]).await;
    suite.retry("order", &placed.id.to_string()).await;
    suite.processes_go_on("payment");
    assert_eq!(suite.settled(placed).await["status"], "confirmed");
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_believed_only_on_its_own_topic() {
    let mut suite = Suite::start().await;
    suite.process("payment").signal(Signal::STOP);
    let placed = suite.place(&order()).await;
    suite.step_is(placed, "reserve_stock", "done").await;
    let saga = suite.saga_of(placed).await;

    let data = json!({"orderId": placed.id});
    let cancel = message("order.cancellation_requested.v1", &placed.id.to_string(), saga, data);
    let parked = suite.refuses("shipping.events", placed, &cancel).await;
    let reason = text(&parked["reason"]);
    assert!(
        reason.starts_with("the type order.cancellation_requested.v1 belongs on order.events"),
        "{reason}"
    );

    suite.skip("orchestrator", placed, &parked["id"]).await;
    suite.retry("orchestrator", &placed.id.to_string()).await;
    suite.processes_go_on("payment");
    assert_eq!(suite.settled(placed).await["status"], "confirmed");
    suite.comes_to_rest().await;
}
