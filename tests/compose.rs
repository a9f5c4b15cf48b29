//! docker-compose.yml: the images are built, the stack comes up, a service, the broker and the database are killed under
//! load, and in the end the books are in order and nothing is left.
//!
//! It needs Docker and minutes, so it is run on its own: `cargo test -p amends --test compose -- --ignored`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::Client;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);
const SERVICES: [&str; 6] = ["order", "payment", "inventory", "shipping", "notification", "orchestrator"];
const PORTS: [(&str, u16); 8] = [
    ("ORDER_PORT", 1),
    ("PAYMENT_PORT", 2),
    ("INVENTORY_PORT", 3),
    ("SHIPPING_PORT", 4),
    ("NOTIFICATION_PORT", 5),
    ("ORCHESTRATOR_PORT", 6),
    ("POSTGRES_PORT", 10),
    ("KAFKA_PORT", 11),
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it builds images and starts the whole stack"]
async fn the_stack_comes_up_survives_what_is_killed_and_leaves_nothing() {
    let stack = Stack::new();
    stack.compose(&["up", "--build", "--wait", "--wait-timeout", "300"]);
    let mut placed = stack.place("before", 20).await;
    for victim in ["payment", "orchestrator", "kafka", "postgres"] {
        let restarts = stack.inspect(victim, "{{.RestartCount}}");
        let (during, ()) = tokio::join!(stack.place(victim, 40), async { stack.crash(victim) });
        placed.extend(during);
        stack
            .until(&format!("{victim} to be started again"), async || {
                stack.inspect(victim, "{{.RestartCount}} {{.State.Health.Status}}")
                    == format!("{} healthy", 1 + restarts.parse::<u32>().expect("a number"))
            })
            .await;
        placed.extend(stack.place(&format!("after {victim}"), 10).await);
    }
    assert_eq!(placed.len(), 20 + 4 * 50, "each request is an order of its own");
    stack.settled(&placed).await;
    stack.audit();

    // SIGTERM reaches the first process of each container, and it ends in order.
    stack.compose(&["stop"]);
    for service in SERVICES {
        assert_eq!(stack.inspect(service, "{{.State.ExitCode}}"), "0", "{service} was told to stop");
    }
    stack.down();
    for (what, list) in [
        ("containers", ["ps", "--all"].as_slice()),
        ("volumes", &["volume", "ls"]),
        ("networks", &["network", "ls"]),
    ] {
        let of_project = format!("label=com.docker.compose.project={}", stack.project);
        let left = docker(&[list, &["--quiet", "--filter", &of_project]].concat());
        assert_eq!(left, "", "{what} are left");
    }
}

/// A stack beside others: a project and ports of its own. Dropped, it is gone.
struct Stack {
    project: String,
    ports_from: u16,
    client: Client,
}

impl Stack {
    fn new() -> Self {
        let project = format!("amends-test-{}", std::process::id());
        let timeout = Duration::from_secs(10);
        let client = Client::builder().timeout(timeout).build().expect("a client");
        Self { project, ports_from: free_ports(), client }
    }

    /// `docker compose` for this stack, with the settings of the example.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.current_dir(root()).args(["compose", "--env-file", ".env.example", "-p", &self.project]);
        command.env_remove("COMPOSE_PROFILES").env_remove("COMPOSE_FILE").args(arguments);
        for (name, offset) in PORTS {
            command.env(name, (self.ports_from + offset).to_string());
        }
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

    fn down(&self) {
        self.compose(&["down", "--volumes", "--remove-orphans"]);
    }

    /// What the engine knows of a service's container.
    fn inspect(&self, service: &str, format: &str) -> String {
        let id = self.compose(&["ps", "--all", "--quiet", service]);
        docker(&["inspect", "--format", format, &id])
    }

    /// Kills the container's first process from outside, as the kernel would: what `docker kill` kills is not started again.
    fn crash(&self, service: &str) {
        let kill = format!("kill -9 {}", self.inspect(service, "{{.State.Pid}}"));
        docker(&["run", "--rm", "--pid=host", "--entrypoint=bash", "postgres:18", "-c", &kill]);
    }

    fn url(&self, service: &str) -> String {
        let offset = SERVICES.iter().position(|known| *known == service).expect("a service") as u16 + 1;
        format!("http://127.0.0.1:{}", self.ports_from + offset)
    }

    /// Places orders at once, each for as long as it takes to be accepted, and returns their ids.
    async fn place(&self, name: &str, orders: usize) -> BTreeSet<String> {
        let one = async |number: usize| {
            let key = format!("{name}-{number}").replace(' ', "-");
            let body = json!({
                "customerId": "ada",
                "items": [{"sku": "lamp", "quantity": 1}],
                "paymentToken": if number.is_multiple_of(5) { "tok_chargeDeclined" } else { "tok_visa" },
                "shippingAddress":
                    {"name": "Ada", "line1": "Main St 1", "city": "Ulm", "postalCode": "89073", "country": "DE"},
            });
            let deadline = Instant::now() + PATIENCE;
            loop {
                let request = self.client.post(format!("{}/orders", self.url("order"))).json(&body);
                let answer = request.header("Idempotency-Key", &key).send().await;
                // No answer, or that there is no database now: the same request again.
                if let Ok(answer) = answer
                    && answer.status().is_success()
                {
                    let order: Value = answer.json().await.expect("JSON");
                    return order["id"].as_str().expect("an id").to_owned();
                }
                assert!(Instant::now() < deadline, "{key} is not accepted within {PATIENCE:?}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        join_all((0..orders).map(one)).await.into_iter().collect()
    }

    async fn settled(&self, orders: &BTreeSet<String>) {
        for order in orders {
            self.until(&format!("{order} to settle"), async || {
                let answer = self.client.get(format!("{}/orders/{order}", self.url("order"))).send().await;
                let Ok(answer) = answer else { return false };
                let order: Value = answer.json().await.unwrap_or_default();
                ["confirmed", "rejected"].iter().any(|end| order["status"] == *end)
            })
            .await;
        }
    }

    /// Money and stock, over all services.
    fn audit(&self) {
        let ports_from = self.ports_from.to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
        let ended = command.args(["audit", "--ports-from", &ports_from]).output().expect("amends can be run");
        assert!(ended.status.success(), "{}", said(&ended));
    }

    async fn until(&self, what: &str, fact: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !fact().await {
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // A test that has failed, too, leaves nothing behind.
        let _ = self.command(&["down", "--volumes", "--remove-orphans", "--timeout", "5"]).output();
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

fn said(ended: &Output) -> String {
    [&ended.stdout, &ended.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

/// The first of thirteen ports of which all that are needed are free.
fn free_ports() -> u16 {
    loop {
        let first = local::free_port().expect("a free port");
        if PORTS.iter().all(|(_, offset)| local::ensure_free(first + offset, "the test").is_ok()) {
            return first;
        }
    }
}
