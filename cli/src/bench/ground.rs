//! The servers of a measurement: those of a running suite, or its own. It has its own database and topics on them.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use local::{Backend, Options, Ports, Servers, Signal, Terminal, spawn_bound};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use shared::db::{DEFAULT_SCHEMA, Db, DbOptions};
use shared::kafka::Kafka;
use shared::migrations;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use super::app;
use crate::run::Where;
use crate::serve::share_machine;

/// The number of the writers' connections.
pub const WRITERS: u32 = 16;

pub struct Ground {
    /// The servers, if they were started for this measurement.
    own: Option<Servers>,
    state: PathBuf,
    admin: PgConnectOptions,
    /// The part of a URL behind the database's name.
    query: String,
    database: String,
    pub kafka: Kafka,
    pub ports: Ports,
}

impl Ground {
    /// Finds the servers of a running suite, or starts servers. It blocks.
    pub fn lay(place: &Where) -> anyhow::Result<Self> {
        let state = place.state().join("bench");
        std::fs::create_dir_all(&state).with_context(|| format!("can't create {}", state.display()))?;
        let name = format!("bench_{}", std::process::id());
        let (own, ports, admin, brokers) = match place.find() {
            Some(run) => {
                let ports =
                    crate::suite::Suite { ports_from: run.ports_from, ..Default::default() }.server_ports();
                let admin = local::url_beside(&place.state().join("postgres"), ports.postgres);
                (None, ports, admin, format!("127.0.0.1:{}", ports.kafka))
            }
            None => {
                let ports = Ports::free()?;
                let backend = Backend::from_env()?;
                let options = Options { ports, fresh: true, backend, ..Options::new(&state) };
                let servers = Servers::start(&options, &Terminal::new())?;
                let (admin, brokers) = (servers.admin_url(), servers.kafka_brokers());
                (Some(servers), ports, admin, brokers)
            }
        };
        let kafka = Kafka { prefix: format!("{name}."), ..Kafka::new(brokers) };
        let query = admin.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default();
        Ok(Self { own, state, admin: admin.parse()?, query, database: name, kafka, ports })
    }

    /// Creates the database, its tables and the topic.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        self.administer(&format!("create database {}", self.database)).await?;
        let mut db = self.connect().await?;
        let (schema, sets) = (DEFAULT_SCHEMA, &[&migrations::CORE]);
        migrations::apply_sets(&mut db, schema, sets).await.context("the tables can't be made")?;
        db.close().await?;
        self.kafka.create_topics(&[app::topic()]).await?;
        Ok(())
    }

    async fn administer(&self, statement: &str) -> anyhow::Result<()> {
        let mut db = PgConnection::connect_with(&self.admin).await.context("PostgreSQL does not answer")?;
        // The names are our own constants.
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut db).await?;
        Ok(())
    }

    /// Opens a connection for reading the state.
    pub async fn connect(&self) -> anyhow::Result<PgConnection> {
        let path = [("search_path", format!("{DEFAULT_SCHEMA}, public"))];
        let options = self.admin.clone().database(&self.database).options(path);
        PgConnection::connect_with(&options).await.context("the database does not answer")
    }

    /// Returns the database for the writers.
    pub fn db(&self) -> Db {
        DbOptions::new("bench").connections(WRITERS).connect(self.admin.clone().database(&self.database))
    }

    /// Starts the measured process.
    pub fn relay(&self) -> anyhow::Result<Child> {
        let log = self.state.join("relay.log");
        let log = std::fs::File::create(&log).with_context(|| format!("can't write {}", log.display()))?;
        let (port, query) = (self.ports.postgres, &self.query);
        let url = format!("postgres://postgres@127.0.0.1:{port}/{}{query}", self.database);
        let mut command = Command::new(std::env::current_exe()?);
        share_machine(&mut command);
        command
            .args(["bench", "service"])
            .env("DATABASE_URL", url)
            .env("KAFKA_BROKERS", &self.kafka.brokers)
            .env("TOPIC_PREFIX", &self.kafka.prefix)
            .env("OUTBOX_SHARDS", "1")
            .env("HTTP_ADDR", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        spawn_bound(command, Signal::KILL).context("the relay could not be started")
    }

    /// Returns the log of the relay.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.state.join("relay.log")).unwrap_or_default()
    }

    /// Deletes the database and the topic. Failures are ignored: the measurement is done.
    pub async fn clear(&self) {
        let _ = self.administer(&format!("drop database if exists {} with (force)", self.database)).await;
        let admin = self.kafka.client().create::<AdminClient<DefaultClientContext>>();
        if let Ok(admin) = admin {
            let _ = admin.delete_topics(&[&self.kafka.name(app::TOPIC)], &AdminOptions::new()).await;
        }
    }

    /// Stops the servers that were started for this measurement, and deletes their data.
    pub fn leave(self) {
        if let Some(servers) = self.own {
            servers.stop();
            let _ = std::fs::remove_dir_all(&self.state);
        }
    }
}
