//! The core inside an application with its own names: schema, topics, topic prefix and client id. The application also has
//! its own pool, and a table with the name of one of the core's tables.

use std::sync::Arc;

use futures::future::{join, join_all};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Message as _, OwnedMessage};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::consumer::Consumer;
use shared::db::{Db, DbOptions};
use shared::envelope::{Cause, Command, Direction, Event, Message, Metadata, Never, new_id};
use shared::fault::Fault;
use shared::kafka::Kafka;
use shared::migrations::{self, CORE, SAGA};
use shared::outbox::{AppendError, Draft, Outbox, PublishError};
use shared::relay::Relay;
use shared::router::{Delivery, MessageHandler, MessageRouter};
use shared::saga::participant::{Answer, CommandHandler, Task};
use shared::unit_of_work::UnitOfWork;
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgPool, Postgres, Transaction};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::PATIENCE;
use crate::harness::place::Place;

const NAME: &str = "kiosk";
const SCHEMA: &str = r#"my "own" schema"#;
/// [`SCHEMA`] as an SQL identifier.
const QUOTED: &str = r#""my ""own"" schema""#;
const CLIENT_ID: &str = "kiosk-client";
const GROUP: &str = "warehouse";
const DEAD_LETTERS: &str = "dead_letters";

/// The topics with the application's prefix, but without the prefix of the test.
const TOPICS: &[(&str, i32)] =
    &[("own.purchases", 2), ("own.packing", 1), ("own.parcels", 1), ("own.dead_letters", 1)];

/// The reason why a purchase of a broken item fails permanently.
const BROKEN: &str = "the item is broken";

#[derive(Serialize, Deserialize)]
struct Purchased {
    item: String,
    broken: bool,
}

impl Message for Purchased {
    const TYPE: &'static str = "kiosk.purchased.v1";
    const TOPIC: &'static str = "purchases";
}

impl Event for Purchased {}

#[derive(Serialize, Deserialize)]
struct Pack {}

impl Message for Pack {
    const TYPE: &'static str = "kiosk.pack.v1";
    const TOPIC: &'static str = "packing";
}

impl Command for Pack {
    type Reply = Packed;
    type Refusal = Never;
}

#[derive(Serialize, Deserialize)]
struct Packed {}

impl Message for Packed {
    const TYPE: &'static str = "kiosk.packed.v1";
    const TOPIC: &'static str = "parcels";
}

impl Event for Packed {}

struct Warehouse;

impl MessageHandler<Purchased> for Warehouse {
    async fn handle(&self, uow: &mut UnitOfWork, purchases: &[Delivery<Purchased>]) -> Result<(), Fault> {
        for Delivery { message: purchase, .. } in purchases {
            if purchase.broken {
                return Err(Fault::permanent(BROKEN));
            }
            sqlx::query("insert into shipped (item) values ($1)")
                .bind(&purchase.item)
                .execute(uow.db())
                .await?;
        }
        Ok(())
    }
}

impl CommandHandler<Pack> for Warehouse {
    async fn handle(&self, _: &mut UnitOfWork, tasks: &[Task<Pack>]) -> Result<Vec<Answer<Pack>>, Fault> {
        Ok(tasks.iter().map(|_| Answer::done(Packed {})).collect())
    }
}

/// The application with its own pool.
struct Application {
    place: Place,
    pool: PgPool,
    db: Db,
    kafka: Kafka,
    outbox: Outbox,
}

impl Application {
    async fn new() -> Self {
        let place = Place::new(TOPICS).await;
        let pool = PgPool::connect(&place.database_url()).await.expect("PostgreSQL answers");
        let create = "create table outbox (id integer primary key, note text not null);
                      insert into outbox values (1, 'mine');
                      create table shipped (item text primary key)";
        sqlx::raw_sql(create).execute(&pool).await.expect("the application's tables");
        let db = DbOptions::new(NAME).schema(SCHEMA).parked_topic(DEAD_LETTERS).connect_like(&pool);
        migrations::apply(&db).await.expect("migrations");
        let prefix = format!("{}.own.", place.name);
        let kafka = Kafka { client_id: CLIENT_ID.to_owned(), prefix, ..place.kafka() };
        let outbox = Outbox::new(&db);
        Self { place, pool, db, kafka, outbox }
    }

    /// Begins a transaction of the application's own pool.
    #[expect(clippy::disallowed_methods, reason = "the application does not use the core's pool")]
    async fn begin(&self) -> Transaction<'static, Postgres> {
        self.pool.begin().await.expect("PostgreSQL answers")
    }

    /// Publishes a purchase about `key`.
    async fn publish(&self, tx: &mut Transaction<'_, Postgres>, key: &str, purchase: &Purchased) {
        self.outbox.publish(tx, key, &cause(), purchase).await.expect("the outbox takes it");
    }

    #[expect(clippy::disallowed_methods, reason = "the test ends the task")]
    fn start_relay(&self, stop: &CancellationToken) -> JoinHandle<()> {
        tokio::spawn(Relay::new(self.db.clone(), self.kafka.clone()).run(stop.clone()))
    }

    /// Returns the records that are on one of the application's topics now.
    fn records(&self, topic: &str) -> Vec<OwnedMessage> {
        let topic = self.kafka.name(topic);
        self.place.records().into_iter().filter(|record| record.topic() == topic).collect()
    }

    /// Waits until a topic has `count` records.
    async fn until_records(&self, topic: &str, count: usize) {
        let what = format!("{count} records on {topic}");
        self.place.until(&what, async || self.records(topic).len() == count).await;
    }

    /// Returns the client ids of the members of a consumer group.
    fn client_ids(&self, group: &str) -> Vec<String> {
        let consumer: BaseConsumer =
            self.kafka.client().set("group.id", "test").create().expect("a consumer");
        let group = self.kafka.name(group);
        let groups = consumer.client().fetch_group_list(Some(&group), PATIENCE).expect("groups");
        let members = groups.groups().iter().flat_map(|group| group.members());
        members.map(|member| member.client_id().to_owned()).collect()
    }
}

fn cause() -> Cause {
    Cause::request(new_id(), None)
}

fn purchase(item: &str) -> Purchased {
    Purchased { item: item.to_owned(), broken: false }
}

/// Returns the key and the envelope of a record.
fn read(record: &OwnedMessage) -> (String, Value) {
    let key = String::from_utf8_lossy(record.key().expect("a key")).into_owned();
    (key, serde_json::from_slice(record.payload().expect("a value")).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "the test ends the task")]
async fn everything_works_under_the_names_of_the_application() {
    let app = Application::new().await;
    let stop = CancellationToken::new();
    let relay = app.start_relay(&stop);
    let warehouse = Arc::new(Warehouse);
    let router = MessageRouter::new().event::<Purchased>(&warehouse).command::<Pack>(&warehouse);
    let consumer = Consumer::new(app.db.clone(), app.kafka.clone(), GROUP, Arc::new(router));
    let consumer = tokio::spawn(consumer.run(stop.clone()));

    let mut tx = app.begin().await;
    app.publish(&mut tx, "lamp", &purchase("lamp")).await;
    app.publish(&mut tx, "vase", &Purchased { item: "vase".to_owned(), broken: true }).await;
    let step =
        Metadata { step: Some("pack".to_owned()), direction: Some(Direction::Do), ..Metadata::default() };
    let (trip, pack) = (new_id(), Draft::from(&Pack {}).metadata(step));
    let asked = app.outbox.publish(&mut tx, "trip", &Cause::request(trip, None), pack).await;
    asked.expect("the outbox takes it");
    // In this transaction, as in all others of the application's pool, the name means the application's table.
    let path: String =
        sqlx::query_scalar("show search_path").fetch_one(&mut *tx).await.expect("a search path");
    assert_eq!(path, r#""$user", public"#);
    let notes: Vec<String> =
        sqlx::query_scalar("select note from outbox").fetch_all(&mut *tx).await.expect("the table");
    assert_eq!(notes, ["mine"]);
    tx.commit().await.expect("committed");
    app.outbox.wake();

    let shipped = "select item from public.shipped";
    app.place.until("the lamp to be shipped", async || app.place.texts(shipped).await == ["lamp"]).await;
    app.until_records(DEAD_LETTERS, 1).await;
    app.until_records(Packed::TOPIC, 1).await;
    assert_eq!(app.client_ids(GROUP), [CLIENT_ID]);
    stop.cancel();
    relay.await.expect("no panic");
    consumer.await.expect("no panic").expect("valid settings");

    assert_eq!(app.records(Purchased::TOPIC).len(), 2);
    let (key, copy) = read(&app.records(DEAD_LETTERS)[0]);
    assert_eq!((key.as_str(), &copy["type"]), ("vase", &json!("messaging.parked.v1")));
    assert_eq!(copy["source"], NAME);
    assert_eq!((&copy["data"]["topic"], &copy["data"]["reason"]), (&json!(Purchased::TOPIC), &json!(BROKEN)));
    let (key, packed) = read(&app.records(Packed::TOPIC)[0]);
    assert_eq!((key.as_str(), &packed["type"]), ("trip", &json!(Packed::TYPE)));
    assert_eq!((&packed["source"], &packed["data"]), (&json!(NAME), &json!({})));
    let done = json!({"sagaId": trip, "step": "pack", "direction": "do", "outcome": "done"});
    assert_eq!(packed["metadata"], done);

    let parked = format!("select key from {QUOTED}.parked where status = 'parked'");
    assert_eq!(app.place.texts(&parked).await, ["vase"]);
    assert_eq!(app.place.texts("select id || ' ' || note from public.outbox").await, ["1 mine"]);
    let schemas = "select nspname::text from pg_namespace where nspname !~ '^(pg_|information_schema)'
                   order by nspname";
    assert_eq!(app.place.texts(schemas).await, [SCHEMA, "public"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_about_one_key_are_sent_in_the_order_of_the_commits() {
    let app = Application::new().await;
    let stop = CancellationToken::new();
    let relay = app.start_relay(&stop);
    let waiting = "select count(*) from pg_locks join pg_database d on d.oid = database
                   where datname = current_database() and locktype = 'advisory' and not granted";
    for (round, first_commits) in [("one", true), ("two", false)] {
        // This transaction writes first, so it has the lower transaction id. It publishes second.
        let mut second = app.begin().await;
        sqlx::query("insert into shipped (item) values ($1)")
            .bind(round)
            .execute(&mut *second)
            .await
            .expect("a row");
        let mut first = app.begin().await;
        app.publish(&mut first, "lamp", &purchase(&format!("first of round {round}"))).await;
        let end_first = async {
            app.place
                .until("the second transaction to wait", async || app.place.number(waiting).await == 1)
                .await;
            let ended = if first_commits { first.commit().await } else { first.rollback().await };
            ended.expect("the end of the first transaction");
        };
        let end_second = async {
            app.publish(&mut second, "lamp", &purchase(&format!("second of round {round}"))).await;
            second.commit().await.expect("committed");
            app.outbox.wake();
        };
        join(end_first, end_second).await;
    }
    app.until_records(Purchased::TOPIC, 3).await;
    // Before the relay stops, it sends everything that was committed. No further record follows.
    stop.cancel();
    relay.await.expect("no panic");
    let items: Vec<Value> =
        app.records(Purchased::TOPIC).iter().map(|record| read(record).1["data"]["item"].clone()).collect();
    assert_eq!(items, ["first of round one", "second of round one", "second of round two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_replicas_can_migrate_a_new_schema_at_once() {
    let place = Place::new(&[]).await;
    let options: PgConnectOptions = place.database_url().parse().expect("a URL");
    let replica = |_| DbOptions::new(NAME).schema(SCHEMA).connect(options.clone());
    let replicas: Vec<Db> = (0..8).map(replica).collect();
    for migrated in join_all(replicas.iter().map(migrations::apply_with_sagas)).await {
        migrated.expect("migrations");
    }
    let mut db = replicas[0].connect().await.expect("PostgreSQL answers");
    for set in [&CORE, &SAGA] {
        assert_eq!(set.missing(&mut db, SCHEMA).await, [0_i64; 0], "{}", set.name);
    }
}

/// A record with such a key cannot be parked, because a key is a text in PostgreSQL, a part of an index and a segment of a
/// URL.
#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_key_is_refused_when_its_message_is_published() {
    let app = Application::new().await;
    let unusable = ["", ".", "..", &"k".repeat(513), "a\0b"].map(str::to_owned);
    let longest = "k".repeat(512);
    let purchased = purchase("lamp");

    let mut tx = app.begin().await;
    for key in &unusable {
        let refused = app.outbox.publish(&mut tx, key, &cause(), &purchased).await;
        assert!(
            matches!(refused, Err(PublishError::Append(AppendError::Key { .. }))),
            "{key:?}: {refused:?}"
        );
    }
    app.publish(&mut tx, &longest, &purchased).await;
    tx.commit().await.expect("committed");

    let keys = [unusable.as_slice(), std::slice::from_ref(&longest)].concat();
    let mut uow = app.db.write(&keys).await.expect("PostgreSQL answers");
    for key in &unusable {
        let refused = uow.publish(key, &cause(), &purchased);
        assert!(matches!(refused, Err(AppendError::Key { .. })), "{key:?}: {refused:?}");
    }
    uow.publish(&longest, &cause(), &purchased).expect("a key of 512 bytes is usable");
    uow.commit().await.expect("committed");

    let published = app.place.texts(&format!("select key from {QUOTED}.outbox")).await;
    assert_eq!(published, [longest.clone(), longest]);
}
