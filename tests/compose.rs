//! docker-compose.yml: the images are built, the stack comes up, services, the broker and the database are killed under
//! load, all of it is stopped and started again. In the end the audit passes, and nothing is left behind.
//!
//! It needs Docker and takes minutes, so it is run separately: `cargo test -p amends --test compose -- --ignored`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use reqwest::Client;
use schemas::SERVICES;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::task::{JoinSet, block_in_place};

use self::cleanup::when_this_has_ended;

#[path = "harness/cleanup.rs"]
mod cleanup;

const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How many orders are under way at a time.
const CLIENTS: usize = 8;
/// How far each server's port is from the stack's first one.
const POSTGRES: u16 = 10;
const KAFKA: u16 = 11;

/// The variables that set the published ports, and how far each port is from the stack's first one.
fn ports() -> Vec<(String, u16)> {
    let mut ports: Vec<_> = SERVICES.into_iter().zip(1..).collect();
    ports.extend([("postgres", POSTGRES), ("kafka", KAFKA)]);
    ports.into_iter().map(|(name, offset)| (format!("{}_PORT", name.to_uppercase()), offset)).collect()
}

/// The final status that each order must reach, by the order's id.
type Placed = BTreeMap<String, &'static str>;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it builds images and starts the whole stack"]
async fn the_stack_comes_up_survives_what_is_killed_and_leaves_nothing() {
    let stack = Arc::new(Stack::new());
    // The services of the profiles are not started here, but their definitions must be well-formed.
    stack.compose(&["--profile", "*", "config", "--quiet"]);
    stack.up();
    stack.roles_are_kept_apart().await;

    let mut placed = Placed::new();
    for victim in ["payment", "orchestrator", "kafka", "postgres"] {
        let restarts: u32 = stack.inspect(victim, "{{.RestartCount}}").parse().expect("a number");
        let is_back = || {
            let state = stack.inspect(victim, "{{.RestartCount}} {{.State.Health.Status}}");
            let (count, health) = state.split_once(' ').expect("two words");
            count.parse::<u32>().expect("a number") > restarts && health == "healthy"
        };
        let kill = async || {
            block_in_place(|| stack.crash(victim));
            until(&format!("{victim} to be started again"), || async { block_in_place(is_back) }).await;
        };
        placed.extend(stack.under_load(victim, kill).await);
    }
    let stop = async || {
        block_in_place(|| {
            stack.compose(&["stop"]);
            stack.all_ended_in_order();
            stack.up();
        });
    };
    placed.extend(stack.under_load("all", stop).await);
    stack.all_are_well(&placed).await;

    // New containers, on the same volumes.
    let mut volumes = stack.volumes();
    stack.compose(&["down"]);
    stack.up();
    stack.all_are_well(&placed).await;

    volumes.extend(stack.volumes());
    stack.compose(&["down", "--volumes"]);
    let left: BTreeSet<String> = lines(&docker(&["volume", "ls", "--quiet"])).collect();
    assert!(left.is_disjoint(&volumes), "of the volumes {volumes:?} some are left: {left:?}");
    for (what, list) in [("containers", ["ps", "--all"].as_slice()), ("networks", &["network", "ls"])] {
        let of_project = format!("label=com.docker.compose.project={}", stack.project);
        let left = docker(&[list, &["--quiet", "--filter", &of_project]].concat());
        assert_eq!(left, "", "{what} are left");
    }
}

/// A stack with its own project, ports and passwords. It is taken down when this is dropped, or when this process ends
/// otherwise.
struct Stack {
    project: String,
    ports_from: u16,
    client: Client,
    reaper: Child,
}

impl Stack {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        let project = format!("amends-test-{now}-{}", std::process::id());
        // A killed test may have left a running `docker compose`, so end that first.
        let down = "pkill -f -- \"--env-file .env.example -p $0\"
            docker compose -p \"$0\" down --volumes --remove-orphans --timeout 5";
        let reaper = when_this_has_ended(down, &project);
        let client = Client::builder().timeout(Duration::from_secs(10)).build().expect("a client");
        Self { project, ports_from: free_ports(), client, reaper }
    }

    /// Returns the command `docker compose` for this stack, with the settings of the example.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.current_dir(root()).args(["compose", "--env-file", ".env.example", "-p", &self.project]);
        for name in
            ["COMPOSE_PROFILES", "COMPOSE_FILE", "NOTIFICATION_SMTP_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"]
        {
            command.env_remove(name);
        }
        command.args(arguments);
        for (name, offset) in ports() {
            command.env(name, (self.ports_from + offset).to_string());
        }
        for role in ["postgres", "migrations"].into_iter().chain(SERVICES) {
            command.env(format!("{}_PASSWORD", role.to_uppercase()), password(role));
        }
        // Sagas must take long enough to be interrupted.
        command.env("PAYMENT_PROVIDER_LATENCY", "200ms");
        // Orders must stay `confirmed`.
        command.env("SHIPPING_DISPATCH_AFTER", "1h");
        command
    }

    fn compose(&self, arguments: &[&str]) -> String {
        let ended = self.command(arguments).output().expect("docker compose can be run");
        if !ended.status.success() {
            let logs = self.command(&["logs", "--tail", "20"]).output().expect("docker compose can be run");
            panic!("compose {arguments:?}: {}\n{}", said(&ended), said(&logs));
        }
        String::from_utf8_lossy(&ended.stdout).trim().to_owned()
    }

    fn up(&self) {
        self.compose(&["up", "--build", "--wait", "--wait-timeout", "300"]);
    }

    /// Inspects a service's container.
    fn inspect(&self, service: &str, format: &str) -> String {
        let id = self.compose(&["ps", "--all", "--quiet", service]);
        docker(&["inspect", "--format", format, &id])
    }

    /// Returns all volumes of its containers, including those without a name.
    fn volumes(&self) -> BTreeSet<String> {
        let all: Vec<String> = lines(&self.compose(&["ps", "--all", "--quiet"])).collect();
        let names = "{{range .Mounts}}{{println .Name}}{{end}}";
        let mut inspect = vec!["inspect", "--format", names];
        inspect.extend(all.iter().map(String::as_str));
        let volumes: BTreeSet<String> = lines(&docker(&inspect)).collect();
        assert!(volumes.len() >= 2, "those of PostgreSQL and Kafka: {volumes:?}");
        volumes
    }

    /// Kills the container's first process, as the kernel does. Compose does not restart a container after `docker kill`.
    fn crash(&self, service: &str) {
        let pid: u32 = self.inspect(service, "{{.State.Pid}}").parse().expect("a number");
        assert!(pid > 1, "{service} runs");
        let kill = format!("kill -9 {pid}");
        docker(&["run", "--rm", "--pid=host", "--entrypoint=bash", "postgres:18", "-c", &kill]);
    }

    /// Checks that SIGTERM has reached the first process of each container, and that it has finished its work.
    fn all_ended_in_order(&self) {
        for service in SERVICES {
            assert_eq!(self.inspect(service, "{{.State.ExitCode}}"), "0", "{service} was told to stop");
            let log = self.compose(&["logs", "--no-log-prefix", "--tail", "20", service]);
            let in_order = log.contains("stopped") && !log.contains("before everything was finished");
            assert!(in_order, "{service}: {log}");
        }
    }

    fn url(&self, service: &str) -> String {
        let offset = SERVICES.iter().position(|known| *known == service).expect("a service") as u16 + 1;
        format!("http://127.0.0.1:{}", self.ports_from + offset)
    }

    /// Connects to a database through the published port.
    async fn connect(&self, role: &str, password: &str, database: &str) -> Result<(), String> {
        let port = self.ports_from + POSTGRES;
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port);
        let options = options.username(role).password(password).database(database);
        match PgConnection::connect_with(&options).await {
            Ok(connection) => connection.close().await.map_err(|error| error.to_string()),
            Err(error) => {
                let code = error.as_database_error().and_then(|error| error.code());
                Err(code.map_or(error.to_string(), |code| code.into_owned()))
            }
        }
    }

    /// Checks that a role can connect to its own database with its own password, and to no other one.
    async fn roles_are_kept_apart(&self) {
        for role in SERVICES {
            assert_eq!(self.connect(role, "amends", role).await, Err("28P01".to_owned()), "{role}");
            for database in SERVICES.into_iter().chain(["postgres", "template1"]) {
                let refused = if database == role { Ok(()) } else { Err("42501".to_owned()) };
                let connected = self.connect(role, &password(role), database).await;
                assert_eq!(connected, refused, "{role} and the database {database}");
            }
        }
    }

    /// Runs `what` while clients place orders. Each places the next order when its last one has settled, so some are always
    /// under way.
    async fn under_load(self: &Arc<Self>, name: &'static str, what: impl AsyncFnOnce()) -> Placed {
        let over = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let (stack, over) = (Arc::clone(self), Arc::clone(&over));
            clients.spawn(async move {
                let mut placed = Placed::new();
                // Each client places at least one order afterwards.
                loop {
                    let last = over.load(Ordering::Acquire);
                    let key = format!("{name}-{client}-{}", placed.len());
                    let (order, end) = stack.place(&key, placed.len()).await;
                    stack.settled(&order, end).await;
                    placed.insert(order, end);
                    if last {
                        return placed;
                    }
                }
            });
        }
        let pending = format!("{}/orders?status=pending", self.url("order"));
        until("orders to be under way", || async {
            let Ok(answer) = self.client.get(&pending).send().await else { return false };
            let list: Value = answer.json().await.unwrap_or_default();
            list["orders"].as_array().is_some_and(|orders| orders.len() >= CLIENTS / 2)
        })
        .await;
        what().await;
        over.store(true, Ordering::Release);
        clients.join_all().await.into_iter().flatten().collect()
    }

    /// Repeats an order until it is accepted. Returns its id and the final status that it must reach.
    async fn place(&self, key: &str, number: usize) -> (String, &'static str) {
        let (token, end) =
            if number % 5 == 4 { ("tok_chargeDeclined", "rejected") } else { ("tok_visa", "confirmed") };
        let body = json!({
            "customerId": "ada",
            "items": [{"sku": "lamp", "quantity": 1}],
            "paymentToken": token,
            "shippingAddress":
                {"name": "Ada", "line1": "Main St 1", "city": "Ulm", "postalCode": "89073", "country": "DE"},
        });
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = self.client.post(format!("{}/orders", self.url("order"))).json(&body);
            // If there is no answer, or no database, the same request is sent again.
            if let Ok(answer) = request.header("Idempotency-Key", key).send().await
                && answer.status().is_success()
                && let Ok(order) = answer.json::<Value>().await
            {
                return (order["id"].as_str().expect("an id").to_owned(), end);
            }
            assert!(Instant::now() < deadline, "{key} is not accepted within {PATIENCE:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn settled(&self, order: &str, end: &str) {
        let url = format!("{}/orders/{order}", self.url("order"));
        until(&format!("{order} to be {end}"), || async {
            let Ok(answer) = self.client.get(&url).send().await else { return false };
            answer.json::<Value>().await.is_ok_and(|order| order["status"] == *end)
        })
        .await;
    }

    /// Checks that every order has reached its final state, and that all nine invariants of the audit hold.
    async fn all_are_well(&self, placed: &Placed) {
        for (order, end) in placed {
            self.settled(order, end).await;
        }
        let ports_from = self.ports_from.to_string();
        let mut audit = Command::new(env!("CARGO_BIN_EXE_amends"));
        for name in ["KAFKA_BROKERS", "KAFKA_SETTINGS", "TOPIC_PREFIX", "AMENDS_URLS"] {
            audit.env_remove(name);
        }
        let ended = audit.args(["audit", "--wait", "60s", "--ports-from", &ports_from]).output();
        let ended = ended.expect("amends can be run");
        assert!(ended.status.success(), "{}", said(&ended));
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        drop(self.reaper.stdin.take());
        let _ = self.reaper.wait();
    }
}

/// Returns a password with characters that are special in a shell, a URL and SQL.
fn password(role: &str) -> String {
    format!("{role} $1 'ä' \"@:/%\\")
}

/// Waits for a fact. It is not an `AsyncFn`, because its future must be `Send` for the clients' tasks.
async fn until<F: Future<Output = bool>>(what: &str, fact: impl Fn() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !fact().await {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn docker(arguments: &[&str]) -> String {
    let ended = Command::new("docker").args(arguments).output().expect("docker can be run");
    assert!(ended.status.success(), "docker {arguments:?}: {}", said(&ended));
    String::from_utf8_lossy(&ended.stdout).trim().to_owned()
}

fn lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned)
}

fn said(ended: &Output) -> String {
    [&ended.stdout, &ended.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

/// Returns the first of thirteen ports. Those that the stack needs are free.
fn free_ports() -> u16 {
    loop {
        let first = local::free_port().expect("a free port");
        if ports().iter().all(|(_, offset)| local::ensure_free(first + offset, "the test").is_ok()) {
            return first;
        }
    }
}
