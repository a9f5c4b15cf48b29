//! Topics that are not as they were declared.

use rdkafka::message::OwnedHeaders;

use crate::harness::{Setup, Suite};

#[tokio::test(flavor = "multi_thread")]
async fn every_difference_between_declared_and_actual_topics_is_reported_and_mended_where_that_is_safe() {
    let suite = Suite::on_bare_servers();
    let compacted = [("cleanup.policy", "compact"), ("segment.ms", "3600000")];
    suite.create_topic("order.events", 4, &compacted).await;
    suite.create_topic("payment.commands", 1, &[("retention.ms", "86400000")]).await;
    suite.create_topic("payment.events", 4, &[("retention.ms", "-1")]).await;
    suite.create_topic("inventory.events", 8, &[]).await;
    suite.create_topic("shipping.commands", 2, &[]).await;
    suite.send(&suite.kafka().name("shipping.commands"), b"key", b"x", OwnedHeaders::new()).await;

    let (content, said) = suite.topics_command(&["verify"]).await;
    assert!(!content && said.contains("order.commands: missing"), "{said}");
    let (content, said) = suite.topics_command(&["apply"]).await;
    assert!(!content, "{said}");
    for words in [
        "order.events: cleanup.policy is compact and should be delete",
        "payment.events: retention.ms is -1 (unlimited) and should be 604800000 (7.0 days)",
        "`amends topics apply --alter` sets it",
        "shipping.commands: partitions is 2 and should be 4",
        "note: t",
        "inventory.events: partitions is 8 and should be 4",
        // Nothing is lost by these.
        "payment.commands: partitions was 1 and is 4 now",
        "payment.commands: retention.ms was 86400000 and is 604800000 now",
    ] {
        assert!(said.contains(words), "`{words}` is not in\n{said}");
    }
    assert_eq!(suite.topic_setting("order.events", "cleanup.policy").await.as_deref(), Some("compact"));
    assert_eq!(suite.topic_setting("payment.events", "retention.ms").await.as_deref(), Some("-1"));

    // Nothing runs, and no group has unread records, so keys may move.
    let (content, said) = suite.topics_command(&["apply", "--alter", "--add-partitions"]).await;
    assert!(content, "{said}");
    assert_eq!(suite.topic_setting("order.events", "cleanup.policy").await.as_deref(), Some("delete"));
    let kept = suite.topic_setting("order.events", "segment.ms").await;
    assert_eq!(kept.as_deref(), Some("3600000"), "other settings stay as they were");
    let (content, said) = suite.topics_command(&["verify"]).await;
    assert!(content && said.contains("18 topics exist, and none endangers a guarantee"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_takes_nothing_from_a_topic_that_endangers_a_guarantee_until_that_is_mended() {
    let mut suite = Suite::with(Setup { only: Some("payment"), ..Setup::default() }).await;
    assert_eq!(suite.check("payment", "topics").await, None);
    suite.kill9("payment");
    suite.alter_topic("payment.commands", &[("cleanup.policy", "compact")]).await;
    suite.alter_topic("payment.events", &[("retention.ms", "864000000")]).await;
    let topic = suite.kafka().name("payment.commands");
    suite.send(&topic, b"poisoned", b"this is not an envelope", OwnedHeaders::new()).await;
    suite.launch("payment");
    suite.says("payment", "topics", "payment.commands: cleanup.policy is compact and should be delete").await;
    suite.says("payment", "topics", "`amends topics apply --alter` sets it").await;
    assert_eq!(suite.number("payment", "select count(*) from parked").await, 0);

    suite.alter_topic("payment.commands", &[]).await;
    suite.ready("payment").await;
    suite
        .until("the record to be parked", async |suite| {
            suite.number("payment", "select count(*) from parked").await == 1
        })
        .await;
    // What is merely different is a notice.
    suite.says("payment", "topics", "payment.events: retention.ms is 864000000 (10.0 days)").await;
    let log = std::fs::read_to_string(suite.log("payment", 0)).expect("a log");
    let place = |words: &str| log.rfind(words).unwrap_or_else(|| panic!("`{words}` is not in {log}"));
    assert!(place("neither consumes nor sends") < place("the topics are as they should be"));
    assert!(place("the topics are as they should be") < place("partitions assigned"), "it has waited");
    assert!(place("the topics are as they should be") < place("the relay holds the shard"), "it has waited");
}
