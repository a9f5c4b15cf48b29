//! Runs every example against a real PostgreSQL and a real Kafka, as a reader of the crate would, and looks at what it did.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use local::{Backend, Options, Ports, Servers, Signal, Silent, spawn_bound};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Message as _, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};
use shared::db::{Db, DbOptions};
use shared::envelope::{Cause, Direction, Metadata, new_id};
use shared::kafka::Kafka;
use shared::outbox::Draft;
use shared::relay::Relay;
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(120);

/// Servers for all examples, and a database for each.
struct Ground {
    servers: Servers,
}

impl Ground {
    fn start() -> Self {
        let state = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("examples");
        let ports = Ports::free().expect("free ports");
        let options = Options { ports, fresh: true, backend: Backend::Local, ..Options::new(state) };
        Self { servers: Servers::start(&options, &Silent).expect("the servers start") }
    }

    fn kafka(&self) -> Kafka {
        Kafka::new(self.servers.kafka_brokers())
    }

    fn url(&self, database: &str) -> String {
        self.servers.postgres_url(database, "postgres", None)
    }

    async fn database(&self, name: &str) -> String {
        let mut db = PgConnection::connect(&self.servers.admin_url()).await.expect("PostgreSQL answers");
        let create = format!("create database {name}");
        sqlx::query(sqlx::AssertSqlSafe(create)).execute(&mut db).await.expect("a database");
        self.url(name)
    }

    async fn example(&self, name: &str) -> Example {
        let database = self.database(name).await;
        Example::start(name, &database, &self.servers.kafka_brokers())
    }

    /// The first records of a topic, at least so many.
    fn records(&self, topic: &str, count: usize) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer =
            self.kafka().client().set("group.id", "test").create().expect("a consumer");
        let mut partitions = TopicPartitionList::new();
        for partition in 0..4 {
            partitions.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
        }
        consumer.assign(&partitions).expect("an assignment");
        let deadline = Instant::now() + PATIENCE;
        let mut records = Vec::new();
        while records.len() < count {
            assert!(Instant::now() < deadline, "{} of {count} records came on {topic}", records.len());
            if let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) {
                records.push(record.detach());
            }
        }
        records
    }
}

/// An example that runs.
struct Example {
    name: String,
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Example {
    fn start(name: &str, database: &str, brokers: &str) -> Self {
        // Cargo builds the examples beside the tests, unless it was asked for this test alone.
        let tests = std::env::current_exe().expect("a path");
        let target = tests.parent().and_then(|deps| deps.parent()).expect("the target folder");
        let program = target.join("examples").join(name);
        assert!(
            program.exists(),
            "run `cargo build -p shared --examples` first: {} is not there",
            program.display()
        );
        let mut command = Command::new(program);
        command.env("DATABASE_URL", database).env("KAFKA_BROKERS", brokers).env("HTTP_ADDR", "127.0.0.1:0");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = spawn_bound(command, Signal::KILL).expect("the example starts");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { name: name.to_owned(), child, lines }
    }

    /// The next line that it prints.
    fn line(&self) -> String {
        let line = self.lines.recv_timeout(PATIENCE);
        line.unwrap_or_else(|error| panic!("the example {} prints nothing: {error}", self.name))
    }

    /// Told to stop, it ends well.
    fn stop(mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        self.ends();
    }

    fn ends(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("a child") {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "the example {} does not end", self.name),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "the example {} ended with {status}", self.name);
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sells something; returns the HTTP status.
fn sell(address: &str, id: &str, sale: &Value) -> u16 {
    let body = sale.to_string();
    let mut stream = TcpStream::connect(address).expect("the example listens");
    let length = body.len();
    write!(
        stream,
        "POST /sales/{id} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_does_what_it_says() {
    let ground = tokio::task::block_in_place(Ground::start);
    a_sale_is_published_and_rewarded_once(&ground).await;
    a_seat_is_reserved_once_per_step(&ground).await;
    let mut saga = ground.example("saga").await;
    assert_eq!(saga.line(), "Ada's trip was rejected: card_declined");
    assert_eq!(saga.line(), "Bob's trip was confirmed: room 7");
    saga.ends();
    tokio::task::block_in_place(|| ground.servers.stop());
}

/// `outbox` and `consumer` together.
async fn a_sale_is_published_and_rewarded_once(ground: &Ground) {
    let shop = ground.example("outbox").await;
    let line = shop.line();
    let address = line.strip_prefix("listening on ").expect("an address");
    let points = ground.example("consumer").await;

    assert_eq!(sell(address, "sale-1", &json!({"customer": "ada", "amount": 1900})), 201);
    assert_eq!(points.line(), "ada has points for sale-1");
    // The row is there already, so the transaction fails, and with it the message.
    assert_eq!(sell(address, "sale-1", &json!({"customer": "ada", "amount": 1900})), 409);
    // The same record once more.
    let record = ground.records("sales.events", 1).remove(0);
    send_again(&ground.kafka(), &record);
    assert_eq!(sell(address, "sale-2", &json!({"customer": "ada", "amount": 200})), 201);
    assert_eq!(points.line(), "ada has points for sale-2");
    // Whatever partition it is on, it has been handled by the time that one behind it has.
    assert_eq!(sell(address, "sale-1b", &json!({"customer": "ada", "amount": 100})), 201);
    assert_eq!(points.line(), "ada has points for sale-1b");
    let mut db = PgConnection::connect(&ground.url("consumer")).await.expect("the database answers");
    let total: i64 = sqlx::query_scalar("select points from points where customer = 'ada'")
        .fetch_one(&mut db)
        .await
        .expect("points");
    assert_eq!(total, 19 + 2 + 1);
    points.stop();
    shop.stop();
}

fn send_again(kafka: &Kafka, record: &OwnedMessage) {
    let producer: BaseProducer = kafka.client().create().expect("a producer");
    let again: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(record.topic())
        .partition(record.partition())
        .key(record.key().expect("a key"))
        .payload(record.payload().expect("a value"))
        .headers(record.headers().cloned().expect("headers"));
    #[expect(
        clippy::disallowed_methods,
        reason = "the test repeats a record, as a relay does after a crash"
    )]
    producer.send(again).map_err(|(error, _)| error).expect("sent");
    producer.flush(PATIENCE).expect("acknowledged");
}

/// `participant`, with the test as the coordinator.
async fn a_seat_is_reserved_once_per_step(ground: &Ground) {
    let airline = ground.example("participant").await;
    let url = ground.database("coordinator").await;
    let db = DbOptions::new("trips").connect(url.parse().expect("a URL"));
    shared::migrations::apply(&db).await.expect("migrations");
    // The example makes its topics when it starts.
    ground.topic("airline.commands");
    let stop = CancellationToken::new();
    #[expect(clippy::disallowed_methods, reason = "the test ends it")]
    let relay = tokio::spawn(Relay::new(db.clone(), ground.kafka()).run(stop.clone()));
    let (first, second) = (new_id(), new_id());
    // Asked twice about one step, it answers twice and reserves one seat.
    ask(&db, first).await;
    ask(&db, first).await;
    let replies = ground.replies(2);
    assert_eq!(replies[0], (first, "done".to_owned(), json!({"number": 1})));
    assert_eq!(replies[0], replies[1]);
    // There was one seat.
    ask(&db, second).await;
    let replies = ground.replies(3);
    assert!(
        replies.contains(&(second, "refused".to_owned(), json!({"code": "fully_booked"}))),
        "{replies:?}"
    );
    stop.cancel();
    relay.await.expect("no panic");
    airline.stop();
}

/// Asks for a seat, as a step of a saga.
async fn ask(db: &Db, saga: Uuid) {
    let key = saga.to_string();
    let mut uow = db.write(std::slice::from_ref(&key)).await.expect("the database answers");
    let metadata = Metadata {
        step: Some("reserve_seat".to_owned()),
        direction: Some(Direction::Do),
        ..Metadata::default()
    };
    let command = json!({"flight": "AM1"});
    let draft = Draft::untyped(("airline.reserve_seat.v1", "1.0.0"), "airline.commands", &command);
    uow.publish(&key, &Cause::request(saga, None), draft.metadata(metadata)).expect("appended");
    uow.commit().await.expect("committed");
}

impl Ground {
    /// Waits until a topic is there.
    fn topic(&self, topic: &str) {
        let consumer: BaseConsumer =
            self.kafka().client().set("group.id", "test").create().expect("a consumer");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metadata = consumer.fetch_metadata(None, PATIENCE).expect("the broker answers");
            if metadata.topics().iter().any(|there| there.name() == topic) {
                return;
            }
            assert!(Instant::now() < deadline, "{topic} is not there");
        }
    }

    /// The first replies: saga, outcome and result.
    fn replies(&self, count: usize) -> Vec<(Uuid, String, Value)> {
        let reply = |record: &OwnedMessage| {
            let envelope: Value = serde_json::from_slice(record.payload().expect("a value")).expect("JSON");
            let saga = envelope["correlationId"].as_str().and_then(|id| id.parse().ok()).expect("a saga");
            let outcome = envelope["data"]["outcome"].as_str().expect("an outcome").to_owned();
            (saga, outcome, envelope["data"]["result"].clone())
        };
        self.records("trips.replies", count).iter().map(reply).collect()
    }
}
