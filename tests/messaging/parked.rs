//! Parked messages in the shop: an operator's mend completes a saga, and an event of old changes nothing. What parks a
//! message, and all that an operator can do about it, is proven in `shared/tests`.

use futures::future::join_all;
use serde_json::json;
use uuid::Uuid;

use crate::harness::parked::{message, text};
use crate::harness::{Setup, Suite, order};

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_key_is_mended_and_replayed_and_its_saga_completes() {
    let mut suite = Suite::start().await;
    // Without payment the saga can't reach shipping, so that a bad command comes before the real one.
    suite.kill9("payment");
    let placed = suite.place(&order()).await;
    suite.step_is(placed, "authorize_payment", "asked").await;
    let key = placed.id.to_string();
    let saga = suite.get("orchestrator", &format!("/sagas/{key}")).await;
    let saga: Uuid = saga["id"].as_str().and_then(|id| id.parse().ok()).expect("the saga's id");
    let mut command = message("shipping.book_shipment.v1", &key, saga, json!({"orderId": key}));
    command["metadata"] = json!({"step": "book_shipment", "direction": "do"});
    suite.produce("shipping.commands", &key, command.to_string().as_bytes()).await;
    suite.parked_messages("shipping", &key, 1).await;
    suite.launch("payment");
    let parked = suite.parked_messages("shipping", &key, 2).await;
    suite.confirmed(&order()).await;
    let reason = text(&parked[0]["reason"]);
    assert!(reason.starts_with("the data is not a shipping.book_shipment.v1"), "{reason}");
    assert_eq!(parked[1]["reason"], "an earlier message of this key is parked");

    let mut mended = command.clone();
    mended["data"] = json!({
        "orderId": key, "items": order()["items"], "address": order()["shippingAddress"],
    });
    let (status, answer) = suite.edit("shipping", &key, &parked[0]["id"], &mended.to_string()).await;
    assert_eq!((status, &answer["left"]), (200, &json!(2)), "{answer}");
    let (status, answer) = suite.retry("shipping", &key).await;
    assert_eq!((status, &answer["replayed"]), (200, &json!(2)), "{answer}");
    assert_eq!(suite.settled(placed).await["status"], "confirmed");
    suite.comes_to_rest().await;
}

/// A failure that may pass and never does, here that of a table that is gone for one order alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_never_passes_holds_up_its_key_and_in_the_end_nothing_else() {
    let patience = vec![("CONSUMER_PATIENCE", "5s".to_owned())];
    let suite = Suite::with(Setup { settings: patience, ..Setup::default() }).await;
    let fails = "create function fails() returns trigger language plpgsql as $$ begin
            raise exception 'not now' using errcode = 'undefined_table'; end $$;
        create trigger fails before insert on reservation for each row when (new.items::text like '%7%')
            execute function fails()";
    suite.execute("inventory", fails).await;
    let mut seven = order();
    seven["items"][0]["quantity"] = json!(7);
    let held = suite.place(&seven).await;
    // These share its partition, or its batch.
    let body = order();
    let others = join_all((0..12).map(|_| suite.place(&body))).await;
    let key = held.id.to_string();
    let parked = suite.first_parked("inventory", &key).await;
    assert!(text(&parked["reason"]).contains("not now"), "{parked}");
    for other in others {
        assert_eq!(suite.settled(other).await["status"], "confirmed");
    }
    suite.execute("inventory", "drop trigger fails on reservation").await;
    let (status, answer) = suite.retry("inventory", &key).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(suite.settled(held).await["status"], "confirmed");
    suite.comes_to_rest().await;
}

/// Shipping's database was set back to before the booking, and the confirmation is read first.
#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_that_comes_before_its_booking_is_kept() {
    let patience = vec![("CONSUMER_PATIENCE", "3s".to_owned())];
    let suite = Suite::with(Setup { settings: patience, ..Setup::default() }).await;
    let order = suite.confirmed(&order()).await;
    suite.comes_to_rest().await;
    suite.execute("shipping", "create table kept as select * from shipment; delete from shipment").await;
    let data = json!({"orderId": order.id, "total": {"amount": 4900, "currency": "EUR"}});
    let key = order.id.to_string();
    let again = message("order.confirmed.v1", &key, order.id, data);
    suite.produce("order.events", &key, again.to_string().as_bytes()).await;
    let parked = suite.first_parked("shipping", &key).await;
    assert!(text(&parked["reason"]).contains("is not booked yet"), "{parked}");

    let booked = "insert into shipment select * from kept;
                  update shipment set released_at = null, released_by = null, correlation_id = null, due_at = null;
                  drop table kept";
    suite.execute("shipping", booked).await;
    let (status, answer) = suite.retry("shipping", &key).await;
    assert_eq!(status, 200, "{answer}");
    let released = "select count(*) from shipment where released_at is not null and due_at is not null";
    assert_eq!(suite.number("shipping", released).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_event_changes_nothing() {
    let suite = Suite::start().await;
    suite.caught_up("order").await;
    let before = suite.get("order", "/products").await;
    let mut stale = message(
        "product.updated.v1",
        "lamp",
        shared::envelope::new_id(),
        json!({"sku": "lamp", "name": "a lamp of old", "price": {"amount": 1, "currency": "EUR"}}),
    );
    stale["sequence"] = json!(0);
    suite.produce("inventory.events", "lamp", stale.to_string().as_bytes()).await;
    suite.caught_up("order").await;
    assert_eq!(suite.get("order", "/products").await, before);
    suite.comes_to_rest().await;
}
