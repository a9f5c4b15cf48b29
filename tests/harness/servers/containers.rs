//! Servers in containers, by testcontainers. Their ports are chosen here, because a port that the engine chooses changes when
//! a container is started again.

mod run;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use futures::future::join;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use sqlx::{Connection, PgConnection};
use testcontainers_modules::kafka::apache::{KAFKA_PORT, Kafka};
use testcontainers_modules::postgres::Postgres;
use testcontainers_modules::testcontainers::bollard::Docker;
use testcontainers_modules::testcontainers::bollard::models::{
    HostConfig, NetworkConnectRequest, NetworkDisconnectRequest,
};
use testcontainers_modules::testcontainers::core::client::docker_client_instance;
use testcontainers_modules::testcontainers::runners::AsyncRunner;
use testcontainers_modules::testcontainers::{ContainerAsync, ImageExt};
use tokio::runtime::Runtime;

use self::run::RUN;
use super::{Network, Server, Servers, blocking};

const PATIENCE: Duration = Duration::from_secs(60);

/// The engine's client belongs to the runtime that made it, and a test's runtime ends with its test.
static ENGINE: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a runtime")
});

pub struct Containers {
    postgres: Option<ContainerAsync<Postgres>>,
    kafka: Option<ContainerAsync<Kafka>>,
    postgres_port: u16,
    kafka_port: u16,
}

impl Containers {
    pub fn start() -> Self {
        let free = || local::free_port().expect("a free port");
        let (postgres_port, kafka_port) = (free(), free());
        let (postgres, kafka) = ENGINE.block_on(async {
            let docker = docker_client_instance().await.expect("an engine");
            run::begin(&docker).await;
            join(postgres(postgres_port), kafka(kafka_port)).await
        });
        let started = Self { postgres: Some(postgres), kafka: Some(kafka), postgres_port, kafka_port };
        started.await_ready(Server::Postgres);
        started.await_ready(Server::Kafka);
        started
    }

    fn id(&self, server: Server) -> &str {
        let id = match server {
            Server::Postgres => self.postgres.as_ref().map(|it| it.id()),
            Server::Kafka => self.kafka.as_ref().map(|it| it.id()),
        };
        id.expect("it is there until it is dropped")
    }

    /// Calls the engine about a server's container.
    fn engine(&self, server: Server, ask: impl AsyncFn(Docker, &str) + Send + Sync) {
        blocking(|| {
            ENGINE.block_on(async {
                let docker = docker_client_instance().await.expect("an engine");
                ask(docker, self.id(server)).await;
            });
        });
    }

    fn await_ready(&self, server: Server) {
        let deadline = Instant::now() + PATIENCE;
        let ready = async || match server {
            Server::Postgres => answers(&self.admin_url()).await,
            Server::Kafka => creates_topics(&self.kafka_brokers()).await,
        };
        blocking(|| {
            ENGINE.block_on(async {
                while !ready().await {
                    assert!(Instant::now() < deadline, "{server:?} does not serve within {PATIENCE:?}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        });
    }
}

async fn postgres(port: u16) -> ContainerAsync<Postgres> {
    // As durable as on disk, and for many databases at a time.
    let settings = [
        "max_connections=300",
        "shared_buffers=256MB",
        "jit=off",
        "timezone=UTC",
        "log_timezone=UTC",
        // One test counts statements.
        "shared_preload_libraries=pg_stat_statements",
    ];
    Postgres::default()
        .with_host_auth()
        .with_fsync_enabled()
        .with_tag("18")
        .with_cmd(settings.iter().flat_map(|setting| ["-c", setting]))
        .with_mapped_port(port, 5432.into())
        .with_host_config_modifier(on_loopback)
        .with_label(RUN, run::this().to_string())
        .start()
        .await
        .expect("PostgreSQL starts")
}

async fn kafka(port: u16) -> ContainerAsync<Kafka> {
    let settings = [
        ("KAFKA_NODE_ID", "1"),
        ("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false"),
        ("KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS", "4"),
        ("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1"),
        ("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1"),
        ("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0"),
        // A killed broker counts as alive until its session expires.
        ("KAFKA_BROKER_HEARTBEAT_INTERVAL_MS", "500"),
        ("KAFKA_BROKER_SESSION_TIMEOUT_MS", "3000"),
        // The topics of all tests have some ten thousand partitions, which need the heap. By default this buffer takes 128 MB.
        ("KAFKA_LOG_CLEANER_DEDUPE_BUFFER_SIZE", "8388608"),
        ("KAFKA_HEAP_OPTS", "-Xms64m -Xmx512m"),
    ];
    let image = Kafka::default().with_jvm_image().with_tag("4.3.1");
    let image = settings.into_iter().fold(image, |image, (name, value)| image.with_env_var(name, value));
    image
        .with_mapped_port(port, KAFKA_PORT)
        .with_host_config_modifier(on_loopback)
        .with_label(RUN, run::this().to_string())
        .start()
        .await
        .expect("Kafka starts")
}

/// Publishes the ports on loopback only, because the servers ask for no password.
fn on_loopback(host: &mut HostConfig) {
    let ports = host.port_bindings.iter_mut().flat_map(|ports| ports.values_mut());
    for binding in ports.flatten().flatten() {
        binding.host_ip = Some("127.0.0.1".to_owned());
    }
}

async fn answers(url: &str) -> bool {
    let Ok(mut db) = PgConnection::connect(url).await else { return false };
    sqlx::query("select 1").execute(&mut db).await.is_ok()
}

/// Whether the broker creates topics. Its port is open before it serves.
async fn creates_topics(brokers: &str) -> bool {
    let admin = ClientConfig::new().set("bootstrap.servers", brokers).create();
    let Ok(admin): Result<AdminClient<DefaultClientContext>, _> = admin else { return false };
    let options = AdminOptions::new().validate_only(true).request_timeout(Some(Duration::from_secs(2)));
    let topic = NewTopic::new("readiness", 1, TopicReplication::Fixed(1));
    let outcome = admin.create_topics([&topic], &options).await;
    outcome.is_ok_and(|results| results.iter().all(Result::is_ok))
}

impl Servers for Containers {
    fn postgres_url(&self, database: &str, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.postgres_port)
    }

    fn kafka_brokers(&self) -> String {
        format!("127.0.0.1:{}", self.kafka_port)
    }

    fn kill(&self, server: Server) {
        self.engine(server, async |docker, id| docker.kill_container(id, None).await.expect("killed"));
    }

    fn restart(&self, server: Server) {
        self.engine(server, async |docker, id| {
            // Killing fails if the container was killed before.
            let _ = docker.kill_container(id, None).await;
            docker.start_container(id, None).await.expect("started");
        });
        self.await_ready(server);
    }

    fn freeze(&self, server: Server) {
        self.engine(server, async |docker, id| docker.pause_container(id).await.expect("frozen"));
    }

    fn thaw(&self, server: Server) {
        self.engine(server, async |docker, id| docker.unpause_container(id).await.expect("going on"));
    }

    fn network(&self) -> Option<&dyn Network> {
        Some(self)
    }
}

/// The default network of containers.
const BRIDGE: &str = "bridge";

impl Network for Containers {
    fn cut(&self, server: Server) {
        self.engine(server, async |docker, id| {
            let request = NetworkDisconnectRequest { container: id.to_owned(), force: Some(true) };
            docker.disconnect_network(BRIDGE, request).await.expect("cut off");
        });
    }

    fn mend(&self, server: Server) {
        self.engine(server, async |docker, id| {
            let request = NetworkConnectRequest { container: id.to_owned(), endpoint_config: None };
            docker.connect_network(BRIDGE, request).await.expect("connected");
        });
        self.await_ready(server);
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        let (postgres, kafka) = (self.postgres.take(), self.kafka.take());
        blocking(|| {
            ENGINE.block_on(async {
                // A container that can't be removed here is removed at the end of the run.
                if let Some(postgres) = postgres {
                    let _ = postgres.rm().await;
                }
                if let Some(kafka) = kafka {
                    let _ = kafka.rm().await;
                }
            });
        });
    }
}
