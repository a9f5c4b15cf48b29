//! Sagas and people: cancellations and returns by customers, and stuck sagas that an operator retries.

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use futures::future::join_all;
use local::Signal;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Order, Setup, Suite, order};

impl Suite {
    /// Waits until the order has this status.
    async fn becomes(&self, order: Order, status: &str) -> Value {
        self.until(&format!("{} to be {status}", order.id), async |suite| {
            suite.get("order", &format!("/orders/{}", order.id)).await["status"] == status
        })
        .await;
        self.get("order", &format!("/orders/{}", order.id)).await
    }

    async fn saga(&self, order: Order) -> Value {
        self.get("orchestrator", &format!("/sagas/{}", order.id)).await
    }
}

fn types(order: &Value) -> Vec<&str> {
    order["timeline"]
        .as_array()
        .expect("a timeline")
        .iter()
        .filter_map(|entry| entry["type"].as_str())
        .collect()
}

fn paid_by(token: &str) -> Value {
    let mut body = order();
    body["paymentToken"] = token.into();
    body
}

async fn with(settings: &[(&'static str, &str)]) -> Suite {
    let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Suite::with(Setup { settings, ..Setup::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_cancelled_before_its_money_is_taken_and_all_is_undone() {
    let mut suite = Suite::start().await;
    suite.process("shipping").signal(Signal::STOP);
    let order = suite.place(&order()).await;
    suite.step_is(order, "book_shipment", "asked").await;
    let (status, asked) = suite.post(order, "cancellation").await;
    assert_eq!((status, &asked["cancellation"]), (StatusCode::ACCEPTED, &json!("requested")), "{asked}");
    let (status, again) = suite.post(order, "cancellation").await;
    assert_eq!((status, &again["version"]), (StatusCode::ACCEPTED, &asked["version"]), "asked once");
    suite.process("shipping").signal(Signal::CONT);

    let cancelled = suite.becomes(order, "cancelled").await;
    assert!(cancelled.get("reason").is_none() && cancelled.get("cancellation").is_none(), "{cancelled}");
    suite.settled(order).await;
    suite.comes_to_rest().await;
    let told = suite.get("order", &format!("/orders/{}", order.id)).await;
    for kind in [
        "order.cancellation_requested.v1",
        "shipping.cancelled.v1",
        "payment.voided.v1",
        "order.cancelled.v1",
    ] {
        assert_eq!(types(&told).iter().filter(|one| **one == kind).count(), 1, "{kind}: {told}");
    }
    assert_eq!(suite.post(order, "cancellation").await.0, StatusCode::OK, "it is cancelled already");
    let (status, problem) = suite.post(order, "returns").await;
    assert_eq!((status, &problem["type"]), (StatusCode::CONFLICT, &json!("/problems/nothing-to-return")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_cancelled_or_returned_says_why_and_what_to_do() {
    let mut suite = with(&[("SHIPPING_DISPATCH_AFTER", "0s"), ("SHIPPING_DELIVER_AFTER", "1h")]).await;
    let declined = suite.place(&paid_by("tok_chargeDeclined")).await;
    suite.settled(declined).await;
    let confirmed = suite.confirmed(&order()).await;
    suite.becomes(confirmed, "shipped").await;
    suite.process("payment").signal(Signal::STOP);
    let pending = suite.place(&order()).await;
    let unknown = Order { id: shared::envelope::new_id() };
    for (order, what, status, problem, says) in [
        (confirmed, "cancellation", 409, "/problems/past-pivot", "POST /orders/"),
        (declined, "cancellation", 409, "/problems/nothing-to-cancel", "rejected"),
        (declined, "returns", 409, "/problems/nothing-to-return", "rejected"),
        (confirmed, "returns", 409, "/problems/in-transit", "delivered"),
        (pending, "returns", 409, "/problems/not-confirmed", "/cancellation"),
        (unknown, "cancellation", 404, "/problems/not-found", "no order"),
        (unknown, "returns", 404, "/problems/not-found", "no order"),
    ] {
        let (code, answer) = suite.post(order, what).await;
        assert_eq!((code.as_u16(), &answer["type"]), (status, &json!(problem)), "{what}: {answer}");
        assert!(answer["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{answer}");
    }
    suite.process("payment").signal(Signal::CONT);
    suite.settled(pending).await;
    suite.comes_to_rest().await;
}

/// The order accepts a return before it knows that its parcel has left.
#[tokio::test(flavor = "multi_thread")]
async fn a_return_that_the_parcel_has_overtaken_is_refused_and_the_order_stands() {
    let mut suite = with(&[("SHIPPING_DELIVER_AFTER", "1h")]).await;
    let order = suite.confirmed(&order()).await;
    suite.process("orchestrator").signal(Signal::STOP);
    assert_eq!(suite.post(order, "returns").await.0, StatusCode::ACCEPTED);
    let released = "select count(*) from shipment where released_at is not null";
    suite.until("the release", async |suite| suite.number("shipping", released).await == 1).await;
    let passes = "update shipment set released_at = released_at - interval '1 hour',
                                      due_at = due_at - interval '1 hour'";
    suite.execute("shipping", passes).await;
    suite.becomes(order, "shipped").await;
    suite.process("orchestrator").signal(Signal::CONT);
    suite
        .until("the return to be refused", async |suite| {
            let order = suite.get("order", &format!("/orders/{}", order.id)).await;
            order["return"]["status"] == "refused" && order["return"]["reason"] == "in_transit"
        })
        .await;
    suite.comes_to_rest().await;
    let payment = suite.get("payment", &format!("/payments/{}", order.id)).await;
    assert_eq!(payment["status"], "captured", "{payment}");
}

/// A cancellation races with the pivot, and one of them wins.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_orders_are_cancelled_at_any_moment_and_each_is_confirmed_or_undone() {
    let suite = Suite::start().await;
    let mut body = order();
    body["items"] = json!([{"sku": "mug", "quantity": 1}]);
    // The time from placing an order to its end, on this machine.
    let began = Instant::now();
    join_all((0..10).map(|_| suite.confirmed(&body))).await;
    let life = began.elapsed();
    let race = async |number: u32| {
        let order = suite.place(&body).await;
        // A hundred different pauses, spread over that time and half of it more.
        tokio::time::sleep(life * 3 / 2 * (number * 37 % 100) / 100).await;
        let (status, answer) = suite.post(order, "cancellation").await;
        let known = [StatusCode::ACCEPTED, StatusCode::OK, StatusCode::CONFLICT].contains(&status);
        assert!(known, "{status} {answer}");
        let settled = suite.settled(order).await;
        let end = settled["status"].as_str().unwrap_or_default().to_owned();
        match (status, end.as_str()) {
            (StatusCode::CONFLICT, "confirmed") | (StatusCode::ACCEPTED, "cancelled" | "confirmed") => {}
            other => panic!("{other:?}: {settled}"),
        }
        end
    };
    let mut ends = Vec::new();
    for ten in 0..10 {
        ends.extend(join_all((0..10).map(|one| race(ten * 10 + one))).await);
    }
    let cancelled = ends.iter().filter(|end| *end == "cancelled").count();
    assert!((1..100).contains(&cancelled), "{cancelled} of 100 were cancelled");
    suite.comes_to_rest().await;
    // Every cancellation that came too late was refused.
    suite
        .until("no wish to be open", async |suite| {
            suite.number("order", "select count(*) from orders where cancellation = 'requested'").await == 0
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_delivered_is_returned_and_money_and_goods_are_back() {
    let suite = with(&[("SHIPPING_DISPATCH_AFTER", "0s"), ("SHIPPING_DELIVER_AFTER", "0s")]).await;
    let order = suite.confirmed(&order()).await;
    suite.becomes(order, "delivered").await;
    let (status, asked) = suite.post(order, "returns").await;
    assert_eq!((status, &asked["return"]["status"]), (StatusCode::ACCEPTED, &json!("requested")), "{asked}");
    let returned = suite.becomes(order, "returned").await;
    assert_eq!(returned["return"]["id"], asked["return"]["id"], "{returned}");
    suite.comes_to_rest().await;
    let payment = suite.get("payment", &format!("/payments/{}", order.id)).await;
    assert_eq!(payment["status"], "refunded", "{payment}");
    let lamp = suite.get("inventory", "/products/lamp").await;
    assert_eq!((&lamp["onHand"], &lamp["shipped"]), (&json!(1000), &json!(0)), "{lamp}");
    assert_eq!(suite.saga(order).await["definition"], "return_order@1");
    assert_eq!(suite.post(order, "returns").await.0, StatusCode::OK, "it is returned already");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_before_the_parcel_has_left_stops_it_and_a_declined_refund_lets_it_go() {
    let suite = Suite::start().await;
    let early = suite.confirmed(&order()).await;
    assert_eq!(suite.post(early, "returns").await.0, StatusCode::ACCEPTED);
    suite.becomes(early, "returned").await;
    let shipment = suite.get("shipping", &format!("/shipments/{}", early.id)).await;
    assert_eq!(shipment["status"], "cancelled", "{shipment}");

    let stubborn = suite.confirmed(&paid_by("tok_refundFail")).await;
    assert_eq!(suite.post(stubborn, "returns").await.0, StatusCode::ACCEPTED);
    suite
        .until("the return to be refused", async |suite| {
            let order = suite.get("order", &format!("/orders/{}", stubborn.id)).await;
            order["return"]
                == json!({"id": order["return"]["id"], "status": "refused", "reason": "refund_declined"})
        })
        .await;
    let shipment = suite.get("shipping", &format!("/shipments/{}", stubborn.id)).await;
    assert_eq!(shipment["status"], "booked", "it goes after all: {shipment}");
    let going = "select count(*) from shipment where status = 'booked' and due_at is not null";
    suite.until("it to wait for its pick-up", async |suite| suite.number("shipping", going).await == 1).await;
    assert_eq!(suite.get("order", &format!("/orders/{}", stubborn.id)).await["status"], "confirmed");
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_without_an_answer_makes_the_saga_stuck_until_the_provider_is_back_and_an_operator_retries() {
    let outage = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("stuck-{}", std::process::id()));
    let _ = std::fs::remove_file(&outage);
    let file = outage.to_str().expect("UTF-8").to_owned();
    let mut suite =
        with(&[("ORCHESTRATOR_STEP_DEADLINE", "200ms"), ("PAYMENT_PROVIDER_OUTAGE", &file)]).await;
    suite.process("shipping").signal(Signal::STOP);
    let mut body = order();
    body["shippingAddress"]["postalCode"] = "00000".into();
    let order = suite.place(&body).await;
    suite.step_is(order, "authorize_payment", "done").await;
    File::create(&outage).expect("a file");
    suite.process("shipping").signal(Signal::CONT);

    suite
        .until("the saga to be stuck", async |suite| {
            let page = suite.get("orchestrator", "/sagas?status=stuck").await;
            page["sagas"].as_array().is_some_and(|sagas| sagas.len() == 1)
        })
        .await;
    let saga = suite.saga(order).await;
    let stuck = &saga["stuck"];
    assert_eq!((&saga["status"], &stuck["step"]), (&json!("stuck"), &json!("authorize_payment")), "{saga}");
    assert_eq!(stuck["direction"], "undo");
    assert_eq!(stuck["lastError"], "the card provider is not available", "{stuck}");
    assert!(stuck["nextAction"].as_str().is_some_and(|next| next.contains("/retry")), "{stuck}");
    suite
        .until("it to be told and counted", async |suite| {
            let told = suite.get("order", &format!("/orders/{}", order.id)).await;
            let metrics = format!("{}/metrics", suite.url("orchestrator"));
            let metrics = suite.client.get(metrics).send().await.expect("an answer").text().await;
            types(&told).contains(&"saga.stuck.v1")
                && metrics.is_ok_and(|text| {
                    text.lines().any(|line| line.starts_with("amends_sagas_stuck") && line.ends_with(" 1"))
                })
        })
        .await;

    let url = format!("{}/sagas/{}/retry", suite.url("orchestrator"), order.id);
    let bad =
        suite.client.post(&url).json(&json!({"by": " ", "reason": "x"})).send().await.expect("an answer");
    assert_eq!(bad.status(), StatusCode::UNPROCESSABLE_ENTITY);
    std::fs::remove_file(&outage).expect("removed");
    let retry = json!({"by": "ada", "reason": "the provider is back"});
    let answer = suite.client.post(&url).json(&retry).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(suite.settled(order).await["status"], "rejected");
    let saga = suite.saga(order).await;
    let log = saga["log"].as_array().expect("a log");
    let by = log.iter().find(|entry| entry["input"]["input"] == "retry").expect("the retry is in the log");
    assert_eq!((&by["input"]["by"], &by["input"]["reason"]), (&retry["by"], &retry["reason"]));
    let again = suite.client.post(&url).json(&retry).send().await.expect("an answer");
    assert_eq!(again.status(), StatusCode::CONFLICT, "it has ended");
    suite.comes_to_rest().await;
}
