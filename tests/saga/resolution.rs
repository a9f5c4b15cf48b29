//! Steps whose provider never answers, and how an operator ends them.

use local::Signal;
use serde_json::{Value, json};

use super::breaker::Outage;
use crate::harness::{Order, Setup, Suite, order};

/// A good order with another card.
fn paid_with(token: &str) -> Value {
    let mut order = order();
    order["paymentToken"] = json!(token);
    order
}

impl Suite {
    /// States the outcome of a step of an order's saga.
    async fn resolve(&self, service: &'static str, order: Order, step: &str, stated: Value) -> (u16, Value) {
        let url = format!("{}/steps/{}/{step}/resolution", self.url(service), order.id);
        let mut body = json!({"reason": "I have asked the provider", "by": "ada"});
        body.as_object_mut().expect("an object").extend(stated.as_object().expect("an object").clone());
        let answer = self.client.post(url).json(&body).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// Waits until a service has an open call for a step of an order.
    async fn is_calling(&self, service: &'static str, order: Order, step: &str) {
        let open = format!(
            "select count(*) from step_outcome where status = 'pending' and step = '{step}' and saga_id = '{}'",
            order.id
        );
        self.until("the call to be open", async |suite| suite.number(service, &open).await == 1).await;
    }
}

/// The broker has deleted the event that begins the saga before the orchestrator has read it.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_first_event_is_gone_is_cancelled_and_nothing_is_done_for_it() {
    let mut suite = Suite::start().await;
    suite.kill9("orchestrator");
    let lost = suite.place(&order()).await;
    suite.has_sent_everything("order").await;
    suite.delete_records("order.events").await;
    suite.launch("orchestrator");
    suite.ready("orchestrator").await;
    let later = suite.confirmed(&order()).await;
    assert_ne!(later.id, lost.id);
    let known = format!("select count(*) from saga where saga_id = '{}'", lost.id);
    assert_eq!(suite.number("orchestrator", &known).await, 0, "its saga has not begun");

    assert_eq!(suite.post(lost, "cancellation").await.0.as_u16(), 202);
    assert_eq!(suite.settled(lost).await["status"], "cancelled");
    let saga = suite.get("orchestrator", &format!("/sagas/{}", lost.id)).await;
    assert_eq!((&saga["status"], &saga["reason"]), (&json!("compensated"), &json!("cancelled")), "{saga}");
    for service in ["payment", "inventory", "shipping"] {
        let steps = format!("select count(*) from step_outcome where saga_id = '{}'", lost.id);
        assert_eq!(suite.number(service, &steps).await, 0, "{service} was asked for nothing");
    }
    suite.comes_to_rest().await;
}

/// The broker has deleted the request to cancel as well. A request that is repeated later is published again.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_or_a_return_whose_event_is_gone_is_requested_again() {
    let mut suite = Suite::start().await;
    let confirmed = suite.confirmed(&order()).await;
    suite.comes_to_rest().await;
    suite.kill9("orchestrator");
    let lost = suite.place(&order()).await;
    assert_eq!(suite.post(lost, "cancellation").await.0.as_u16(), 202);
    assert_eq!(suite.post(confirmed, "returns").await.0.as_u16(), 202);
    let path = format!("/orders/{}", confirmed.id);
    let return_id = suite.get("order", &path).await["return"]["id"].clone();
    suite.has_sent_everything("order").await;
    suite.delete_records("order.events").await;
    suite.launch("orchestrator");
    suite.ready("orchestrator").await;

    suite.execute("order", "update orders set updated_at = now() - interval '1 minute'").await;
    assert_eq!(suite.post(lost, "cancellation").await.0.as_u16(), 202);
    assert_eq!(suite.post(confirmed, "returns").await.0.as_u16(), 202);
    assert_eq!(suite.settled(lost).await["status"], "cancelled");
    suite
        .until("the return to end", async |suite| suite.get("order", &path).await["status"] == "returned")
        .await;
    assert_eq!(suite.get("order", &path).await["return"]["id"], return_id, "it is the same return");
    suite.comes_to_rest().await;
}

/// Silence ends what can be undone. The capture may have taken the money, so it is asked until it answers.
#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_that_is_never_answered_ends_at_its_deadline_and_a_capture_does_not() {
    let outage = Outage::begin("card-provider-for-ever");
    outage.end();
    let settings = vec![("CALL_DEADLINE", "3s".to_owned()), ("PAYMENT_PROVIDER_OUTAGE", outage.setting())];
    let mut suite = Suite::with(Setup { settings, ..Setup::default() }).await;
    let card = paid_with("tok_unavailable");
    let (silent, cancelled) = (suite.place(&card).await, suite.place(&card).await);
    assert_eq!(suite.post(cancelled, "cancellation").await.0.as_u16(), 202);
    let settled = suite.settled(silent).await;
    assert_eq!(
        (&settled["status"], &settled["reason"]),
        (&json!("rejected"), &json!("timed_out")),
        "{settled}"
    );
    assert_eq!(suite.settled(cancelled).await["status"], "cancelled", "a cancellation leads somewhere");

    // Payment has authorized this one and does not hear of the capture before the provider is out.
    suite.process("shipping").signal(Signal::STOP);
    let order = suite.place(&order()).await;
    suite.step_is(order, "authorize_payment", "done").await;
    outage.begin_again();
    suite.processes_go_on("shipping");
    suite.is_calling("payment", order, "capture_payment").await;
    let overdue = "select count(*) from step_outcome
                   where step = 'capture_payment' and status = 'pending' and recorded_at < now() - interval '6 seconds'";
    suite
        .until("twice its deadline to pass", async |suite| suite.number("payment", overdue).await == 1)
        .await;
    drop(outage);
    assert_eq!(suite.settled(order).await["status"], "confirmed");
    suite.comes_to_rest().await;
}

/// The pivot is refused, so nothing was taken, and everything before it is undone.
#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_the_provider_refuses_undoes_the_order() {
    let suite = Suite::start().await;
    for (token, reason) in
        [("tok_captureDeclined", "capture_declined"), ("tok_authorizationExpired", "authorization_expired")]
    {
        let order = suite.place(&paid_with(token)).await;
        let settled = suite.settled(order).await;
        assert_eq!(
            (&settled["status"], &settled["reason"]),
            (&json!("rejected"), &json!(reason)),
            "{settled}"
        );
        let timeline: Vec<&str> = settled["timeline"]
            .as_array()
            .expect("a timeline")
            .iter()
            .filter_map(|one| one["type"].as_str())
            .collect();
        for told in [
            "payment.capture_declined.v1",
            "shipping.cancelled.v1",
            "payment.voided.v1",
            "inventory.released.v1",
        ] {
            assert!(timeline.contains(&told), "{told} is not in {timeline:?}");
        }
        let payment = suite.get("payment", &format!("/payments/{}", order.id)).await;
        let sums = [&payment["authorized"]["amount"], &payment["captured"]["amount"]];
        assert_eq!((&payment["status"], sums), (&json!("voided"), [&json!(0), &json!(0)]));
    }
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_card_never_answers_is_ended_by_an_operator_either_way() {
    let suite = Suite::start().await;
    let card = paid_with("tok_unavailable");
    let (refused, authorized) = (suite.place(&card).await, suite.place(&card).await);
    let cancelled = suite.place(&card).await;
    for order in [refused, authorized, cancelled] {
        suite.is_calling("payment", order, "authorize_payment").await;
    }
    // What does not fit changes nothing.
    let (status, problem) =
        suite.resolve("payment", refused, "authorize_payment", json!({"outcome": "done"})).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/reply")), "{problem}");
    assert_eq!(suite.resolve("inventory", refused, "reserve_stock", json!({"outcome": "done"})).await.0, 409);

    let stated = json!({"outcome": "refused", "code": "timed_out"});
    assert_eq!(suite.resolve("payment", refused, "authorize_payment", stated).await.0, 200);
    let order = suite.settled(refused).await;
    assert_eq!((&order["status"], &order["reason"]), (&json!("rejected"), &json!("timed_out")), "{order}");

    let stated = json!({"outcome": "done", "reply": {"authorizationId": "auth_seen"}});
    assert_eq!(suite.resolve("payment", authorized, "authorize_payment", stated).await.0, 200);
    assert_eq!(suite.settled(authorized).await["status"], "confirmed");

    // A cancellation waits for the open call, and the resolution ends it as cancelled.
    assert_eq!(suite.post(cancelled, "cancellation").await.0.as_u16(), 202);
    let saga = format!("/sagas/{}", cancelled.id);
    suite
        .until("the saga to hear of the cancellation", async |suite| {
            let saga = suite.get("orchestrator", &saga).await;
            saga["log"]
                .as_array()
                .is_some_and(|log| log.iter().any(|entry| entry["input"]["input"] == "cancel"))
        })
        .await;
    let stated = json!({"outcome": "refused", "code": "card_declined"});
    assert_eq!(suite.resolve("payment", cancelled, "authorize_payment", stated).await.0, 200);
    assert_eq!(suite.settled(cancelled).await["status"], "cancelled");
    let owed = "select count(*) from step_outcome where claimed_until is not null";
    suite
        .until("the provider to have withdrawn", async |suite| suite.number("payment", owed).await == 0)
        .await;
    suite.comes_to_rest().await;
}
