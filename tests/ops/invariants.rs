//! The nine invariants of the audit, which compare services with each other, with the topics, and with the order of events.

use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use serde_json::{Value, json};

use crate::harness::{Suite, order};

/// Changes that break an invariant: its number, the service whose database is changed, the change, the change back, and a
/// part of the finding. There is one confirmed order and one rejected order.
const BREAKS: [(usize, &str, &str, &str, &str); 15] = [
    (
        1,
        "order",
        "update orders set total_amount = total_amount + 1 where status = 'confirmed'",
        "update orders set total_amount = total_amount - 1 where status = 'confirmed'",
        "captured less 0.00 refunded is not",
    ),
    (
        2,
        "order",
        "update orders set items = replace(items::text, '\"lamp\"', '\"mug\"')::json where status = 'confirmed'",
        "update orders set items = replace(items::text, '\"mug\"', '\"lamp\"')::json where status = 'confirmed'",
        "pieces of `lamp` were shipped",
    ),
    (
        3,
        "payment",
        "update payment set status = 'refunded' where status = 'captured'",
        "update payment set status = 'captured' where status = 'refunded'",
        "its payment is refunded",
    ),
    (
        3,
        "inventory",
        "update reservation set status = 'released' where status = 'committed'",
        "update reservation set status = 'committed' where status = 'released'",
        "its reservation is released",
    ),
    (
        3,
        "shipping",
        "update shipment set status = 'cancelled', due_at = null",
        "update shipment set status = 'booked', due_at = now() + interval '1 hour'",
        "its shipment is cancelled",
    ),
    (
        3,
        "notification",
        "update notification set order_id = gen_random_uuid()",
        "update notification set order_id = substring(text from '[0-9a-f]{8}-[0-9a-f-]{27}')::uuid",
        "there is no such order, but notices",
    ),
    (
        3,
        "orchestrator",
        "update saga set definition = 'lost' where status = 'completed'",
        "update saga set definition = 'place_order' where definition = 'lost'",
        "no saga has placed it",
    ),
    (
        4,
        "order",
        "update orders set status = 'pending', created_at = now() - interval '1 hour' where status = 'rejected'",
        "update orders set status = 'rejected' where status = 'pending'",
        "is under way for too long",
    ),
    (
        4,
        "shipping",
        "create table kept as select * from shipment;
         update shipment set released_at = null, released_by = null, correlation_id = null, due_at = null,
                             updated_at = now() - interval '1 hour' where status = 'booked'",
        "update shipment s set released_at = kept.released_at, released_by = kept.released_by,
                               correlation_id = kept.correlation_id, due_at = kept.due_at
         from kept where s.order_id = kept.order_id;
         drop table kept",
        "is under way for too long",
    ),
    (
        4,
        "orchestrator",
        "update saga set status = 'running' where status = 'compensated'",
        "update saga set status = 'compensated' where status = 'running'",
        "that time is not long past",
    ),
    (
        5,
        "payment",
        "update step_outcome set status = 'tombstoned' where step = 'capture_payment'",
        "update step_outcome set status = 'done' where step = 'capture_payment'",
        "by a step on record",
    ),
    (
        7,
        "payment",
        "create table kept as select * from outbox; create table kept_receipt as select * from outbox_receipt;
         delete from outbox where topic = 'payment.events'; delete from outbox_receipt where topic = 'payment.events'",
        "truncate outbox, outbox_receipt; insert into outbox select * from kept;
         insert into outbox_receipt select * from kept_receipt; drop table kept, kept_receipt",
        "were never committed",
    ),
    (
        7,
        "payment",
        "insert into outbox_receipt values (date_trunc('minute', now()), 'payment.events', 1, 42)",
        "delete from outbox_receipt where positions_xor = 42",
        "are missing",
    ),
    (
        8,
        "order",
        "insert into idempotency_key (key, request_hash, order_id, answer)
         values ('one', '', gen_random_uuid(), '{\"id\": \"none\"}')",
        "delete from idempotency_key",
        "is that of an existing order",
    ),
    (
        9,
        "orchestrator",
        "update saga_log set decisions = replace(decisions::text, 'authorize_payment', 'capture_payment')::json
         where decisions::text like '%undo%'",
        "update saga_log set decisions = replace(decisions::text, 'capture_payment', 'authorize_payment')::json
         where decisions::text like '%undo%'",
        "are never undone",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_invariant_holds_until_it_is_broken() {
    let suite = Suite::start().await;
    let confirmed = suite.confirmed(&order()).await;
    let mut refused = order();
    refused["items"][0]["sku"] = json!("poster");
    refused["items"][0]["quantity"] = json!(4);
    let refused = suite.place(&refused).await;
    assert_eq!(suite.settled(refused).await["status"], "rejected");
    suite.released(confirmed).await;
    suite.comes_to_rest().await;
    for (number, service, breaks, mends, said) in BREAKS {
        suite.execute(service, breaks).await;
        let broken = suite.invariant(number).await;
        assert_eq!(broken["holds"], false, "{number}, {service}: {broken}");
        assert!(broken["findings"].to_string().contains(said), "{said}: {broken}");
        suite.execute(service, mends).await;
    }
    suite.audit().await;

    // Records that no service has written, and of one key in the wrong order.
    let copied = suite.records();
    let headers = |position: i64| {
        let record =
            copied.iter().find(|record| record.topic().ends_with("payment.events")).expect("a record");
        let mut headers = OwnedHeaders::new();
        for header in
            record.headers().expect("headers").iter().filter(|header| header.key != "ce_outboxposition")
        {
            headers = headers.insert(header);
        }
        headers.insert(Header { key: "ce_outboxposition", value: Some(&position.to_string()) })
    };
    let topic = suite.kafka().name("payment.events");
    for position in [1_000_001, 1_000_000] {
        suite.send(&topic, confirmed.id.to_string().as_bytes(), b"{}", headers(position)).await;
    }
    let foreign = suite.invariant(7).await;
    assert!(foreign["findings"].to_string().contains("2 messages were never committed"), "{foreign}");
    let disorder = suite.invariant(6).await;
    assert!(disorder["violations"].to_string().contains(&confirmed.id.to_string()), "{disorder}");
}

/// The card provider never answers for one order. The others are judged all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_does_not_end_is_named_and_left_out_of_the_sums() {
    let suite = Suite::start().await;
    let confirmed = suite.confirmed(&order()).await;
    suite.released(confirmed).await;
    suite.comes_to_rest().await;
    let mut silent = order();
    silent["paymentToken"] = json!("tok_unavailable");
    let silent = suite.place(&silent).await;
    suite.step_is(silent, "reserve_stock", "done").await;
    let asked = "select count(*) from step_outcome where status = 'pending'";
    suite.until("the provider to be silent", async |suite| suite.number("payment", asked).await == 1).await;
    for number in 1..=3 {
        suite
            .until("the others to be judged", async |suite| suite.invariant(number).await["holds"] == true)
            .await;
        let named = suite.invariant(number).await["findings"].to_string();
        assert!(named.contains(&silent.id.to_string()), "{number}: {named}");
    }
    assert_eq!(suite.invariant(4).await["holds"], Value::Null, "it may still end in time");
    // Once its saga is stuck, it is late with a reason.
    suite.execute("orchestrator", "update saga set status = 'stuck' where status = 'running'").await;
    suite.audit().await;

    let change = "update orders set total_amount = total_amount + 1 where status = 'confirmed'";
    suite.execute("order", change).await;
    let broken = suite.invariant(1).await;
    assert_eq!(broken["holds"], false, "{broken}");
    assert!(broken["findings"].to_string().contains("captured less 0.00 refunded is not"), "{broken}");
    suite.execute("order", &change.replace('+', "-")).await;
    let captured = "update payment set status = 'captured' where status = 'authorizing'";
    suite.execute("payment", captured).await;
    let orphan = suite.invariant(1).await;
    assert_eq!(orphan["holds"], false, "a payment that its ledger does not tell: {orphan}");
}
