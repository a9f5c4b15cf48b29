//! Runs every example against a real PostgreSQL and a real Kafka, as a reader of the crate would. Checks what it printed,
//! wrote and published.

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

/// The longest wait. It only ends a broken test.
const PATIENCE: Duration = Duration::from_secs(120);
/// The number of partitions of each topic of the examples.
const PARTITIONS: i32 = 4;

/// Servers for all examples, and a database for each.
struct Ground {
    servers: Servers,
}

impl Ground {
    fn start() -> Self {
        let state = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("examples");
        let ports = Ports::free().expect("free ports");
        let backend = Backend::from_env().expect("a known backend");
        let options = Options { ports, fresh: true, backend, ..Options::new(state) };
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

    /// Waits until a topic has at least `count` records, and returns them.
    fn records(&self, topic: &str, count: usize) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer =
            self.kafka().client().set("group.id", "test").create().expect("a consumer");
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
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

/// A running example.
struct Example {
    name: String,
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Example {
    fn start(name: &str, database: &str, brokers: &str) -> Self {
        // `cargo test` builds the examples too, but `cargo test --test examples` does not.
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

    /// Returns the next line that the example prints.
    fn line(&self) -> String {
        let line = self.lines.recv_timeout(PATIENCE);
        line.unwrap_or_else(|error| panic!("the example {} prints nothing: {error}", self.name))
    }

    /// Stops the example as Ctrl-C does. It must end without an error.
    fn stop(mut self) {
        self.interrupt();
        self.ends();
    }

    /// Sends the signal of Ctrl-C.
    fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it runs");
    }

    /// Waits until the example has ended without an error.
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

/// Requests a sale and returns the HTTP status.
fn sell(address: &str, id: &str, sale: &Value) -> u16 {
    SaleRequest::begin(address, id, sale).finish()
}

/// A request whose body has not been sent yet.
struct SaleRequest {
    stream: TcpStream,
    body: String,
}

impl SaleRequest {
    /// Sends the head of the request. Waits until the handler reads the body, because only then does the server answer
    /// `100 Continue`.
    fn begin(address: &str, id: &str, sale: &Value) -> Self {
        const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        let body = sale.to_string();
        let mut stream = TcpStream::connect(address).expect("the example listens");
        let length = body.len();
        write!(
            stream,
            "POST /sales/{id} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: 100-continue\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
        .expect("sent");
        let mut answer = [0; CONTINUE.len()];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, CONTINUE);
        Self { stream, body }
    }

    /// Sends the body and returns the HTTP status.
    fn finish(mut self) -> u16 {
        self.stream.write_all(self.body.as_bytes()).expect("sent");
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).expect("an answer");
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }
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

/// Runs the examples `outbox` and `consumer` together.
async fn a_sale_is_published_and_rewarded_once(ground: &Ground) {
    let mut shop = ground.example("outbox").await;
    let line = shop.line();
    let address = line.strip_prefix("listening on ").expect("an address");
    let points = ground.example("consumer").await;

    assert_eq!(sell(address, "sale-1", &json!({"customer": "ada", "amount": 1900})), 201);
    assert_eq!(points.line(), "ada has points for sale-1");
    // The row exists already, so the transaction fails and publishes nothing.
    assert_eq!(sell(address, "sale-1", &json!({"customer": "ada", "amount": 1900})), 409);
    // Kafka delivers the same record again.
    let record = ground.records("sales.events", 1).remove(0);
    send_again(&ground.kafka(), &record);
    assert_eq!(sell(address, "sale-2", &json!({"customer": "ada", "amount": 200})), 201);
    assert_eq!(points.line(), "ada has points for sale-2");
    // A sale behind the repeated record, on the same partition. Once it is handled, so is the repeated record.
    assert_eq!(sell(address, "sale-3", &json!({"customer": "ada", "amount": 100})), 201);
    assert_eq!(points.line(), "ada has points for sale-3");
    let records = ground.records("sales.events", 4);
    let last = records.iter().find(|record| record.key() == Some(b"sale-3".as_slice()));
    assert_eq!(last.map(|last| last.partition()), Some(record.partition()));
    let mut db = PgConnection::connect(&ground.url("consumer")).await.expect("the database answers");
    let total: i64 = sqlx::query_scalar("select points from points where customer = 'ada'")
        .fetch_one(&mut db)
        .await
        .expect("points");
    assert_eq!(total, 19 + 2 + 1);
    points.stop();

    // The shop stops while a request is under way. The request is answered, and the shop still sends its event.
    let request = SaleRequest::begin(address, "sale-4", &json!({"customer": "ada", "amount": 100}));
    shop.interrupt();
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "the shop accepts connections after it was told to stop");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(request.finish(), 201);
    shop.ends();
    let records = ground.all_records("sales.events");
    assert!(records.iter().any(|record| record.key() == Some(b"sale-4".as_slice())));
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

/// Runs the example `participant`. The test is the coordinator.
async fn a_seat_is_reserved_once_per_step(ground: &Ground) {
    let airline = ground.example("participant").await;
    let url = ground.database("coordinator").await;
    let db = DbOptions::new("trips").connect(url.parse().expect("a URL"));
    shared::migrations::apply(&db).await.expect("migrations");
    // The example creates its topics when it starts.
    ground.topic("airline.commands");
    let stop = CancellationToken::new();
    #[expect(clippy::disallowed_methods, reason = "the test ends it")]
    let relay = tokio::spawn(Relay::new(db.clone(), ground.kafka()).run(stop.clone()));
    let (first, second, third) = (new_id(), new_id(), new_id());
    let seat = json!({"flight": "AM1", "number": 1});

    reserve(&db, first).await;
    let reserved = Answer::new(first, "do", "done", &seat);
    assert_eq!(ground.answers(1), std::slice::from_ref(&reserved));
    // The repeated command gets the recorded answer.
    reserve(&db, first).await;
    assert_eq!(ground.answers(2), [reserved.clone(), reserved.clone()]);
    // There is only one seat.
    reserve(&db, second).await;
    let refused = Answer::new(second, "do", "refused", &json!({"code": "fully_booked"}));
    assert_eq!(of_saga(second, ground.answers(3)), [refused]);
    // The undo frees the seat, so another saga can reserve it.
    release(&db, first).await;
    let released = Answer::new(first, "undo", "done", &json!({}));
    assert_eq!(of_saga(first, ground.answers(4)), [reserved.clone(), reserved.clone(), released.clone()]);
    reserve(&db, third).await;
    assert_eq!(of_saga(third, ground.answers(5)), [Answer::new(third, "do", "done", &seat)]);
    // A late copy of the first command gets its recorded answer too, and reserves nothing.
    reserve(&db, first).await;
    let answers = of_saga(first, ground.answers(6));
    assert_eq!(answers, [reserved.clone(), reserved.clone(), released, reserved]);
    stop.cancel();
    relay.await.expect("no panic");
    airline.stop();

    let mut db = PgConnection::connect(&ground.url("participant")).await.expect("the database answers");
    let booking: String =
        sqlx::query_scalar("select booking from seat").fetch_one(&mut db).await.expect("a seat");
    assert_eq!(booking, third.to_string());
    // Each change and each refusal has published one event. A recorded answer is an event of another type. The example
    // has stopped, so no further event follows.
    let events: Vec<_> = ground.all_records("airline.events").iter().map(event).collect();
    let types =
        |saga| events.iter().filter(|(of, _)| *of == saga).map(|(_, kind)| &**kind).collect::<Vec<_>>();
    assert_eq!(
        types(first),
        [
            "airline.seat_reserved.v1",
            "saga.step_answered.v1",
            "airline.seat_released.v1",
            "saga.step_answered.v1"
        ]
    );
    assert_eq!(types(second), ["airline.seat_refused.v1"]);
    assert_eq!(types(third), ["airline.seat_reserved.v1"]);
    assert_eq!(events.len(), 6);
}

/// Sends the command of the step `reserve_seat`.
async fn reserve(db: &Db, saga: Uuid) {
    send(db, saga, "airline.reserve_seat.v1", Direction::Do, &json!({"flight": "AM1"})).await;
}

/// Sends the undo of the step `reserve_seat`.
async fn release(db: &Db, saga: Uuid) {
    send(db, saga, "airline.release_seat.v1", Direction::Undo, &json!({})).await;
}

/// Sends a command of the step `reserve_seat`, as the saga's coordinator does.
async fn send(db: &Db, saga: Uuid, kind: &'static str, direction: Direction, command: &Value) {
    let key = saga.to_string();
    let mut uow = db.write(std::slice::from_ref(&key)).await.expect("the database answers");
    let metadata =
        Metadata { step: Some("reserve_seat".to_owned()), direction: Some(direction), ..Metadata::default() };
    let draft = Draft::untyped((kind, "1.0.0"), "airline.commands", command);
    uow.publish(&key, &Cause::request(saga, None), draft.metadata(metadata)).expect("appended");
    uow.commit().await.expect("committed");
}

/// The answer of a step.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    saga: Uuid,
    direction: String,
    outcome: String,
    result: Value,
}

impl Answer {
    fn new(saga: Uuid, direction: &str, outcome: &str, result: &Value) -> Self {
        Self { saga, direction: direction.to_owned(), outcome: outcome.to_owned(), result: result.clone() }
    }
}

impl From<&OwnedMessage> for Answer {
    fn from(record: &OwnedMessage) -> Self {
        let (saga, envelope) = envelope(record);
        let metadata = &envelope["metadata"];
        let text = |member: &str| metadata[member].as_str().expect("a text").to_owned();
        assert_eq!(metadata["sagaId"], saga.to_string());
        assert_eq!(metadata["step"], "reserve_seat");
        let result = match envelope["type"].as_str() {
            Some("saga.step_answered.v1") => &envelope["data"]["result"],
            _ => &envelope["data"],
        };
        Self { saga, direction: text("direction"), outcome: text("outcome"), result: result.clone() }
    }
}

/// Returns the answers to one saga, in the order of their topic.
fn of_saga(saga: Uuid, answers: Vec<Answer>) -> Vec<Answer> {
    answers.into_iter().filter(|answer| answer.saga == saga).collect()
}

/// Returns the saga and the type of an event.
fn event(record: &OwnedMessage) -> (Uuid, String) {
    let (saga, envelope) = envelope(record);
    (saga, envelope["type"].as_str().expect("a type").to_owned())
}

/// Returns the saga and the envelope of a record.
fn envelope(record: &OwnedMessage) -> (Uuid, Value) {
    let envelope: Value = serde_json::from_slice(record.payload().expect("a value")).expect("JSON");
    let saga = envelope["correlationId"].as_str().and_then(|id| id.parse().ok()).expect("a saga");
    (saga, envelope)
}

impl Ground {
    /// Waits until a topic exists.
    fn topic(&self, topic: &str) {
        let consumer: BaseConsumer =
            self.kafka().client().set("group.id", "test").create().expect("a consumer");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metadata = consumer.fetch_metadata(None, PATIENCE).expect("the broker answers");
            if metadata.topics().iter().any(|existing| existing.name() == topic) {
                return;
            }
            assert!(Instant::now() < deadline, "the topic {topic} does not exist");
        }
    }

    /// Waits until the airline has published at least `count` answers, and returns them.
    fn answers(&self, count: usize) -> Vec<Answer> {
        self.records("airline.events", count).iter().map(Answer::from).collect()
    }

    /// Returns all records of a topic to which nobody writes any more.
    fn all_records(&self, topic: &str) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer =
            self.kafka().client().set("group.id", "test").create().expect("a consumer");
        let count = |partition| {
            let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE).expect("watermarks");
            usize::try_from(high - low).expect("a number of records")
        };
        self.records(topic, (0..PARTITIONS).map(count).sum())
    }
}
