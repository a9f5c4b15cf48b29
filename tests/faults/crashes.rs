//! `kill -9` of each service in the middle of a saga.

use local::Signal;
use serde_json::json;

use crate::harness::{Suite, order};

/// Freezes a service so that the saga waits for it, then kills the service and starts it again.
async fn killed_while_asked(service: &'static str, step: &str) {
    let mut suite = Suite::start().await;
    suite.process(service).signal(Signal::STOP);
    let placed = suite.place(&order()).await;
    suite.step_is(placed, step, "asked").await;
    suite.crash(service);
    assert_eq!(suite.settled(placed).await["status"], "confirmed");
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inventory_killed_while_it_is_asked_to_reserve() {
    killed_while_asked("inventory", "reserve_stock").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payment_killed_while_it_is_asked_to_authorize() {
    killed_while_asked("payment", "authorize_payment").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shipping_killed_while_it_is_asked_to_book() {
    killed_while_asked("shipping", "book_shipment").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notification_killed_while_it_is_asked_to_notify() {
    killed_while_asked("notification", "notify_customer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn order_killed_right_after_it_accepted() {
    let mut suite = Suite::start().await;
    let mut placed = Vec::new();
    for _ in 0..5 {
        placed.push(suite.place(&order()).await);
        suite.crash("order");
        suite.ready("order").await;
    }
    for order in placed {
        assert_eq!(suite.settled(order).await["status"], "confirmed");
    }
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn order_killed_while_it_is_asked_to_confirm() {
    let mut suite = Suite::start().await;
    // The saga is held at payment, so that order can be frozen before its command comes.
    suite.process("payment").signal(Signal::STOP);
    let placed = suite.place(&order()).await;
    suite.step_is(placed, "authorize_payment", "asked").await;
    suite.process("order").signal(Signal::STOP);
    suite.process("payment").signal(Signal::CONT);
    suite.step_is(placed, "confirm_order", "asked").await;
    suite.crash("order");
    assert_eq!(suite.settled(placed).await["status"], "confirmed");
    suite.comes_to_rest().await;
}

/// Kills the orchestrator while a saga waits for shipping, once on the way forward and once on the way back.
#[tokio::test(flavor = "multi_thread")]
async fn the_orchestrator_killed_while_a_step_is_open() {
    let mut suite = Suite::start().await;
    let mut refused = order();
    refused["shippingAddress"]["postalCode"] = json!("00000");
    for (body, outcome) in [(order(), "confirmed"), (refused, "rejected")] {
        suite.process("shipping").signal(Signal::STOP);
        let placed = suite.place(&body).await;
        suite.step_is(placed, "book_shipment", "asked").await;
        // Either the killed orchestrator or its successor takes the answer.
        suite.process("shipping").signal(Signal::CONT);
        suite.crash("orchestrator");
        suite.ready("orchestrator").await;
        assert_eq!(suite.settled(placed).await["status"], outcome);
    }
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_orchestrator_killed_while_stock_is_given_back() {
    let mut suite = Suite::start().await;
    suite.process("payment").signal(Signal::STOP);
    let mut body = order();
    body["paymentToken"] = json!("tok_chargeDeclined");
    let placed = suite.place(&body).await;
    // The reply must have been sent. If inventory is frozen before its relay has sent it, the saga waits for it.
    suite.step_is(placed, "reserve_stock", "done").await;
    suite.process("inventory").signal(Signal::STOP);
    suite.process("payment").signal(Signal::CONT);
    suite
        .until("the saga to turn round", async |suite| {
            suite.number("orchestrator", "select count(*) from saga where status = 'compensating'").await == 1
        })
        .await;
    suite.crash("orchestrator");
    suite.process("inventory").signal(Signal::CONT);
    assert_eq!(suite.settled(placed).await["status"], "rejected");
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_orchestrator_killed_at_any_time() {
    let mut suite = Suite::start().await;
    let mut placed = Vec::new();
    for number in 0..12 {
        let mut body = order();
        if number % 3 == 0 {
            body["shippingAddress"]["postalCode"] = json!("00000");
        }
        placed.push((suite.place(&body).await, number % 3 == 0));
        if number % 2 == 0 {
            suite.crash("orchestrator");
        }
    }
    suite.ready("orchestrator").await;
    for (order, refused) in placed {
        let expected = if refused { "rejected" } else { "confirmed" };
        assert_eq!(suite.settled(order).await["status"], expected);
    }
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_the_card_provider_is_taken_up_after_a_crash() {
    // The provider is slow, so the crash comes between the intent and the outcome.
    let settings = vec![("PAYMENT_PROVIDER_LATENCY", "1500ms".to_owned())];
    let mut suite = Suite::with(crate::harness::Setup { settings, ..Default::default() }).await;
    let placed = suite.place(&order()).await;
    suite
        .until("the intent to be on record", async |suite| {
            suite.number("payment", "select count(*) from step_outcome where status = 'pending'").await == 1
        })
        .await;
    suite.crash("payment");
    assert_eq!(suite.settled(placed).await["status"], "confirmed");
    suite.comes_to_rest().await;
}
