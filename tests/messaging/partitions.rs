//! Topics that get more partitions.

use std::time::Duration;

use futures::future::join_all;
use local::Signal;
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::harness::{SERVICES, Suite, order};

const ORDERS: usize = 24;
const MORE: usize = 8;

impl Suite {
    async fn grow_all(&self) {
        let topics = schemas::topics::all();
        join_all(topics.iter().map(|topic| self.grow(&topic.name, MORE))).await;
    }

    /// Writes nonsense to a partition, as no service would.
    #[expect(clippy::disallowed_methods, reason = "the test plays a producer with a rule of its own")]
    async fn send_to(&self, topic: &str, partition: i32) {
        let producer: FutureProducer = self.kafka().client().create().expect("a producer");
        let name = self.kafka().name(topic);
        let record = FutureRecord::to(&name).key("elsewhere").payload("nonsense").partition(partition);
        producer.send(record, Duration::from_secs(30)).await.unwrap_or_else(|(error, _)| panic!("{error}"));
    }

    /// Returns the greatest partition that has a record of a service.
    fn greatest_partition(&self) -> i32 {
        self.records().iter().map(Message::partition).max().unwrap_or_default()
    }
}

/// Services are restarted before they have noticed that their topics have grown. Then the broker gives them their old
/// partitions back, and nobody would get the new ones.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_while_orders_run_move_no_key_and_are_read() {
    let mut suite = Suite::start().await;
    let mut placed = Vec::new();
    for _ in 0..ORDERS / 2 {
        placed.push(suite.place(&order()).await);
    }
    for service in ["orchestrator", "payment"] {
        suite.process(service).signal(Signal::STOP);
    }
    suite.grow_all().await;
    for service in ["orchestrator", "payment"] {
        suite.crash(service);
    }
    for _ in 0..ORDERS / 2 {
        placed.push(suite.place(&order()).await);
    }
    for order in placed {
        assert_eq!(suite.settled(order).await["status"], "confirmed");
    }
    suite.comes_to_rest().await;
    suite.every_key_kept_its_order().await;
    assert!(suite.greatest_partition() < 4, "keys stay where they were");

    suite.says("payment", "topics", "payment.commands: partitions is 8 and should be 4").await;
    suite.ready("payment").await;
    let (content, said) = suite.topics_command(&["verify"]).await;
    assert!(content && said.contains("note: ") && said.contains("partitions is 8"), "{said}");
    suite.send_to("payment.commands", 7).await;
    suite
        .until("the record in a new partition to be read", async |suite| {
            suite.number("payment", "select count(*) from parked where partition = 7").await == 1
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_declared_number_of_partitions_is_changed_while_nothing_is_under_way() {
    let mut suite = Suite::start().await;
    suite.confirmed(&order()).await;
    suite.comes_to_rest().await;
    let grow = ["apply", "--partitions", "8", "--add-partitions"];
    let (content, said) = suite.topics_command(&grow).await;
    assert!(!content && said.contains("stop all services"), "{said}");
    for service in SERVICES {
        suite.process(service).stop().await;
    }
    suite
        .until("the services to have left their groups", async |suite| {
            let (content, said) = suite.topics_command(&grow).await;
            assert!(content || said.contains("stop all services"), "{said}");
            content
        })
        .await;
    suite.set("TOPIC_PARTITIONS", Some("8".to_owned()));
    for service in SERVICES {
        suite.launch(service);
    }
    for service in SERVICES {
        suite.ready(service).await;
    }
    let body = order();
    let orders = join_all((0..ORDERS).map(|_| suite.place(&body))).await;
    for order in orders {
        assert_eq!(suite.settled(order).await["status"], "confirmed");
    }
    suite.comes_to_rest().await;
    suite.every_key_kept_its_order().await;
    assert!(suite.greatest_partition() >= 4, "keys are spread over all partitions");

    // A service with more than there are does not start to work.
    suite.process("payment").stop().await;
    suite.set("TOPIC_PARTITIONS", Some("16".to_owned()));
    suite.launch("payment");
    suite.says("payment", "topics", "payment.commands: partitions is 8 and should be 16").await;
}
