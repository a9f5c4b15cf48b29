//! Servers that crash or freeze, and ports that are taken.

use std::net::TcpListener;
use std::time::Duration;

use local::{Error, Kafka, Servers, Silent, ensure_free, port_holder};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::helper::{Folder, options, sql, until};

const RECORDS: i64 = 500;

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("reconnect.backoff.max.ms", "200");
    config
}

fn write_records(brokers: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let admin: AdminClient<DefaultClientContext> = client(brokers).create().expect("a client");
        let topic = NewTopic::new("kept", 1, TopicReplication::Fixed(1));
        let made = admin.create_topics([&topic], &AdminOptions::new()).await.expect("an answer");
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        let producer: FutureProducer = client(brokers).set("acks", "all").create().expect("a producer");
        let record = || FutureRecord::to("kept").key("key").payload("payload");
        let sent: Vec<_> = (0..RECORDS).map(|_| producer.send_result(record()).expect("queued")).collect();
        for acknowledged in sent {
            acknowledged.await.expect("a report").expect("written");
        }
    });
}

fn count_records(brokers: &str) -> i64 {
    let consumer: BaseConsumer = client(brokers).set("group.id", "count").create().expect("a consumer");
    consumer.fetch_watermarks("kept", 0, Duration::from_secs(10)).map_or(-1, |(low, high)| high - low)
}

#[test]
fn what_was_acknowledged_survives_a_kill_of_both() {
    let folder = Folder::new();
    let servers = Servers::start(&options(&folder.0), &Silent).expect("servers");
    sql(&servers.admin_url(), "create table kept as select 42::bigint as n").expect("a table");
    write_records(&servers.kafka_brokers());

    servers.postgres().kill9().expect("killed");
    servers.kafka().kill9().expect("killed");
    assert_eq!((servers.postgres().pid(), servers.kafka().pid()), (None, None));
    assert!(sql(&servers.admin_url(), "select n from kept").is_err());

    servers.postgres().restart().expect("PostgreSQL");
    servers.kafka().restart().expect("Kafka");
    assert_eq!(sql(&servers.admin_url(), "select n from kept").expect("an answer"), Some(42));
    until("the records are there", Duration::from_secs(20), || {
        count_records(&servers.kafka_brokers()) == RECORDS
    });
}

#[test]
fn a_frozen_kafka_goes_on_and_a_second_one_has_its_own_folder() {
    let (one, two) = (Folder::new(), Folder::new());
    let first = Kafka::start(&options(&one.0), &Silent).expect("Kafka");
    write_records(&first.brokers());
    first.sigstop().expect("frozen");
    let second = Kafka::start(&options(&two.0), &Silent).expect("a second Kafka");
    write_records(&second.brokers());
    first.sigcont().expect("thawed");
    until("it answers again", Duration::from_secs(20), || count_records(&first.brokers()) == RECORDS);
    // Stopping must also reach a frozen server.
    first.sigstop().expect("frozen");
    first.stop();
}

#[test]
fn a_busy_port_names_this_process() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let holder = port_holder(port).expect("it is held");
    assert!(holder.listening);
    assert_eq!(holder.process.map(|it| it.pid), Some(std::process::id()));

    let folder = Folder::new();
    let mut options = options(&folder.0);
    options.ports.kafka = port;
    let error = Servers::start(&options, &Silent).err().expect("it can't start");
    assert!(matches!(error, Error::PortBusy { port: busy, .. } if busy == port), "{error}");
    let text = error.to_string();
    assert!(text.contains(&std::process::id().to_string()) && text.contains("Kafka"), "{text}");

    drop(listener);
    ensure_free(port, "the test").expect("it is free now");
    assert_eq!(port_holder(port), None);
}
