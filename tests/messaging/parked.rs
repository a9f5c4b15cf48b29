//! Messages that can't be handled: each has its path, its key waits in order, and an operator sets it going again.

use futures::future::join;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::parked::{message, text};
use crate::harness::{Suite, order};

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

    assert_eq!(parked[0]["body"], command.to_string());
    let reason = text(&parked[0]["reason"]);
    assert!(reason.starts_with("the data is not a shipping.book_shipment.v1"), "{reason}");
    assert_eq!(parked[1]["reason"], "an earlier message of this key is parked");
    assert_eq!(parked[1]["type"], "shipping.book_shipment.v1");
    let listed = suite.get("shipping", "/parked").await;
    assert_eq!((&listed["keys"][0]["key"], &listed["keys"][0]["count"]), (&json!(key), &json!(2)));
    assert_eq!(listed["keys"][0]["reason"], reason);
    suite.until("both copies", async |suite| suite.copies("shipping", &key).len() == 2).await;
    let copies = suite.copies("shipping", &key);
    assert_eq!(
        (&copies[0]["type"], &copies[0]["causationId"]),
        (&json!("messaging.parked.v1"), &command["id"])
    );
    let copy = &copies[0]["data"];
    assert_eq!((&copy["reason"], &copy["body"]), (&json!(reason), &json!(command.to_string())));
    assert_eq!((&copy["topic"], &copy["offset"]), (&json!("shipping.commands"), &parked[0]["offset"]));
    suite
        .until("the alarm", async |suite| suite.metric("shipping", "amends_parked_keys").await == Some(1.0))
        .await;

    let (status, problem) = suite.retry("shipping", &key).await;
    assert_eq!((status, &problem["type"]), (422, &json!("/problems/replay-failed")), "{problem}");
    let parked = suite.parked_messages("shipping", &key, 2).await;
    assert_eq!((&parked[0]["tries"], &parked[1]["tries"]), (&json!(1), &json!(0)), "it stops at the first");

    let id = &parked[0]["id"];
    let mut wrong = command.clone();
    (wrong["id"], wrong["subject"]) = (json!(Uuid::nil()), json!("another"));
    let (status, problem) = suite.edit("shipping", &key, id, &wrong.to_string()).await;
    let pointers = [&problem["errors"][0]["pointer"], &problem["errors"][1]["pointer"]];
    assert_eq!((status, pointers), (422, [&json!("/id"), &json!("/subject")]), "{problem}");
    assert_eq!(suite.edit("shipping", &key, id, "{}").await.0, 422, "that is no envelope");
    let mut mended = command.clone();
    mended["data"] = json!({
        "orderId": key, "items": order()["items"], "address": order()["shippingAddress"],
    });
    let (status, answer) = suite.edit("shipping", &key, id, &mended.to_string()).await;
    assert_eq!((status, &answer["left"]), (200, &json!(2)), "{answer}");
    let before = "select convert_from(body, 'UTF8') from parked_edit where edited_by = 'ada'";
    assert_eq!(suite.texts("shipping", before).await, [command.to_string()], "the old body is on record");

    // Two operators at once: each message is replayed once, and one of them may find nothing left to do.
    let (one, other) = join(suite.retry("shipping", &key), suite.retry("shipping", &key)).await;
    let replayed = |(status, answer): &(u16, Value)| match status {
        200 => answer["replayed"].as_u64().expect("a number"),
        409 => 0,
        _ => panic!("{status}: {answer}"),
    };
    assert_eq!(replayed(&one) + replayed(&other), 2);
    assert_eq!(suite.settled(placed).await["status"], "confirmed");
    suite.comes_to_rest().await;

    let (status, problem) = suite.retry("shipping", &key).await;
    assert_eq!((status, &problem["type"]), (409, &json!("/problems/not-parked")));
    assert_eq!(suite.skip("shipping", &key, id).await.0, 409);
    assert_eq!(suite.edit("shipping", &key, id, &mended.to_string()).await.0, 409);
    assert_eq!(suite.skip("shipping", &key, &json!(4711)).await.0, 404);
    assert_eq!(suite.retry("shipping", "another").await.0, 404);
    suite
        .until("the alarm to end", async |suite| {
            suite.metric("shipping", "amends_parked_keys").await == Some(0.0)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_keeps_its_order_while_it_is_replayed_and_more_arrives() {
    let suite = Suite::start().await;
    let placed = suite.confirmed(&order()).await;
    suite.comes_to_rest().await;
    suite.caught_up("order").await;
    let key = placed.id.to_string();
    let mut sent = Vec::new();
    let mut event = async |kind: &str| {
        let event = message(kind, &key, placed.id, json!({}));
        suite.produce("payment.events", &key, event.to_string().as_bytes()).await;
        sent.push(text(&event["id"]).to_owned());
    };
    event("payment.authorized.v9").await;
    for _ in 0..10 {
        event("payment.authorized.v1").await;
    }
    let parked = suite.parked_messages("order", &key, 11).await;
    assert_eq!(suite.skip("order", &key, &parked[0]["id"]).await.0, 200);

    // The first message of the replay is held up in its handler, and with it the key's lock.
    let mut gate = suite.connect("order").await;
    let hold = "begin; lock table order_timeline in access exclusive mode";
    sqlx::raw_sql(hold).execute(&mut gate).await.expect("locked");
    let waiting = |kind: &str| {
        format!(
            "select count(*) from pg_locks l join pg_database d on d.oid = l.database
             where d.datname = current_database() and not granted and locktype = '{kind}'"
        )
    };
    let meanwhile = async {
        suite
            .until("the replay to be under way", async |suite| {
                suite.number("order", &waiting("relation")).await == 1
            })
            .await;
        for _ in 0..5 {
            event("payment.authorized.v1").await;
        }
        suite
            .until("the consumer to wait for the key", async |suite| {
                suite.number("order", &waiting("advisory")).await == 1
            })
            .await;
        sqlx::raw_sql("commit").execute(&mut gate).await.expect("released");
    };
    let ((status, answer), ()) = join(suite.retry("order", &key), meanwhile).await;
    assert_eq!((status, &answer["left"]), (200, &json!(0)), "{answer}");
    let told = format!(
        "select message_id::text from order_timeline where order_id = '{key}' and at = '2026-11-21T10:00:00Z'
         order by position"
    );
    suite.until("all to be told", async |suite| suite.texts("order", &told).await.len() == 15).await;
    assert_eq!(suite.texts("order", &told).await, sent[1..], "all but the skipped one, in the order sent");
    suite.comes_to_rest().await;
}

/// The timeline is its own inbox: its table tells a repetition, but not what an operator has decided.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_again_is_parked_once_and_stays_skipped() {
    let suite = Suite::start().await;
    let placed = suite.confirmed(&order()).await;
    suite.comes_to_rest().await;
    let key = placed.id.to_string();
    let send = async |event: &Value| {
        suite.produce("payment.events", &key, event.to_string().as_bytes()).await;
    };
    let poison = message("payment.authorized.v9", &key, placed.id, json!({}));
    let behind = message("payment.authorized.v1", &key, placed.id, json!({}));
    let last = message("payment.authorized.v1", &key, placed.id, json!({}));
    for event in [&poison, &behind, &behind, &poison] {
        send(event).await;
    }
    suite.caught_up("order").await;
    let parked = suite.parked_messages("order", &key, 2).await;
    for message in &parked {
        assert_eq!(suite.skip("order", &key, &message["id"]).await.0, 200);
    }
    for event in [&behind, &last] {
        send(event).await;
    }
    let told = |event: &Value| {
        format!("select count(*) from order_timeline where message_id = '{}'", text(&event["id"]))
    };
    suite
        .until("the last one to be told", async |suite| suite.number("order", &told(&last)).await == 1)
        .await;
    assert_eq!(suite.number("order", &told(&behind)).await, 0, "it was skipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_read_is_parked_under_its_own_key_and_can_be_written_anew() {
    let suite = Suite::start().await;
    suite.produce("payment.events", "", &[0xff, 0x00, 0x01]).await;
    let placed = suite.confirmed(&order()).await;
    suite
        .until("it to be parked", async |suite| {
            suite.number("order", "select count(*) from parked").await == 1
        })
        .await;
    let listed = suite.get("order", "/parked").await;
    let key = listed["keys"][0]["key"].as_str().expect("a key").to_owned();
    assert!(key.starts_with("payment.events/"), "{key}");
    let parked = suite.parked_messages("order", &key, 1).await;
    let reason = text(&parked[0]["reason"]);
    assert!(reason.starts_with("the value is not an envelope"), "{reason}");
    assert_eq!((&parked[0]["body"], &parked[0]["encoding"]), (&json!("/wAB"), &json!("base64")));
    suite.until("the copy", async |suite| suite.copies("order", &key).len() == 1).await;
    assert_eq!(suite.copies("order", &key)[0]["data"]["body"], "/wAB");
    assert_eq!(suite.retry("order", &key).await.0, 422);

    // It had no key, so what it was about is for the operator to say; its id must be one that had no effect yet.
    let about = placed.id.to_string();
    let mut written = message("payment.authorized.v1", &about, placed.id, json!({}));
    let used = suite.texts("order", "select message_id::text from inbox limit 1").await;
    let new = std::mem::replace(&mut written["id"], json!(used[0]));
    let (status, problem) = suite.edit("order", &key, &parked[0]["id"], &written.to_string()).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/id")), "{problem}");
    written["id"] = new;
    assert_eq!(suite.edit("order", &key, &parked[0]["id"], &written.to_string()).await.0, 200);
    let (status, answer) = suite.retry("order", &key).await;
    assert_eq!((status, &answer["replayed"]), (200, &json!(1)), "{answer}");
    let told =
        format!("select message_id::text from order_timeline where message_id = '{}'", text(&written["id"]));
    assert_eq!(suite.texts("order", &told).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_type_an_unknown_version_and_a_large_record_are_parked() {
    let suite = Suite::start().await;
    let id = shared::envelope::new_id();
    let produce = async |topic: &str, key: &str, kind: &str, data: Value| {
        suite.produce(topic, key, message(kind, key, id, data).to_string().as_bytes()).await;
    };
    produce("payment.commands", "unknown", "payment.frobnicate.v1", json!({})).await;
    produce("payment.commands", "newer", "payment.void_payment.v9", json!({})).await;
    let large = "x".repeat(100_000);
    produce("payment.commands", "large", "payment.void_payment.v1", json!({"note": large})).await;
    for (key, reason) in [
        ("unknown", "there is no handler for payment.frobnicate.v1 here"),
        ("newer", "version 9 of payment.void_payment is not understood here; this release understands v1"),
    ] {
        let parked = suite.parked_messages("payment", key, 1).await;
        assert_eq!(parked[0]["reason"], reason);
    }
    let parked = suite.parked_messages("payment", "large", 1).await;
    let reason = text(&parked[0]["reason"]);
    assert!(reason.contains("more than the 65536 that a message may have"), "{reason}");
    assert!(text(&parked[0]["body"]).contains(&large), "the table keeps it");
    suite.until("the copy", async |suite| suite.copies("payment", "large").len() == 1).await;
    let copy = &suite.copies("payment", "large")[0]["data"];
    assert_eq!((&copy["bodyOmitted"], copy.get("body")), (&json!(true), None));

    // Of events only those are parked that this service would have listened to.
    produce("payment.events", "event", "payment.frobnicated.v1", json!({})).await;
    produce("payment.events", "event", "payment.captured.v9", json!({})).await;
    let parked = suite.parked_messages("order", "event", 1).await;
    assert_eq!(
        parked[0]["reason"],
        "version 9 of payment.captured is not understood here; this release understands v1"
    );
    suite.confirmed(&order()).await;
    suite.caught_up("order").await;
    assert_eq!(suite.number("order", "select count(*) from parked").await, 1);
    assert_eq!(suite.number("payment", "select count(*) from parked").await, 3);
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
    let taken = format!("select count(*) from inbox where message_id = '{}'", text(&stale["id"]));
    suite.until("it to be taken", async |suite| suite.number("order", &taken).await == 1).await;
    assert_eq!(suite.get("order", "/products").await, before);
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_too_much_for_the_database_is_halved() {
    const ORDERS: usize = 40;
    let mut suite = Suite::start().await;
    suite.kill9("notification");
    let mut placed = Vec::new();
    for _ in 0..ORDERS {
        placed.push(suite.place(&order()).await);
    }
    for order in placed {
        suite.step_is(order, "notify_customer", "asked").await;
    }
    let limit = "create function too_much() returns trigger language plpgsql as $$
                 begin
                     if (select count(*) from appended) > 3 then
                         raise exception 'out of memory' using errcode = '53200';
                     end if;
                     return null;
                 end $$;
                 create trigger too_much after insert on step_outcome referencing new table as appended
                     for each statement execute function too_much();";
    suite.execute("notification", limit).await;
    suite.launch("notification");
    suite.ready("notification").await;
    suite.comes_to_rest().await;
    let retries = suite.metric("notification", "amends_consumer_retries_total").await;
    assert!(retries.is_some_and(|retries| retries > 0.0), "no batch was ever too large: {retries:?}");
    assert_eq!(
        suite.number("notification", "select count(*) from parked").await,
        0,
        "it cost no message its place"
    );
}
