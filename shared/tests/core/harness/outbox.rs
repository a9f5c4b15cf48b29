//! An outbox and its relays by themselves: a database, a topic, and as many processes as a test wants that do nothing but
//! relay.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use shared::db::{DEFAULT_SCHEMA, Db, DbOptions};
use shared::envelope::{Cause, Envelope, Message, new_id};
use shared::migrations;
use shared::service::App;
use sqlx::postgres::PgConnectOptions;

use super::PATIENCE;
use super::place::Place;
use super::process::Process;
use crate::relayed::{Counted, Relayed};

const PARTITIONS: i32 = 4;
/// Few, so that writers often want the same one.
const KEYS: usize = 20;
const WRITERS: usize = 8;

/// A record of the topic.
pub struct Arrived {
    pub key: String,
    pub number: u32,
}

pub struct Outbox {
    place: Place,
    shards: i16,
    writes: Db,
    numbers: RefCell<HashMap<String, u32>>,
}

impl Deref for Outbox {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Outbox {
    pub async fn new(shards: i16) -> Self {
        let place = Place::new(&[(Counted::TOPIC, PARTITIONS)]).await;
        let mut db = place.connect().await;
        migrations::apply_sets(&mut db, DEFAULT_SCHEMA, &[&migrations::CORE]).await.expect("migrations");
        let options: PgConnectOptions = place.database_url().parse().expect("a URL");
        let writes = DbOptions::new(Relayed::NAME).connections(8).shards(shards).connect(options);
        Self { place, shards, writes, numbers: RefCell::default() }
    }

    /// Returns the same outbox, whose writers and relays use another number of shards from now on.
    pub fn with_shards(self, shards: i16) -> Self {
        let options: PgConnectOptions = self.database_url().parse().expect("a URL");
        let writes = DbOptions::new(Relayed::NAME).connections(8).shards(shards).connect(options);
        Self { shards, writes, ..self }
    }

    /// The name of the topic on the broker.
    pub fn topic(&self) -> String {
        self.kafka().name(Counted::TOPIC)
    }

    /// Starts a process that relays, or stands by.
    pub fn relay(&self, instance: &str) -> Process {
        self.start::<Relayed>(instance, None, &[("OUTBOX_SHARDS", self.shards.to_string())])
    }

    /// Who relays a shard.
    async fn owner(&self, shard: i16) -> Option<String> {
        let held = format!(
            "select owner from relay_checkpoint where shard = {shard} and lease_until > clock_timestamp()"
        );
        let owner = self.text(&held).await?;
        owner.strip_prefix("relayed-").map(str::to_owned)
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
            for number in (first..count).step_by(WRITERS) {
                let open = if number % 101 == 0 { Duration::from_secs(1) } else { Duration::ZERO };
                self.write(&format!("key-{}", number * 7 % KEYS), 300, open).await;
            }
        };
        join_all((0..WRITERS).map(writer)).await;
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

    /// What a relay says of its health.
    pub async fn health(&self, relay: &Process) -> String {
        self.get(relay, "/readyz").await.map(|(_, text)| text).unwrap_or_default()
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
