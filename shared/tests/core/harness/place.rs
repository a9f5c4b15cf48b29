//! What a test has for itself on the shared servers: a database, topics behind a prefix, and logs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use local::Servers;
use rdkafka::producer::FutureProducer;
use shared::kafka::{Kafka, Topic};
use shared::service::App;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use super::process::Process;
use super::{PATIENCE, servers};

/// How many lines of each log are shown when a fact does not come.
const LINES: usize = 20;

pub struct Place {
    /// The name of the database, from which the topics' prefix and the logs' folder are called too.
    pub name: String,
    pub client: reqwest::Client,
    /// Its topics, without the prefix, and how many partitions each has.
    pub(super) topics: &'static [(&'static str, i32)],
    pub(super) producer: FutureProducer,
    servers: &'static Servers,
}

impl Place {
    pub async fn new(topics: &'static [(&'static str, i32)]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("c{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let servers = servers::shared();
        let admin: PgConnectOptions = servers.admin_url().parse().expect("a URL");
        let mut db = PgConnection::connect_with(&admin).await.expect("PostgreSQL answers");
        let create = format!("create database {name}");
        sqlx::query(sqlx::AssertSqlSafe(create)).execute(&mut db).await.expect("a new database");
        let producer = Kafka::new(servers.kafka_brokers()).client().create().expect("a producer");
        // A test that gets no answer says so.
        let client = reqwest::Client::builder().read_timeout(PATIENCE).build().expect("a client");
        let place = Self { name, client, topics, producer, servers };
        // What another run has logged under this name says nothing about this one.
        let _ = std::fs::remove_dir_all(place.logs());
        std::fs::create_dir_all(place.logs()).expect("a folder");
        let retention = Duration::from_secs(24 * 3600);
        let topic =
            |&(name, partitions): &(&str, i32)| Topic { name: name.to_owned(), partitions, retention };
        let topics: Vec<Topic> = topics.iter().map(topic).collect();
        if !topics.is_empty() {
            place.kafka().create_topics(&topics).await.expect("topics");
        }
        place
    }

    pub fn kafka(&self) -> Kafka {
        Kafka { prefix: format!("{}.", self.name), ..Kafka::new(self.servers.kafka_brokers()) }
    }

    pub fn database_url(&self) -> String {
        self.servers.postgres_url(&self.name, "postgres", None)
    }

    fn logs(&self) -> PathBuf {
        servers::folder().join("logs").join(&self.name)
    }

    fn log(&self, instance: &str) -> PathBuf {
        self.logs().join(format!("{instance}.log"))
    }

    /// What a process has said.
    pub fn said(&self, instance: &str) -> String {
        std::fs::read_to_string(self.log(instance)).unwrap_or_default()
    }

    /// Starts a service here, on this port or a free one.
    pub fn start<A: App>(
        &self,
        instance: &str,
        port: Option<u16>,
        settings: &[(&'static str, String)],
    ) -> Process {
        let mut all = vec![
            ("DATABASE_URL", self.database_url()),
            ("KAFKA_BROKERS", self.servers.kafka_brokers()),
            ("TOPIC_PREFIX", format!("{}.", self.name)),
            ("INSTANCE", instance.to_owned()),
        ];
        all.extend(settings.iter().cloned());
        Process::start::<A>(port, &all, &self.log(instance))
    }

    /// What a process answers to `GET`: whether that is a success, and the text.
    pub async fn get(&self, process: &Process, path: &str) -> Option<(bool, String)> {
        let answer = self.client.get(format!("http://127.0.0.1:{}{path}", process.port)).send().await.ok()?;
        Some((answer.status().is_success(), answer.text().await.ok()?))
    }

    /// The sum of a process's metric over its labels, if it has it. A name with labels means that one alone.
    pub async fn metric(&self, process: &Process, name: &str) -> Option<f64> {
        let (_, text) = self.get(process, "/metrics").await?;
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let values = text.lines().filter(of_name);
        values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).reduce(|a, b| a + b)
    }

    /// Waits for a fact.
    pub async fn until(&self, what: &str, fact: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !fact().await {
            if Instant::now() > deadline {
                self.print_logs();
                panic!("{}: waited {PATIENCE:?} for {what}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Shows what the processes said last.
    #[expect(clippy::print_stdout, reason = "the test runner shows it if the test fails")]
    fn print_logs(&self) {
        for log in std::fs::read_dir(self.logs()).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(log.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(LINES)..];
            println!("-- {}\n{}", log.path().display(), last.join("\n"));
        }
    }
}
