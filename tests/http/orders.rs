//! Orders when nothing fails, including orders that the business refuses.

use serde_json::{Value, json};

use crate::harness::{Order, Suite, order};

/// Returns the types of the timeline's events, in order.
fn story(order: &Value) -> Vec<String> {
    let entries = order["timeline"].as_array().expect("a timeline");
    entries.iter().map(|entry| entry["type"].as_str().expect("a type").to_owned()).collect()
}

async fn count_about(suite: &Suite, service: &str, table: &str, order: Order) -> i64 {
    suite.number(service, &format!("select count(*) from {table} where order_id = '{}'", order.id)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_confirmed_and_everybody_did_their_part() {
    let suite = Suite::start().await;
    let order = suite.confirmed(&order()).await;

    let payment = suite.get("payment", &format!("/payments/{}", order.id)).await;
    assert_eq!(payment["status"], "captured");
    assert_eq!(payment["captured"], json!({"amount": 9800, "currency": "EUR"}));
    assert_eq!(payment["authorized"]["amount"], 0);
    let kinds: Vec<_> =
        payment["entries"].as_array().expect("entries").iter().map(|entry| &entry["kind"]).collect();
    assert_eq!(kinds, ["authorize", "capture"]);

    let lamp = suite.get("inventory", "/products/lamp").await;
    assert_eq!((&lamp["onHand"], &lamp["reserved"], &lamp["shipped"]), (&json!(998), &json!(0), &json!(2)));
    let shipment = suite.get("shipping", &format!("/shipments/{}", order.id)).await;
    assert_eq!(shipment["status"], "booked");
    let tracking = shipment["trackingNumber"].as_str().expect("a tracking number");
    let told = suite.get("notification", &format!("/notifications?orderId={}", order.id)).await;
    let text = told["notifications"][0]["text"].as_str().expect("a text");
    assert!(text.contains("98.00 EUR") && text.contains(tracking), "{text}");

    let saga = suite.get("orchestrator", &format!("/sagas/{}", order.id)).await;
    assert_eq!(saga["status"], "completed");
    assert_eq!(saga["definition"], "place_order@2");
    for step in saga["steps"].as_array().expect("steps") {
        let closes = step["name"] == "reject_order" || step["name"] == "cancel_order";
        let expected = if closes { "waiting" } else { "done" };
        assert_eq!(step["status"], expected, "{step}");
    }
    suite.caught_up("order").await;
    let told = suite.get("order", &format!("/orders/{}", order.id)).await;
    let mut story = story(&told);
    assert_eq!(story[0], "order.created.v1");
    story.sort();
    assert_eq!(
        story,
        [
            "inventory.committed.v1",
            "inventory.reserved.v1",
            "notification.sent.v1",
            "order.confirmed.v1",
            "order.created.v1",
            "payment.authorized.v1",
            "payment.captured.v1",
            "saga.completed.v1",
            "shipping.booked.v1",
        ]
    );
    suite.comes_to_rest().await;
}

/// Places an order that is refused, and checks that money and stock are as before.
async fn refused(change: impl FnOnce(&mut Value), reason: &str) -> (Suite, Order, Value) {
    let suite = Suite::start().await;
    let mut body = order();
    change(&mut body);
    let order = suite.place(&body).await;
    let settled = suite.settled(order).await;
    assert_eq!(settled["status"], "rejected");
    assert_eq!(settled["reason"], reason);
    suite.comes_to_rest().await;
    let lamp = suite.get("inventory", "/products/lamp").await;
    assert_eq!((&lamp["onHand"], &lamp["reserved"], &lamp["shipped"]), (&json!(1000), &json!(0), &json!(0)));
    assert_eq!(count_about(&suite, "notification", "notification", order).await, 0);
    (suite, order, settled)
}

/// Returns the kind of each row of the payment's ledger.
async fn moves(suite: &Suite, order: Order) -> Vec<String> {
    suite
        .texts(
            "payment",
            &format!("select kind from ledger_entry where order_id = '{}' order by id", order.id),
        )
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_card_gives_the_stock_back() {
    let (suite, order, _) =
        refused(|body| body["paymentToken"] = json!("tok_chargeDeclined"), "card_declined").await;
    assert!(moves(&suite, order).await.is_empty());
    let kinds = format!("select kind from stock_entry where order_id = '{}' order by id", order.id);
    assert_eq!(suite.texts("inventory", &kinds).await, ["reserved", "released"]);
    assert_eq!(count_about(&suite, "shipping", "shipment", order).await, 0);
    let payment = suite.get("payment", &format!("/payments/{}", order.id)).await;
    assert_eq!((&payment["status"], &payment["reason"]), (&json!("declined"), &json!("card_declined")));
}

#[tokio::test(flavor = "multi_thread")]
async fn lack_of_funds_gives_the_stock_back() {
    let (suite, order, _) =
        refused(|body| body["paymentToken"] = json!("tok_insufficientFunds"), "insufficient_funds").await;
    assert!(moves(&suite, order).await.is_empty());
    assert_eq!(count_about(&suite, "shipping", "shipment", order).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn lack_of_stock_voids_the_authorization() {
    let items = json!([{"sku": "lamp", "quantity": 1}, {"sku": "poster", "quantity": 4}]);
    let (suite, order, settled) = refused(|body| body["items"] = items, "out_of_stock").await;
    assert_eq!(settled["detail"]["items"], json!([{"sku": "poster", "requested": 4, "available": 3}]));
    assert_eq!(moves(&suite, order).await, ["authorize", "void"]);
    assert_eq!(count_about(&suite, "inventory", "stock_entry", order).await, 0);
    assert_eq!(count_about(&suite, "shipping", "shipment", order).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undeliverable_address_undoes_stock_and_payment() {
    let (suite, order, _) =
        refused(|body| body["shippingAddress"]["postalCode"] = json!("00000"), "undeliverable_address").await;
    assert_eq!(moves(&suite, order).await, ["authorize", "void"]);
    let kinds = format!("select kind from stock_entry where order_id = '{}' order by id", order.id);
    assert_eq!(suite.texts("inventory", &kinds).await, ["reserved", "released"]);
    let shipment = suite.get("shipping", &format!("/shipments/{}", order.id)).await;
    assert_eq!(shipment["status"], "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_without_a_postal_code_is_good_where_there_are_none() {
    let suite = Suite::start().await;
    for (country, code) in [("HK", None), ("QA", Some("")), ("AE", Some("00000")), ("XK", Some("10000"))] {
        let mut body = order();
        body["shippingAddress"]["country"] = json!(country);
        let address = body["shippingAddress"].as_object_mut().expect("an object");
        match code {
            Some(code) => drop(address.insert("postalCode".to_owned(), json!(code))),
            None => drop(address.remove("postalCode")),
        }
        suite.confirmed(&body).await;
    }
    let mut body = order();
    body["shippingAddress"]["postalCode"] = json!("");
    let url = format!("{}/orders", suite.url("order"));
    let refused = suite.client.post(url).json(&body).send().await.expect("an answer");
    assert_eq!(refused.status(), 422);
    let problem: Value = refused.json().await.expect("JSON");
    assert_eq!(problem["errors"][0]["pointer"], "/shippingAddress/postalCode");
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_that_inventory_no_longer_has_is_named() {
    let suite = Suite::start().await;
    // The order service still offers it, because it gets only new and changed products.
    suite
        .execute(
            "inventory",
            "delete from stock_entry where sku = 'mug'; delete from product where sku = 'mug'",
        )
        .await;
    let mut body = order();
    body["items"] = json!([{"sku": "mug", "quantity": 1}, {"sku": "lamp", "quantity": 1}]);
    let order = suite.place(&body).await;
    let settled = suite.settled(order).await;
    assert_eq!((&settled["status"], &settled["reason"]), (&json!("rejected"), &json!("unknown_product")));
    assert_eq!(settled["detail"]["items"], json!(["mug"]));
    assert_eq!(moves(&suite, order).await, ["authorize", "void"]);
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_of_the_card_provider_is_asked_for_again() {
    let suite = Suite::start().await;
    let mut body = order();
    body["paymentToken"] = json!("tok_timeoutOnce");
    let order = suite.confirmed(&body).await;
    assert_eq!(moves(&suite, order).await, ["authorize", "capture"]);
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_pieces_are_sold_once() {
    let suite = Suite::start().await;
    let mut body = order();
    body["items"] = json!([{"sku": "poster", "quantity": 1}]);
    let placed = futures::future::join_all((0..10).map(|_| suite.place(&body))).await;
    let mut confirmed = 0;
    for order in placed {
        let settled = suite.settled(order).await;
        confirmed += usize::from(settled["status"] == "confirmed");
    }
    assert_eq!(confirmed, 3, "there were three posters");
    suite.comes_to_rest().await;
}
