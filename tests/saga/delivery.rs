//! The life of a parcel: it is released by its order's confirmation, picked up and delivered, or stopped in time.

use std::collections::BTreeMap;

use local::Signal;
use rdkafka::message::Message as _;
use schemas::common::{Address, Line, Money};
use schemas::order::OrderConfirmed;
use schemas::shipping::{BookShipment, StopShipment};
use serde_json::{Value, json};
use shared::envelope::{Direction, new_id};
use uuid::Uuid;

use crate::harness::kafka::header;
use crate::harness::steps::{Asked, ask, event};
use crate::harness::{Order, Setup, Suite, order};

/// The time from a parcel's release to its pick-up, and the time from there to its delivery.
fn pace(dispatch_after: &str, deliver_after: &str) -> Vec<(&'static str, String)> {
    vec![
        ("SHIPPING_DISPATCH_AFTER", dispatch_after.to_owned()),
        ("SHIPPING_DELIVER_AFTER", deliver_after.to_owned()),
    ]
}

async fn suite(settings: Vec<(&'static str, String)>) -> Suite {
    Suite::with(Setup { settings, ..Setup::default() }).await
}

async fn shipping(settings: Vec<(&'static str, String)>) -> Suite {
    Suite::with(Setup { only: Some("shipping"), settings, ..Setup::default() }).await
}

async fn becomes(suite: &Suite, order: Order, status: &str) -> Value {
    let path = format!("/orders/{}", order.id);
    suite.until(status, async |suite| suite.get("order", &path).await["status"] == status).await;
    suite.get("order", &path).await
}

async fn stands(suite: &Suite, order: Uuid, status: &str) {
    let count = format!("select count(*) from shipment where order_id = '{order}' and status = '{status}'");
    suite.until(status, async |suite| suite.number("shipping", &count).await == 1).await;
}

/// Moves the released parcels an hour back in time.
async fn an_hour_passes(suite: &Suite) {
    let passes = "update shipment set released_at = released_at - interval '1 hour',
                                      due_at = due_at - interval '1 hour'";
    suite.execute("shipping", passes).await;
}

/// Returns the events of shipping, by order.
async fn stories(suite: &Suite) -> BTreeMap<String, String> {
    let told =
        "select key || ' ' || string_agg(split_part(convert_from(body, 'UTF8')::json ->> 'type', '.', 2), ' '
                                                order by position)
                from outbox where topic = 'shipping.events' group by key";
    let told = suite.texts("shipping", told).await;
    told.iter().filter_map(|row| row.split_once(' ')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// Returns the types of the timeline's events about the order and its parcel.
fn way(order: &Value) -> Vec<&str> {
    let entries = order["timeline"].as_array().expect("a timeline").iter();
    let types = entries.map(|entry| entry["type"].as_str().expect("a type"));
    types.filter(|kind| kind.starts_with("order.") || kind.starts_with("shipping.")).collect()
}

const WAY: [&str; 5] = [
    "order.created.v1",
    "shipping.booked.v1",
    "order.confirmed.v1",
    "shipping.dispatched.v1",
    "shipping.delivered.v1",
];

fn book(order: Uuid) -> Asked {
    let items = vec![Line { sku: "lamp".to_owned(), quantity: 1 }];
    let address = Address { postal_code: "89073".to_owned(), ..Address::default() };
    ask(order, "book_shipment", Direction::Do, &BookShipment { order_id: order, address, items })
}

fn confirm(order: Uuid) -> Asked {
    let total = Money { amount: 4900, currency: "EUR".to_owned() };
    event(order, &OrderConfirmed { order_id: order, total })
}

fn stop(order: Uuid, step: &str) -> Asked {
    let command = StopShipment { order_id: order };
    ask(order, step, Direction::Do, &command)
}

async fn booked(suite: &Suite, orders: &[Uuid]) {
    let bookings: Vec<Asked> = orders.iter().map(|order| book(*order)).collect();
    suite.told("shipping", &bookings).await;
    for order in orders {
        stands(suite, *order, "booked").await;
    }
}

async fn released(suite: &Suite, orders: &[Uuid]) {
    let confirmations: Vec<Asked> = orders.iter().map(|order| confirm(*order)).collect();
    suite.send_together(&confirmations).await;
    for order in orders {
        let count =
            format!("select count(*) from shipment where order_id = '{order}' and released_at is not null");
        suite.until("the release", async |suite| suite.number("shipping", &count).await == 1).await;
    }
}

/// Returns the answers to a stop: outcome and result.
async fn stopped(suite: &Suite, order: Uuid, step: &str) -> (Value, Value) {
    let answer = async |suite: &Suite| {
        let answers = suite.answers("shipping", order).await;
        answers.into_iter().rfind(|answer| answer["step"] == step)
    };
    suite.until("the stop to be answered", async |suite| answer(suite).await.is_some()).await;
    let answer = answer(suite).await.expect("an answer");
    let mut result = answer["result"].clone();
    assert_eq!(result["orderId"].take(), json!(order));
    result.as_object_mut().expect("an object").remove("orderId");
    (answer["outcome"].clone(), result)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_confirmed_shipped_and_delivered_in_one_story() {
    let suite = suite(pace("1s", "1s")).await;
    let placed = suite.place(&order()).await;
    let delivered = becomes(&suite, placed, "delivered").await;
    assert_eq!(way(&delivered), WAY);
    let shipment = suite.get("shipping", &format!("/shipments/{}", placed.id)).await;
    assert_eq!(shipment["status"], "delivered");
    let [from, to] = ["dispatchedAt", "deliveredAt"].map(|at| shipment[at].as_str().expect("a time"));
    assert!(from < to, "picked up at {from}, delivered at {to}");
    suite.comes_to_rest().await;

    // Cause, correlation and trace are those of the order.
    let records = suite.records();
    let body = |record: &rdkafka::message::OwnedMessage| -> Value {
        serde_json::from_slice(record.payload().unwrap_or_default()).expect("an envelope")
    };
    let found = |kind: &str| {
        let record = records.iter().find(|record| header(record, "ce_type").as_deref() == Some(kind));
        record.unwrap_or_else(|| panic!("no {kind}"))
    };
    let trace = |kind: &str| header(found(kind), "traceparent").map(|parent| parent[3..35].to_owned());
    let confirmed = body(found("order.confirmed.v1"));
    for kind in ["shipping.dispatched.v1", "shipping.delivered.v1"] {
        let told = body(found(kind));
        assert_eq!(told["correlationId"], confirmed["correlationId"]);
        assert_eq!(told["causationId"], confirmed["id"]);
        assert_eq!(trace(kind), trace("order.created.v1"));
    }

    // All events come again, in a sequence that never happened: the pick-up behind the delivery.
    suite.caught_up("order").await;
    let before = suite.get("order", &format!("/orders/{}", placed.id)).await;
    suite.send_again(&records).await;
    for service in ["order", "shipping"] {
        suite.caught_up(service).await;
    }
    assert_eq!(suite.get("order", &format!("/orders/{}", placed.id)).await, before);
    suite.comes_to_rest().await;
    assert_eq!(suite.records().len(), 2 * records.len(), "a duplicate was answered with new messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaves_before_its_order_is_confirmed() {
    let mut settings = pace("0ms", "1h");
    settings.push(("PAYMENT_PROVIDER_LATENCY", "1500ms".to_owned()));
    let mut suite = suite(settings).await;
    let first = suite.place(&order()).await;
    becomes(&suite, first, "shipped").await;

    // The shipment is booked, and the capture is on its way when payment freezes.
    let second = suite.place(&order()).await;
    stands(&suite, second.id, "booked").await;
    suite.process("payment").signal(Signal::STOP);
    let paid = format!("select status from payment where order_id = '{}'", second.id);
    assert_eq!(suite.texts("payment", &paid).await, ["authorized"], "payment froze too late");
    // The first parcel is delivered, so the carrier was called since then.
    an_hour_passes(&suite).await;
    becomes(&suite, first, "delivered").await;
    let waits = "select count(*) from shipment where status = 'booked' and released_at is null";
    assert_eq!(suite.number("shipping", waits).await, 1);
    assert_eq!(suite.get("order", &format!("/orders/{}", second.id)).await["status"], "pending");

    suite.process("payment").signal(Signal::CONT);
    becomes(&suite, second, "shipped").await;
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shipping_killed_between_pick_up_and_delivery_goes_on_and_tells_each_once() {
    let mut suite = suite(pace("0ms", "1h")).await;
    let placed = suite.place(&order()).await;
    let shipped = becomes(&suite, placed, "shipped").await;
    assert_eq!((way(&shipped), &shipped["version"]), (WAY[..4].to_vec(), &json!(3)));
    let shipment = suite.get("shipping", &format!("/shipments/{}", placed.id)).await;
    assert_eq!((&shipment["status"], &shipment["deliveredAt"]), (&json!("dispatched"), &json!(null)));
    suite.kill9("shipping");
    an_hour_passes(&suite).await;
    suite.launch("shipping");
    let delivered = becomes(&suite, placed, "delivered").await;
    assert_eq!((way(&delivered), &delivered["version"]), (WAY.to_vec(), &json!(4)));
    suite.comes_to_rest().await;
    assert_eq!(stories(&suite).await[&placed.id.to_string()], "booked dispatched delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_tell_each_move_once() {
    const ORDERS: usize = 1200;
    let settings = pace("200ms", "200ms");
    let suite = Suite::with(Setup { only: Some("shipping"), twins: 1, settings, ..Setup::default() }).await;
    let orders: Vec<Uuid> = (0..ORDERS).map(|_| new_id()).collect();
    let bookings: Vec<Asked> = orders.iter().map(|order| book(*order)).collect();
    suite.told("shipping", &bookings).await;
    let all = async |status: &str| {
        let count = format!("select count(*) from shipment where status = '{status}'");
        suite.until(status, async |suite| suite.number("shipping", &count).await == ORDERS as i64).await;
    };
    all("booked").await;
    let confirmations: Vec<Asked> = orders.iter().map(|order| confirm(*order)).collect();
    suite.send_together(&confirmations).await;
    all("delivered").await;
    let stories = stories(&suite).await;
    assert_eq!(stories.len(), ORDERS);
    for (order, story) in stories {
        assert_eq!(story, "booked dispatched delivered", "{order}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parcel_is_stopped_unless_it_is_on_its_way() {
    let suite = shipping(pace("1h", "1h")).await;
    let [waiting, ready, gone, there] = [(); 4].map(|()| new_id());
    booked(&suite, &[waiting, ready, gone, there]).await;
    let at_home = (json!("done"), json!({"delivered": false}));
    let arrived = (json!("done"), json!({"delivered": true}));
    let too_late = (json!("refused"), json!({"code": "in_transit"}));

    released(&suite, &[there]).await;
    an_hour_passes(&suite).await;
    stands(&suite, there, "dispatched").await;
    released(&suite, &[gone]).await;
    an_hour_passes(&suite).await;
    stands(&suite, there, "delivered").await;
    stands(&suite, gone, "dispatched").await;
    released(&suite, &[ready]).await;

    let stops = [waiting, ready, gone, there].map(|order| stop(order, "stop"));
    suite.told("shipping", &stops).await;
    assert_eq!(stopped(&suite, waiting, "stop").await, at_home);
    assert_eq!(stopped(&suite, ready, "stop").await, at_home);
    assert_eq!(stopped(&suite, gone, "stop").await, too_late);
    assert_eq!(stopped(&suite, there, "stop").await, arrived);

    // A confirmation that comes after the stop releases nothing. The other one shows that it was handled.
    let last = new_id();
    booked(&suite, &[last]).await;
    suite.send_together(&[confirm(waiting), confirm(last)]).await;
    let released =
        format!("select count(*) from shipment where order_id = '{last}' and released_at is not null");
    suite.until("the release", async |suite| suite.number("shipping", &released).await == 1).await;
    an_hour_passes(&suite).await;
    stands(&suite, last, "dispatched").await;
    stands(&suite, gone, "delivered").await;

    // A repeated stop gets its first answer; another stop gets the present state.
    suite.told("shipping", &[stop(gone, "stop"), stop(gone, "stop_again"), stop(ready, "stop_again")]).await;
    assert_eq!(stopped(&suite, gone, "stop_again").await, arrived);
    assert_eq!(stopped(&suite, ready, "stop_again").await, at_home);
    assert_eq!(stopped(&suite, gone, "stop").await, too_late);
    let stories = stories(&suite).await;
    for (order, story) in [
        (waiting, "booked stopped"),
        (ready, "booked stopped stopped"),
        (gone, "booked dispatched stop_refused delivered step_answered stopped"),
        (there, "booked dispatched delivered stopped"),
    ] {
        assert_eq!(stories[&order.to_string()], story);
    }

    let unknown = new_id();
    suite.told("shipping", &[stop(unknown, "stop")]).await;
    let parked = suite.parked_messages("shipping", &unknown.to_string(), 1).await;
    assert_eq!(parked[0]["reason"], format!("the order {unknown} has no shipment to stop"));
}

/// The carrier is being called about a parcel that is due, and may have picked it up. A stop comes too late, and the
/// carrier's answer decides.
#[tokio::test(flavor = "multi_thread")]
async fn a_parcel_whose_time_has_come_is_not_stopped() {
    let mut settings = pace("1h", "1h");
    settings.push(("SHIPPING_CARRIER_LATENCY", "4s".to_owned()));
    let suite = shipping(settings).await;
    let order = new_id();
    booked(&suite, &[order]).await;
    released(&suite, &[order]).await;
    an_hour_passes(&suite).await;
    let asked = format!("select count(*) from shipment where order_id = '{order}' and due_at > now()");
    suite.until("the carrier to be asked", async |suite| suite.number("shipping", &asked).await == 1).await;
    suite.told("shipping", &[stop(order, "stop")]).await;
    assert_eq!(stopped(&suite, order, "stop").await, (json!("refused"), json!({"code": "in_transit"})));
    stands(&suite, order, "dispatched").await;
    assert_eq!(stories(&suite).await[&order.to_string()], "booked stop_refused dispatched");
}
