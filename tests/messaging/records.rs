//! Outbox, relay and consumer, in cases that the suite as a whole does not show.

use rdkafka::message::{Message, OwnedHeaders};
use serde_json::json;

use crate::harness::kafka::header;
use crate::harness::{Suite, order};

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_commits_late_is_not_skipped() {
    let suite = Suite::start().await;
    let append = |subject: &str| {
        let id = shared::envelope::new_id();
        let body = json!({
            "id": id, "type": "test.happened.v1", "source": "order", "subject": subject, "dataVersion": "1.0.0",
            "timestamp": "2026-11-21T10:00:00Z", "correlationId": id, "data": {},
        });
        format!(
            "insert into outbox (shard, topic, key, body) values (0, 'order.events', '{subject}', convert_to('{body}', 'UTF8'))"
        )
    };
    let subjects = |suite: &Suite| {
        let records = suite.records();
        let ours =
            records.iter().filter(|record| header(record, "ce_type").as_deref() == Some("test.happened.v1"));
        ours.map(|record| header(record, "ce_subject").expect("a subject")).collect::<Vec<_>>()
    };
    // The transaction that gets the first position commits last.
    let mut slow = suite.connect("order").await;
    sqlx::raw_sql("begin").execute(&mut slow).await.expect("begun");
    sqlx::raw_sql(sqlx::AssertSqlSafe(append("late"))).execute(&mut slow).await.expect("inserted");
    for number in 0..3 {
        suite.execute("order", &append(&format!("early-{number}"))).await;
    }
    suite.until("the early ones to be sent", async |suite| subjects(suite).len() == 3).await;
    sqlx::raw_sql("commit").execute(&mut slow).await.expect("committed");
    suite.until("the late one to be sent", async |suite| subjects(suite).contains(&"late".to_owned())).await;
    assert_eq!(subjects(&suite).len(), 4, "each was sent once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_message_parks_its_key_and_no_other() {
    let suite = Suite::start().await;
    let topic = suite.kafka().name("payment.commands");
    suite.send(&topic, b"poisoned", b"this is not an envelope", OwnedHeaders::new()).await;
    let orders = futures::future::join_all((0..5).map(|_| async { suite.confirmed(&order()).await })).await;
    assert_eq!(orders.len(), 5, "other keys flow on");
    suite
        .until("the message to be parked", async |suite| {
            suite.number("payment", "select count(*) from parked where key = 'poisoned'").await == 1
        })
        .await;
    let reasons = suite.texts("payment", "select reason from parked").await;
    assert!(reasons[0].starts_with("the value is not an envelope"), "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_carries_its_attributes_in_the_headers_too() {
    let suite = Suite::start().await;
    let order = suite.confirmed(&order()).await;
    let records = suite.records();
    for record in &records {
        let body: serde_json::Value =
            serde_json::from_slice(record.payload().unwrap_or_default()).expect("JSON");
        for (name, member) in [
            ("ce_id", "id"),
            ("ce_type", "type"),
            ("ce_source", "source"),
            ("ce_subject", "subject"),
            ("ce_correlationid", "correlationId"),
            ("ce_time", "timestamp"),
        ] {
            assert_eq!(header(record, name).as_deref(), body[member].as_str(), "{name} of {body}");
        }
        assert!(
            header(record, "traceparent").is_some(),
            "every message has a trace, also where nobody collects it"
        );
        assert_eq!(record.key(), body["subject"].as_str().map(str::as_bytes));
    }
    let about = records.iter().filter(|record| record.key() == Some(order.id.to_string().as_bytes()));
    assert!(about.count() >= 16);
}
