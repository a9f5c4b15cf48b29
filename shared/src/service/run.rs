//! Runs a process from the parsed command line to the exit code.

use std::io::{self, Write};
use std::str::FromStr;
use std::time::Instant;

use anyhow::Context;
use axum::middleware;
use sqlx::Executor;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::database_url::database_url;
use super::on_demand::OnDemand;
use super::secret::{Secret, SettingError};
use super::*;
use crate::db::DbOptions;
use crate::envelope::new_id;
use crate::kafka::{ClientSettings, TopicChecker};
use crate::retention::Retention;

/// How long an HTTP request may keep running after a stop.
const LONGEST_REQUEST_AT_STOP: Duration = Duration::from_secs(5);

/// The exit code for invalid settings (sysexits.h).
pub(super) const EX_USAGE: u8 = 64;

pub(super) fn process<A: App>(line: CommandLine<A::Config>) -> ExitCode {
    if line.is_ready {
        return report_readiness(address::<A>(&line.common));
    }
    let _telemetry = telemetry::init(A::NAME, line.common.log_format);
    let (database, kafka) = match servers::<A>(&line.common) {
        Ok(servers) => servers,
        Err(wrong) => {
            error!(service = A::NAME, "{wrong}");
            return ExitCode::from(EX_USAGE);
        }
    };
    let retention = Retention { inbox: line.common.inbox_retention, steps: line.common.step_retention };
    if let Err(wrong) = retention.check(A::TOPIC_RETENTION) {
        error!(service = A::NAME, "{wrong}");
        return ExitCode::from(EX_USAGE);
    }
    // Two worker threads are enough: a service waits more than it computes, and six services share a machine. One would
    // save a few percent, but then whatever blocks it stops everything, the orderly end included.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.context("the runtime could not be started").and_then(|runtime| {
        let ended = runtime.block_on(run::<A>(line, database, kafka, retention));
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(service = A::NAME, "{error:#}");
            // A service parses its own secrets when it is set up.
            let wrong_setting = error.is::<instance::NameTaken>() || error.is::<SettingError>();
            if wrong_setting { ExitCode::from(EX_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// Returns how a service reaches its database and the broker.
fn servers<A: App>(common: &Common) -> Result<(PgConnectOptions, Kafka), SettingError> {
    let database = Secret::require(common.database_url.as_ref(), "DATABASE_URL", database_url)?;
    let settings = Secret::parse(common.kafka_settings.as_ref(), "KAFKA_SETTINGS", ClientSettings::from_str)?;
    let kafka = Kafka {
        brokers: common.kafka_brokers.clone(),
        prefix: common.topic_prefix.clone(),
        client_id: A::CLIENT_ID.to_owned(),
        settings: settings.unwrap_or_default(),
        topics: topics::declared::<A>(common.topic_partitions),
    };
    Ok((database, kafka))
}

/// Returns the address of the HTTP interface.
fn address<A: App>(common: &Common) -> SocketAddr {
    common.http_addr.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, A::PORT)))
}

fn report_readiness(address: SocketAddr) -> ExitCode {
    let reason = match readiness_probe::ready(address) {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(reason)) => format!("not ready: {reason}"),
        Err(error) => format!("{address} does not answer: {error}"),
    };
    let _ = writeln!(io::stderr(), "{reason}");
    ExitCode::FAILURE
}

async fn run<A: App>(
    line: CommandLine<A::Config>,
    database: PgConnectOptions,
    kafka: Kafka,
    retention: Retention,
) -> anyhow::Result<()> {
    let common = line.common;
    let instance = common.instance.clone().unwrap_or_else(|| new_id().simple().to_string());
    let (requests, lists) = shares(common.database_connections);
    let db = DbOptions::new(A::NAME)
        .schema(A::SCHEMA)
        .instance(format!("{}-{instance}", A::NAME))
        .connections(common.database_connections - requests - lists)
        .request_connections(requests)
        .list_connections(lists)
        .shards(common.outbox_shards)
        .retention(retention)
        .call_deadline(common.call_deadline)
        .connect(database);
    if line.migrate {
        let mut connection = db.connect().await.context("the database does not answer")?;
        // The service's own tables belong in the role's schema, not in the core's.
        connection.execute("reset search_path").await?;
        let applied = Migrations::of::<A>().apply(&mut connection).await;
        applied.context("the migrations could not be applied")?;
        info!(service = A::NAME, "the database is up to date");
        return Ok(());
    }
    // Listening begins before the set-up, because the first process of a container ignores signals without a
    // listener.
    let signals = StopSignals::listen()?;
    let mut service = Service::new::<A>(line.own, common, db, kafka);
    A::run(&mut service)?;
    service.serve_until_stopped::<A>(signals).await
}

/// Returns how many of the connections are for requests and for lists. The rest is for messages.
fn shares(connections: u32) -> (u32, u32) {
    ((connections * 3 / 10).max(1), (connections / 5).max(1))
}

/// The signals that stop a service.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! { _ = self.terminate.recv() => {}, _ = self.interrupt.recv() => {} }
    }
}

impl<C: Send + Sync + 'static> Service<C> {
    async fn serve_until_stopped<A: App>(mut self, mut signals: StopSignals) -> anyhow::Result<()> {
        let address = address::<A>(&self.common);
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("can't listen on {address}"))?;
        let intake = self.stages.intake.stop.clone();
        let router = self.http_router::<A>()?;
        let limits = http::server::Limits::new(
            self.common.http_connections.min(files::connections()) as usize,
            (self.common.shutdown_grace / 4).min(LONGEST_REQUEST_AT_STOP),
        );
        let stop = intake.clone();
        self.spawn(&self.stages.intake, "http", async move {
            http::server::serve(listener, router, limits, stop).await;
            Ok(())
        });
        let startup = self.startup.clone();
        let (db, kafka, stop) = (self.db.clone(), self.kafka.clone(), intake.clone());
        let started = startup.run(db, kafka, self.migrations, stop);
        self.spawn(&self.stages.intake, "startup", started);
        self.hold_name();
        self.relay();
        self.watch_topics::<A>();
        self.run_housekeeper();
        let upkeep = intake.clone();
        self.spawn(&self.stages.intake, "metrics upkeep", async move {
            while upkeep.run_until_cancelled(tokio::time::sleep(Duration::from_secs(5))).await.is_some() {
                telemetry::upkeep();
            }
            Ok(())
        });
        let db = self.db.clone();
        self.spawn(&self.stages.intake, "parked keys", async move {
            crate::parked::count(db, intake).await;
            Ok(())
        });
        info!(service = self.name, %address, "serving");

        let failed = tokio::select! {
            () = signals.next() => false,
            () = self.failed.cancelled() => true,
        };
        info!(service = self.name, "stopping");
        let hard = async {
            tokio::select! { () = signals.next() => {}, () = tokio::time::sleep(self.common.shutdown_grace) => {} }
        };
        tokio::select! {
            () = self.drain() => {}
            () = hard => warn!(service = self.name, "stopped before everything was finished; the rest is resumed at the next start"),
        }
        if let Some(taken) = self.instance.taken() {
            return Err(taken.into());
        }
        anyhow::ensure!(!failed, "a task of the service ended before the stop");
        Ok(())
    }

    /// Returns the service's own routes and those that all services have.
    fn http_router<A: App>(&mut self) -> anyhow::Result<Router> {
        let topics: Vec<&str> = self.messages.topics().collect();
        let health = Health {
            db: self.db.clone(),
            broker: TopicChecker::new(&self.kafka, &topics)?,
            stopping: self.stages.intake.stop.clone(),
            startup: self.startup.clone(),
            assigned: Arc::clone(&self.assigned),
            migrations: self.migrations,
            dependencies: self.dependencies.clone(),
            topics: Arc::clone(&self.topics),
            instance: Arc::clone(&self.instance),
        };
        let (health, readiness, stop) =
            (Arc::new(health), OnDemand::new(health::MAX_AGE), self.stages.intake.stop.clone());
        let checking = readiness.clone().run(move || health::check(Arc::clone(&health)), stop);
        self.spawn(&self.stages.intake, "readiness", async move {
            checking.await;
            Ok(())
        });
        let parked = parked::App {
            db: self.db.for_requests(),
            messages: Arc::clone(&self.messages),
            stopping: self.stages.intake.stop.clone(),
        };
        let steps = steps::App { db: self.db.for_requests(), messages: Arc::clone(&self.messages) };
        // The document is kept as bytes, because routes are cloned and the document has a hundred kilobytes.
        let openapi = openapi::<A>();
        let document = axum::body::Bytes::from(serde_json::to_vec(&openapi)?);
        let json = [(axum::http::header::CONTENT_TYPE, "application/json")];
        let router = std::mem::take(&mut self.router)
            .layer(middleware::from_fn(http::limited))
            .merge(audit::router(self.db.for_lists()))
            .merge(relay::router(self.db.for_requests()))
            .merge(parked::router(parked))
            .merge(steps::router(steps))
            .layer(middleware::from_fn_with_state(self.startup.clone(), startup::only_with_a_database))
            .route("/openapi.json", axum::routing::get(async move || (json, document.clone())))
            .merge(health::router(readiness));
        Ok(http::finish(router, &serde_json::to_value(&openapi)?))
    }

    /// Stops the tasks in order: those that accept work, those that finish it, and the relay. The relay sends the
    /// rows that were already committed.
    ///
    /// Each stage has a share of the grace period, so that what hangs in one does not cost the others their turn. What a
    /// stage leaves keeps running beside the next one.
    async fn drain(&self) {
        let began = Instant::now();
        let share = self.common.shutdown_grace / 3;
        // HTTP requests that wait for running work belong to the intake stage, so the work continues until they are
        // answered.
        let stages =
            [("intake", &self.stages.intake), ("work", &self.stages.work), ("relay", &self.stages.relay)];
        for (turn, (stage, tasks)) in (1..).zip(stages) {
            let longest = (share * turn).saturating_sub(began.elapsed());
            if tokio::time::timeout(longest, tasks.end()).await.is_err() {
                warn!(
                    service = self.name,
                    stage, "a stage did not end in time; the rest is resumed at the next start"
                );
            }
        }
        self.db.close();
        info!(service = self.name, took = ?began.elapsed(), "stopped");
    }
}
