//! Records that the broker deletes before a service has read them.

use local::Signal;
use rdkafka::message::{Message, OwnedHeaders};
use serde_json::Value;
use shared::envelope::Message as _;

use crate::harness::kafka::header;
use crate::harness::{Order, Setup, Suite, order};

impl Suite {
    /// Waits until a topic has a message of this type about an order.
    async fn is_sent(&self, order: Order, kind: &str) {
        self.until(&format!("{kind} to be sent"), async |suite| {
            suite.records().iter().any(|record| {
                header(record, "ce_type").as_deref() == Some(kind)
                    && record.key() == Some(order.id.to_string().as_bytes())
            })
        })
        .await;
    }

    async fn gaps(&self, service: &'static str) -> Vec<String> {
        let gaps =
            "select reason || ' ' || topic || ' ' || consumer_group || ' ' || (first_present - first_missing)
                    from record_gap order by partition";
        self.texts(service, gaps).await
    }

    async fn counted(&self, service: &'static str, reason: &str) -> usize {
        let answer =
            self.client.get(format!("{}/metrics", self.url(service))).send().await.expect("an answer");
        let text = answer.text().await.expect("a text");
        let reason = format!("reason=\"{reason}\"");
        let ours = |line: &&str| line.starts_with("amends_consumer_gaps_total{") && line.contains(&reason);
        let line = text.lines().find(ours);
        line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_deleted_while_the_orchestrator_is_away_are_noticed_and_their_orders_are_named() {
    let mut suite = Suite::start().await;
    suite.confirmed(&order()).await;
    suite.comes_to_rest().await;
    suite.kill9("orchestrator");
    let mut lost = Vec::new();
    for _ in 0..3 {
        let order = suite.place(&order()).await;
        suite.is_sent(order, schemas::order::OrderCreated::TYPE).await;
        lost.push(order.id.to_string());
    }
    suite.caught_up("order").await;
    suite.caught_up("shipping").await;
    suite.delete_records("order.events").await;

    // There is nothing behind the gap, and it is noticed all the same.
    suite.launch("orchestrator");
    suite.says("orchestrator", "records", "order.events/").await;
    suite.says("orchestrator", "records", "were deleted before the group orchestrator read them").await;
    suite.ready("orchestrator").await;
    let gaps = suite.gaps("orchestrator").await;
    // The group may not have read anything of one of the partitions.
    let missing = gaps.iter().map(|gap| {
        let (what, count) = gap.rsplit_once(' ').expect("words");
        assert!(["deleted", "late"].contains(&what.trim_end_matches(" order.events orchestrator")), "{gap}");
        count.parse::<i64>().expect("a number")
    });
    assert_eq!(missing.sum::<i64>(), 3, "{gaps:?}");
    let mut counted = 0;
    for reason in ["deleted", "late"] {
        counted += suite.counted("orchestrator", reason).await;
    }
    assert_eq!(counted, gaps.len());
    let log = std::fs::read_to_string(suite.log("orchestrator", 0)).expect("a log");
    assert!(log.contains("records are gone that this group has not read"), "{log}");

    // The others go on.
    let later = suite.confirmed(&order()).await;
    suite
        .until("the audit to name the orders", async |suite| {
            let ends = suite.invariant_with(4, &["--deadline", "1s"]).await;
            let named: Vec<&str> =
                ends["violations"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            assert!(!named.contains(&later.id.to_string().as_str()), "{ends}");
            lost.iter().all(|id| named.contains(&id.as_str()))
                && ends["findings"][0].as_str().is_some_and(|said| said.contains("its saga has not begun"))
        })
        .await;

    // It is noticed once, and stays.
    suite.crash("orchestrator");
    suite.says("orchestrator", "records", "order.events/").await;
    suite.ready("orchestrator").await;
    suite.confirmed(&order()).await;
    assert_eq!(suite.gaps("orchestrator").await, gaps);
    for reason in ["deleted", "late"] {
        assert_eq!(suite.counted("orchestrator", reason).await, 0, "{reason}");
    }
    for service in ["order", "payment", "shipping"] {
        assert_eq!(suite.gaps(service).await, [""; 0], "{service}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_are_deleted_while_a_service_runs_are_noticed_and_asked_for_again() {
    let settings = vec![("ORCHESTRATOR_STEP_DEADLINE", "1s".to_owned())];
    let mut suite = Suite::with(Setup { settings, ..Setup::default() }).await;
    suite.confirmed(&order()).await;
    suite.process("payment").signal(Signal::STOP);
    // The command of the first order answers a request that was under way, and waits in the connection.
    let mut orders = Vec::new();
    for _ in 0..3 {
        orders.push(suite.place(&order()).await);
        suite.is_sent(orders[orders.len() - 1], schemas::payment::AuthorizePayment::TYPE).await;
    }
    suite.delete_records("payment.commands").await;
    suite.processes_go_on("payment");
    for order in orders {
        assert_eq!(suite.settled(order).await["status"], "confirmed");
    }
    suite.says("payment", "records", "payment.commands/").await;
    let gaps = suite.gaps("payment").await;
    assert!(gaps.iter().all(|gap| gap.contains(" payment.commands payment ")), "{gaps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_begins_behind_deleted_records_says_so() {
    let mut suite = Suite::with(Setup { only: Some("payment"), ..Setup::default() }).await;
    assert_eq!(suite.gaps("payment").await, [""; 0], "a new group on new topics");
    suite.kill9("payment");
    let topic = suite.kafka().name("payment.commands");
    suite.send(&topic, b"k", b"x", OwnedHeaders::new()).await;
    suite.delete_records("payment.commands").await;
    suite.launch("payment");
    suite.says("payment", "records", "payment.commands/").await;
    assert_eq!(suite.gaps("payment").await, ["late payment.commands payment 1"]);
}
