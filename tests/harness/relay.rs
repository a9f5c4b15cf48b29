//! An outbox and its relays by themselves: a database, a topic, and as many processes as a test wants that do nothing but
//! relay.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use shared::db::{DEFAULT_SCHEMA, Db, DbOptions};
use shared::envelope::{Cause, Envelope, Event, Message, new_id};
use shared::kafka::{Kafka, Topic};
use shared::migrations;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use super::process::Process;
use super::servers::{self, Servers};
use super::{NUMBER, PATIENCE, sql};

const TOPIC: &str = "relayed.events";
const PARTITIONS: i32 = 4;
/// Few, so that writers often want the same one.
const KEYS: usize = 20;

#[derive(Serialize, Deserialize)]
struct Counted {
    /// Within the key.
    number: u32,
    filler: String,
}

impl Message for Counted {
    const TYPE: &'static str = "relayed.counted.v1";
    const TOPIC: &'static str = TOPIC;
}

impl Event for Counted {}

/// A record of the topic.
pub struct Arrived {
    pub key: String,
    pub number: u32,
}

pub struct Outbox {
    name: String,
    servers: Arc<dyn Servers>,
    shards: i16,
    writes: Db,
    numbers: RefCell<HashMap<String, u32>>,
    client: reqwest::Client,
}

impl Outbox {
    pub async fn new(shards: i16) -> Self {
        let name = format!("r{}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let servers = servers::shared();
        let admin: PgConnectOptions = servers.admin_url().parse().expect("a URL");
        let mut db = PgConnection::connect_with(&admin).await.expect("PostgreSQL answers");
        let create = format!("create database {name}");
        sqlx::query(sqlx::AssertSqlSafe(create)).execute(&mut db).await.expect("a new database");
        let writes = DbOptions::new("relayed").connections(8).shards(shards).connect(admin.database(&name));
        let numbers = RefCell::default();
        let outbox = Self { name, servers, shards, writes, numbers, client: super::client() };
        let mut db = outbox.connect().await;
        let retention = Duration::from_secs(3600);
        let topic = Topic { name: TOPIC.to_owned(), partitions: PARTITIONS, retention };
        migrations::apply_sets(&mut db, DEFAULT_SCHEMA, &[&migrations::CORE]).await.expect("migrations");
        outbox.kafka().create_topics(&[topic]).await.expect("a topic");
        outbox
    }

    pub fn kafka(&self) -> Kafka {
        Kafka { prefix: format!("{}.", self.name), ..Kafka::new(self.servers.kafka_brokers()) }
    }

    pub fn topic(&self) -> String {
        self.kafka().name(TOPIC)
    }

    pub async fn connect(&self) -> PgConnection {
        sql::connect(&self.servers.postgres_url(&self.name, "postgres")).await
    }

    pub async fn execute(&self, sql: &str) {
        let mut db = self.connect().await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut db)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    pub async fn text(&self, sql: &str) -> Option<String> {
        let mut db = self.connect().await;
        let found: Option<Option<String>> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_optional(&mut db)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        found.flatten()
    }

    fn log(&self, instance: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{instance}.log", self.name))
    }

    /// What a relay has said.
    pub fn said(&self, instance: &str) -> String {
        std::fs::read_to_string(self.log(instance)).unwrap_or_default()
    }

    /// Starts a process that relays, or stands by.
    pub fn relay(&self, instance: &str) -> Process {
        let settings = [
            ("DATABASE_URL", self.servers.postgres_url(&self.name, "postgres")),
            ("KAFKA_BROKERS", self.servers.kafka_brokers()),
            ("TOPIC_PREFIX", format!("{}.", self.name)),
            ("INSTANCE", instance.to_owned()),
            ("OUTBOX_SHARDS", self.shards.to_string()),
        ];
        Process::run(&["bench", "service"], None, &settings, &self.log(instance))
    }

    /// Who relays a shard.
    pub async fn owner(&self, shard: i16) -> Option<String> {
        let held = format!(
            "select owner from relay_checkpoint where shard = {shard} and lease_until > clock_timestamp()"
        );
        let owner = self.text(&held).await?;
        owner.strip_prefix("bench-").map(str::to_owned)
    }

    /// Waits until this process relays all shards.
    pub async fn led_by(&self, instance: &str) {
        for shard in 0..self.shards {
            self.until(&format!("{instance} to hold shard {shard}"), async || {
                self.owner(shard).await.as_deref() == Some(instance)
            })
            .await;
        }
    }

    /// Writes a message with this much filler, in a transaction of its own that stays open for so long.
    pub async fn write(&self, key: &str, bytes: usize, open: Duration) {
        let mut uow = self.writes.write(&[key.to_owned()]).await.expect("a write");
        let number = {
            let mut numbers = self.numbers.borrow_mut();
            let number = numbers.entry(key.to_owned()).or_default();
            *number += 1;
            *number
        };
        let message = Counted { number, filler: incompressible(bytes) };
        uow.publish(key, &Cause::request(new_id(), None), &message).expect("a message");
        if !open.is_zero() {
            // Draws the id of the transaction early, as one that has work to do first would.
            sqlx::query("select pg_current_xact_id(), pg_sleep($1)")
                .bind(open.as_secs_f64())
                .execute(uow.db())
                .await
                .expect("a pause");
        }
        uow.commit().await.expect("a commit");
    }

    /// Writes so many messages from eight writers at once; one transaction in a hundred stays open for a second.
    pub async fn write_many(&self, count: usize) {
        let writer = async |first: usize| {
            for number in (first..count).step_by(8) {
                let open = if number % 101 == 0 { Duration::from_secs(1) } else { Duration::ZERO };
                self.write(&format!("key-{}", number * 7 % KEYS), 300, open).await;
            }
            Ok::<_, ()>(())
        };
        try_join_all((0..8).map(writer)).await.expect("writers");
    }

    /// Everything that arrives until there are so many different messages.
    pub async fn arrived(&self, different: usize) -> Vec<Arrived> {
        let kafka = self.kafka();
        let consumer: BaseConsumer = kafka
            .client()
            .set("group.id", kafka.name("reader"))
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition_offset(&self.topic(), partition, Offset::Beginning).expect("a partition");
        }
        consumer.assign(&list).expect("an assignment");
        let (mut arrived, mut known) = (Vec::new(), HashSet::new());
        let deadline = Instant::now() + PATIENCE;
        while known.len() < different {
            assert!(Instant::now() < deadline, "{} of {different} messages came", known.len());
            while let Some(Ok(record)) = consumer.poll(Duration::ZERO) {
                let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
                let body: Envelope<Counted> =
                    serde_json::from_slice(record.payload().unwrap_or_default()).expect("an envelope");
                known.insert((key.clone(), body.data.number));
                arrived.push(Arrived { key, number: body.data.number });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        arrived
    }

    /// The sum of a metric over its labels, where a relay has it.
    pub async fn metric(&self, relay: &Process, name: &str) -> Option<f64> {
        let url = format!("http://127.0.0.1:{}/metrics", relay.port);
        let text = self.client.get(url).send().await.ok()?.text().await.ok()?;
        let values = text.lines().filter(|line| line.starts_with(name));
        values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).reduce(|a, b| a + b)
    }

    /// What a relay says of its health.
    pub async fn health(&self, relay: &Process) -> String {
        let url = format!("http://127.0.0.1:{}/readyz", relay.port);
        match self.client.get(url).send().await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// Waits for a fact.
    pub async fn until(&self, what: &str, fact: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !fact().await {
            assert!(Instant::now() < deadline, "{}: waited {PATIENCE:?} for {what}", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A text that compression does not make much smaller.
fn incompressible(bytes: usize) -> String {
    let ids = std::iter::repeat_with(|| new_id().simple().to_string().split_off(16));
    let mut text: String = ids.take(bytes / 16 + 1).collect();
    text.truncate(bytes);
    text
}

/// The messages that came before an earlier one of their key; repeated ones don't count.
pub fn out_of_order(arrived: &[Arrived]) -> Vec<String> {
    let mut last: HashMap<&str, u32> = HashMap::new();
    let mut wrong = Vec::new();
    for Arrived { key, number } in arrived {
        let last = last.entry(key).or_default();
        match *number {
            number if number == *last + 1 => *last = number,
            number if number <= *last => {}
            number => wrong.push(format!("{key}: {number} came after {last}")),
        }
    }
    wrong
}
