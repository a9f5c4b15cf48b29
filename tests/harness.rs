//! A suite for each test: its own databases, topics and processes, on shared servers or on servers of its own.

mod audit;
#[cfg(feature = "containers")]
mod cleanup;
pub mod clock;
pub mod detour;
pub mod kafka;
mod order;
pub mod parked;
pub mod pooler;
mod process;
pub mod proxy;
mod rest;
pub mod restore;
mod sequence;
pub mod servers;
pub mod smtp;
pub mod sql;
mod standing;
mod statistics;
pub mod steps;
mod topics;
/// The command line's map from names to types. `amends` is a program, so its module is included as a file.
#[path = "../cli/src/serve/visit.rs"]
mod visit;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
pub use schemas::SERVICES;
use serde_json::{Value, json};
use shared::service::{self, App};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

pub use self::order::{Order, id, order};
pub use self::process::Process;
use self::servers::Servers;
use self::visit::{Visit, visit};

/// How long a test waits for a fact. It is long, because it ends a broken test and measures nothing.
pub const PATIENCE: Duration = Duration::from_secs(90);

pub static NUMBER: AtomicU32 = AtomicU32::new(1);

/// A whole suite. Its processes are killed when it is dropped.
pub struct Suite {
    pub name: String,
    pub client: reqwest::Client,
    pub servers: Arc<dyn Servers>,
    /// The processes by service and number of the replica.
    processes: BTreeMap<(&'static str, usize), Process>,
    /// The databases that are not on the suite's servers, by service.
    databases: BTreeMap<&'static str, String>,
    services: Vec<&'static str>,
    replicas: usize,
    settings: Vec<(&'static str, String)>,
}

/// The differences from the usual suite.
#[derive(Default)]
pub struct Setup {
    /// Whether it has its own servers, for tests that break them.
    pub own_servers: bool,
    /// How many further processes each service has.
    pub twins: usize,
    /// The only service that runs, for a test that speaks to it by messages alone.
    pub only: Option<&'static str>,
    /// Further environment variables of the services.
    pub settings: Vec<(&'static str, String)>,
}

/// Returns a client with a timeout, so that a test fails if no answer comes.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().read_timeout(PATIENCE).build().expect("a client")
}

struct Migrate<'s>(&'s Suite);

impl<'s> Visit for Migrate<'s> {
    type Output = BoxFuture<'s, ()>;

    fn visit<A: App>(self) -> Self::Output {
        Box::pin(async move {
            let mut db = self.0.connect(A::NAME).await;
            service::migrate::<A>(&mut db).await.expect("migrations");
        })
    }
}

impl Suite {
    /// Starts the usual suite with some products, and waits until it is ready.
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    /// A suite without topics, databases and processes.
    pub fn on_bare_servers() -> Self {
        Self::of(Setup::default())
    }

    fn of(setup: Setup) -> Self {
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let servers = if setup.own_servers { servers::own(&name) } else { servers::shared() };
        Self {
            name,
            client: client(),
            servers,
            processes: BTreeMap::new(),
            databases: BTreeMap::new(),
            services: setup.only.map_or(SERVICES.to_vec(), |only| vec![only]),
            replicas: 1 + setup.twins,
            settings: setup.settings,
        }
    }

    pub async fn with(setup: Setup) -> Self {
        let only = setup.only;
        let mut suite = Self::of(setup);
        suite.prepare().await;
        for (service, replica) in suite.replicas() {
            suite.launch_replica(service, replica);
        }
        for (service, replica) in suite.replicas() {
            suite.replica_ready(service, replica).await;
        }
        if suite.services.contains(&"inventory") {
            suite.stock("lamp", 4900, 1000).await;
            suite.stock("mug", 1200, 1000).await;
            suite.stock("poster", 6000, 3).await;
        }
        if only.is_some() {
            return suite;
        }
        suite
            .until("the products to be known", async |suite| {
                let products = suite.get("order", "/products").await;
                products["products"].as_array().is_some_and(|known| known.len() == 3)
            })
            .await;
        suite
    }

    /// Creates databases, tables and topics.
    async fn prepare(&self) {
        let admin: PgConnectOptions = self.servers.admin_url().parse().expect("a URL");
        let mut db = PgConnection::connect_with(&admin).await.expect("PostgreSQL answers");
        for &service in &self.services {
            let create = format!("create database {}_{service}", self.name);
            sqlx::query(sqlx::AssertSqlSafe(create)).execute(&mut db).await.expect("a new database");
        }
        for &service in &self.services {
            visit(service, Migrate(self)).expect("a service").await;
        }
        let mut topics = schemas::topics::all();
        topics.retain(|topic| {
            let uses = |service: &str| {
                schemas::topics::writes(service, &topic.name) || kafka::listens(service, &topic.name)
            };
            self.services.iter().any(|service| uses(service))
        });
        self.kafka().create_topics(&topics).await.expect("topics");
    }

    pub fn database_url(&self, service: &str) -> String {
        let moved = self.databases.get(service).cloned();
        moved.unwrap_or_else(|| self.servers.postgres_url(&format!("{}_{service}", self.name), "postgres"))
    }

    /// Returns the service and the replica's number of every process that runs or will run.
    pub fn replicas(&self) -> Vec<(&'static str, usize)> {
        let of = |&service| (0..self.replicas).map(move |replica| (service, replica));
        self.services.iter().flat_map(of).collect()
    }

    /// Starts a service's process.
    pub fn launch(&mut self, service: &'static str) {
        self.launch_replica(service, 0);
    }

    /// Starts one of a service's processes, on the port that it had before.
    pub fn launch_replica(&mut self, service: &'static str, replica: usize) {
        let mut settings = vec![
            ("DATABASE_URL", self.database_url(service)),
            ("KAFKA_BROKERS", self.servers.kafka_brokers()),
            ("TOPIC_PREFIX", format!("{}.", self.name)),
            ("INSTANCE", replica.to_string()),
            // Parcels are not picked up unless a test sets another time, however slowly it runs.
            ("SHIPPING_DISPATCH_AFTER", "1h".to_owned()),
        ];
        settings.extend(self.settings.iter().cloned());
        let port = self.processes.get(&(service, replica)).map(|process| process.port);
        let log = self.log(service, replica);
        self.processes.insert((service, replica), Process::start(service, port, &settings, &log));
    }

    /// Sets an environment variable for the services that are started from now on; `None` removes it.
    pub fn set(&mut self, variable: &'static str, value: Option<String>) {
        self.settings.retain(|(name, _)| *name != variable);
        self.settings.extend(value.map(|value| (variable, value)));
    }

    /// Returns the path of a process's log.
    pub fn log(&self, service: &str, replica: usize) -> PathBuf {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{service}-{replica}.log", self.name))
    }

    pub fn process(&mut self, service: &'static str) -> &mut Process {
        self.replica(service, 0)
    }

    pub fn replica(&mut self, service: &'static str, replica: usize) -> &mut Process {
        self.processes
            .get_mut(&(service, replica))
            .unwrap_or_else(|| panic!("no process {service}-{replica}"))
    }

    /// Kills a service, as a crash does.
    pub fn kill9(&mut self, service: &'static str) {
        self.process(service).kill9();
    }

    /// Kills a service, as a crash does, and starts it again.
    pub fn crash(&mut self, service: &'static str) {
        self.kill9(service);
        self.launch(service);
    }

    /// Lets a frozen service continue.
    pub fn processes_go_on(&self, service: &'static str) {
        self.processes[&(service, 0)].signal(local::Signal::CONT);
    }

    /// Returns the suite as clients see it, without its processes.
    pub fn client_side(&self) -> Self {
        Self {
            name: self.name.clone(),
            client: self.client.clone(),
            servers: Arc::clone(&self.servers),
            processes: BTreeMap::new(),
            databases: self.databases.clone(),
            services: Vec::new(),
            replicas: 0,
            settings: Vec::new(),
        }
    }

    pub fn url(&self, service: &'static str) -> String {
        self.replica_url(service, 0)
    }

    pub fn replica_url(&self, service: &'static str, replica: usize) -> String {
        let process = self.processes.get(&(service, replica));
        let process = process.unwrap_or_else(|| panic!("no process {service}-{replica}"));
        format!("http://127.0.0.1:{}", process.port)
    }

    pub async fn ready(&self, service: &'static str) {
        self.replica_ready(service, 0).await;
    }

    pub async fn replica_ready(&self, service: &'static str, replica: usize) {
        let url = format!("{}/readyz", self.replica_url(service, replica));
        self.until(&format!("{service}-{replica} to be ready"), async |suite| {
            suite.client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }

    pub async fn get(&self, service: &'static str, path: &str) -> Value {
        let answer = self.client.get(format!("{}{path}", self.url(service))).send().await.expect("an answer");
        assert!(answer.status().is_success(), "GET {path}: {}", answer.status());
        answer.json().await.expect("JSON")
    }

    /// Adds a product with some pieces.
    pub async fn stock(&self, sku: &str, price: i64, pieces: i64) {
        let product = json!({"name": sku, "price": {"amount": price, "currency": "EUR"}});
        let url = format!("{}/products/{sku}", self.url("inventory"));
        let put = self.client.put(&url).json(&product).send().await.expect("an answer");
        assert!(put.status().is_success(), "{}", put.status());
        let receipt = self.client.post(format!("{url}/receipts")).json(&json!({"quantity": pieces}));
        assert!(receipt.send().await.expect("an answer").status().is_success());
    }

    /// Waits for a fact.
    pub async fn until(&self, what: &str, fact: impl AsyncFn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !fact(self).await {
            if Instant::now() > deadline {
                self.print_standing(what).await;
                panic!("{}: waited {PATIENCE:?} for {what}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
