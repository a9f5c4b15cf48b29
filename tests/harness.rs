//! A suite per test: its own databases, topics and processes on shared servers, or on servers of its own.

pub mod kafka;
mod order;
mod process;
pub mod relay;
mod rest;
mod sql;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use local::{Options, Ports, Servers, Silent};
use serde_json::{Value, json};
use shared::service::{App, migrations};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

pub use self::order::{Order, order};
use self::process::Process;

/// How long anything may take that the suite does by itself. Generous: it ends a broken test, it times nothing.
pub const PATIENCE: Duration = Duration::from_secs(90);

pub const SERVICES: [&str; 6] = ["order", "payment", "inventory", "shipping", "notification", "orchestrator"];

static NUMBER: AtomicU32 = AtomicU32::new(1);
static SHARED: LazyLock<Arc<Servers>> = LazyLock::new(|| Arc::new(start_servers("servers")));

/// The servers that most tests share.
fn shared_servers() -> Arc<Servers> {
    std::thread::scope(|scope| scope.spawn(|| Arc::clone(&SHARED)).join()).expect("servers")
}

fn start_servers(name: &str) -> Servers {
    let state = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let ports = Ports::free().expect("free ports");
    let options = Options { ports, fresh: true, ..Options::new(state) };
    // Blocking, and not on a runtime's thread: the readiness checks bring a runtime of their own.
    std::thread::scope(|scope| scope.spawn(|| Servers::start(&options, &Silent)).join())
        .expect("the start does not panic")
        .unwrap_or_else(|error| panic!("the servers start: {error}"))
}

/// A whole suite. Dropped, its processes are gone.
pub struct Suite {
    pub name: String,
    pub client: reqwest::Client,
    pub servers: Arc<Servers>,
    processes: BTreeMap<&'static str, Process>,
    settings: Vec<(&'static str, String)>,
}

/// What differs from the usual suite.
#[derive(Default)]
pub struct Setup {
    /// Servers that no other test uses, for faults of theirs.
    pub own_servers: bool,
    /// Further environment variables of the services.
    pub settings: Vec<(&'static str, String)>,
}

impl Suite {
    /// The usual suite, ready, with products on its shelves.
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let servers = if setup.own_servers { Arc::new(start_servers(&name)) } else { shared_servers() };
        let mut suite = Self {
            name,
            client: reqwest::Client::new(),
            servers,
            processes: BTreeMap::new(),
            settings: setup.settings,
        };
        suite.prepare().await;
        for service in SERVICES {
            suite.launch(service);
        }
        for service in SERVICES {
            suite.ready(service).await;
        }
        suite.stock("lamp", 4900, 1000).await;
        suite.stock("mug", 1200, 1000).await;
        suite.stock("poster", 6000, 3).await;
        suite
            .until("the products to be known", async |suite| {
                let products = suite.get("order", "/products").await;
                products["products"].as_array().is_some_and(|known| known.len() == 3)
            })
            .await;
        suite
    }

    /// Databases, tables and topics.
    async fn prepare(&self) {
        let admin: PgConnectOptions = self.servers.admin_url().parse().expect("a URL");
        let mut db = PgConnection::connect_with(&admin).await.expect("PostgreSQL answers");
        for service in SERVICES {
            let create = format!("create database {}_{service}", self.name);
            sqlx::query(sqlx::AssertSqlSafe(create)).execute(&mut db).await.expect("a new database");
        }
        self.migrate::<::order::Order>().await;
        self.migrate::<payment::Payment>().await;
        self.migrate::<inventory::Inventory>().await;
        self.migrate::<shipping::Shipping>().await;
        self.migrate::<notification::Notification>().await;
        self.migrate::<orchestrator::Orchestrator>().await;
        self.kafka().create_topics(&schemas::topics::all()).await.expect("topics");
    }

    async fn migrate<A: App>(&self) {
        let mut db = self.connect(A::NAME).await;
        migrations::<A>().run_direct(None, &mut db, false).await.expect("migrations");
    }

    pub fn database_url(&self, service: &str) -> String {
        self.servers.postgres_url(&format!("{}_{service}", self.name), "postgres", None)
    }

    /// Starts a service's process.
    pub fn launch(&mut self, service: &'static str) {
        let mut settings = vec![
            ("DATABASE_URL", self.database_url(service)),
            ("KAFKA_BROKERS", self.servers.kafka_brokers()),
            ("TOPIC_PREFIX", format!("{}.", self.name)),
            ("INSTANCE", "0".to_owned()),
        ];
        settings.extend(self.settings.iter().cloned());
        let port = self.processes.get(service).map(|process| process.port);
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{service}.log", self.name));
        self.processes.insert(service, Process::start(service, port, &settings, &log));
    }

    pub fn process(&mut self, service: &str) -> &mut Process {
        self.processes.get_mut(service).unwrap_or_else(|| panic!("no process {service}"))
    }

    /// Ends a service as a crash would.
    pub fn kill9(&mut self, service: &'static str) {
        self.process(service).kill9();
    }

    /// Ends a service as a crash would, and starts it again.
    pub fn crash(&mut self, service: &'static str) {
        self.kill9(service);
        self.launch(service);
    }

    /// Lets a frozen service go on.
    pub fn processes_go_on(&self, service: &str) {
        self.processes[service].signal(local::Signal::CONT);
    }

    /// The suite as clients see it, without its processes.
    pub fn client_side(&self) -> Self {
        Self {
            name: self.name.clone(),
            client: self.client.clone(),
            servers: Arc::clone(&self.servers),
            processes: BTreeMap::new(),
            settings: Vec::new(),
        }
    }

    pub fn url(&self, service: &str) -> String {
        let process = self.processes.get(service).unwrap_or_else(|| panic!("no process {service}"));
        format!("http://127.0.0.1:{}", process.port)
    }

    pub async fn ready(&self, service: &str) {
        let url = format!("{}/readyz", self.url(service));
        self.until(&format!("{service} to be ready"), async |suite| {
            suite.client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }

    pub async fn get(&self, service: &str, path: &str) -> Value {
        let answer = self.client.get(format!("{}{path}", self.url(service))).send().await.expect("an answer");
        assert!(answer.status().is_success(), "GET {path}: {}", answer.status());
        answer.json().await.expect("JSON")
    }

    /// Puts a product on the shelves.
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
            assert!(Instant::now() < deadline, "{}: waited {PATIENCE:?} for {what}", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
