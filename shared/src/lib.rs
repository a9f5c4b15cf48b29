//! What every Amends service is built from: the message envelope, the transactional outbox and its relay, the inbox
//! (the idempotency store), the batch consumer, saga steps, calls to the outside, and the bootstrap that runs them over
//! PostgreSQL and Kafka. It knows nothing of orders, and can be lifted into another system as it is.
//!
//! # The guarantees, and where they come from
//!
//! - **Effect and message are one transaction.** A write goes through [`inbox::Claimed`], which is the only way to a
//!   writable connection and to the outbox; both are committed together or not at all.
//! - **Every committed outbox row reaches Kafka at least once, in order per key.** See [`relay`].
//! - **Every message takes effect once.** The consumer claims message ids in the transaction of their effect
//!   ([`consumer`]); a command is claimed a second time by its saga step ([`steps`]).
//! - **Messages of one key are handled in the order of their topic.** A message that fails for good is parked with
//!   every later one of its key ([`parked`]); other keys flow on.
//! - **No call to the outside happens inside a transaction**, and each is made under a key of its own ([`effects`]). An
//!   outside that is silent is hardly called ([`breaker`]).
//! - **Nothing fails unseen.** A task that ends by itself ends its process ([`service`]).
//!
//! What is asked of the surroundings: the database keeps what it has committed (a failover to an asynchronous replica
//! does not), the topics keep their records longer than a consumer is away, and a saga asks again until it is answered.
//!
//! # A service
//!
//! This one grants points to customers, in its database, and prints vouchers, for which it asks a printer. It is
//! complete: run, it serves HTTP with `/healthz`, `/readyz` and `/metrics`, takes its commands from Kafka as a member of
//! the consumer group `loyalty`, answers them on `orchestrator.replies`, and stops in order on SIGTERM.
//!
//! ```no_run
//! use std::error::Error;
//! use std::process::ExitCode;
//! use std::sync::Arc;
//!
//! use serde::{Deserialize, Serialize};
//! use shared::consumer::Table;
//! use shared::effects::Effect;
//! use shared::envelope::{Command, Event, Message};
//! use shared::fault::Fault;
//! use shared::inbox::Claimed;
//! use shared::service::{self, App, Service};
//! use shared::steps::{Answer, Handle, Task};
//! use utoipa::OpenApi as _;
//!
//! // Messages: a name on the wire, a topic, and for a command what may be answered.
//!
//! #[derive(Serialize, Deserialize)]
//! struct GrantPoints {
//!     customer: String,
//!     points: i64,
//! }
//! impl Message for GrantPoints {
//!     const TYPE: &'static str = "loyalty.grant_points.v1";
//!     const TOPIC: &'static str = "loyalty.commands";
//! }
//! impl Command for GrantPoints {
//!     type Reply = Granted;
//!     type Refusal = Refused;
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! struct PrintVoucher {
//!     text: String,
//! }
//! impl Message for PrintVoucher {
//!     const TYPE: &'static str = "loyalty.print_voucher.v1";
//!     const TOPIC: &'static str = "loyalty.commands";
//! }
//! impl Command for PrintVoucher {
//!     type Reply = Printed;
//!     type Refusal = Refused;
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Granted {
//!     customer: String,
//!     points: i64,
//! }
//! impl Message for Granted {
//!     const TYPE: &'static str = "loyalty.points_granted.v1";
//!     const TOPIC: &'static str = "loyalty.events";
//! }
//! impl Event for Granted {}
//!
//! #[derive(Serialize, Deserialize)]
//! struct Printed {
//!     page: u32,
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! #[serde(tag = "code", rename_all = "snake_case")]
//! enum Refused {
//!     NoSuchCustomer,
//! }
//!
//! struct Loyalty;
//!
//! // Work in the database: the change, its event and its answer are one transaction.
//! impl Handle<GrantPoints> for Loyalty {
//!     async fn handle(
//!         &self,
//!         claimed: &mut Claimed,
//!         tasks: &[Task<GrantPoints>],
//!     ) -> Result<Vec<Answer<GrantPoints>>, Fault> {
//!         let mut answers = Vec::new();
//!         for task in tasks {
//!             let GrantPoints { customer, points } = &task.command;
//!             let changed = sqlx::query("update customer set points = points + $2 where name = $1")
//!                 .bind(customer)
//!                 .bind(points)
//!                 .execute(claimed.db())
//!                 .await?;
//!             if changed.rows_affected() == 0 {
//!                 // A refusal is an answer: it commits. An error would roll back, and be tried again or parked.
//!                 answers.push(Answer::Refused(Refused::NoSuchCustomer));
//!                 continue;
//!             }
//!             let granted = || Granted { customer: customer.clone(), points: *points };
//!             claimed.publish(&task.subject, &task.cause, &granted())?;
//!             answers.push(Answer::Done(granted()));
//!         }
//!         Ok(answers)
//!     }
//! }
//!
//! // Work that asks the outside: intent, call, outcome.
//! impl Effect<PrintVoucher> for Loyalty {
//!     const OUTSIDE: &'static str = "printer";
//!     type Outcome = u32;
//!
//!     async fn intend(&self, _: &mut Claimed, _: &[Task<PrintVoucher>]) -> Result<(), Fault> {
//!         // Nothing beside the row that says that the step is under way, which is written anyway.
//!         Ok(())
//!     }
//!
//!     async fn call(
//!         &self,
//!         key: &str,
//!         task: &Task<PrintVoucher>,
//!     ) -> Result<u32, Box<dyn Error + Send + Sync>> {
//!         print(key, &task.command.text).await
//!     }
//!
//!     async fn settle(
//!         &self,
//!         _: &mut Claimed,
//!         settled: &[(Task<PrintVoucher>, u32)],
//!     ) -> Result<Vec<Answer<PrintVoucher>>, Fault> {
//!         Ok(settled.iter().map(|(_, page)| Answer::Done(Printed { page: *page })).collect())
//!     }
//! }
//!
//! /// Asks the printer, which prints once per key.
//! async fn print(_key: &str, _text: &str) -> Result<u32, Box<dyn Error + Send + Sync>> {
//!     Ok(1)
//! }
//!
//! #[derive(Debug, clap::Args)]
//! struct Config {
//!     /// How many points a customer may have.
//!     #[arg(long, env = "MOST_POINTS", default_value_t = 1000)]
//!     most_points: i64,
//! }
//!
//! #[derive(utoipa::OpenApi)]
//! #[openapi(info(title = "Loyalty"))]
//! struct Document;
//!
//! impl App for Loyalty {
//!     const NAME: &'static str = "loyalty";
//!     const PORT: u16 = 8090;
//!     type Config = Config;
//!
//!     fn migrations() -> &'static sqlx::migrate::Migrator {
//!         // The files in the service's own folder `migrations`, numbered from 0101.
//!         static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();
//!         &MIGRATIONS
//!     }
//!
//!     fn openapi() -> utoipa::openapi::OpenApi {
//!         Document::openapi()
//!     }
//!
//!     fn run(service: &mut Service<Config>) -> anyhow::Result<()> {
//!         let loyalty = Arc::new(Loyalty);
//!         let table = Table::new().command::<GrantPoints>(&loyalty);
//!         let table = service.effect::<PrintVoucher>(table, &loyalty);
//!         service.consume(table);
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     service::main::<Loyalty>()
//! }
//! ```
//!
//! Its topics are made once, beforehand, with [`kafka::Kafka::create_topics`]; its tables with `loyalty --migrate`.
//!
//! # Units and errors
//!
//! Durations in settings carry their unit ([`config::duration`]). Sizes are bytes. Times are the database's, in UTC.
//! A technical failure is a [`fault::Fault`], which knows whether repeating can help; a business refusal is an
//! [`steps::Answer`], and never an error; what a client did wrong over HTTP is a [`problem::Problem`].

#![warn(missing_docs)]

pub mod audit;
pub mod backlog;
pub mod breaker;
pub mod cloudevents;
pub mod config;
pub mod consumer;
pub mod db;
pub mod effects;
pub mod envelope;
pub mod fault;
pub mod http;
pub mod inbox;
pub mod kafka;
pub mod outbox;
pub mod parked;
pub mod problem;
pub mod relay;
pub mod retention;
pub mod roles;
pub mod service;
pub mod steps;
pub mod telemetry;

use sqlx::migrate::Migrator;

/// The tables of the messaging core. A service's own migrations are numbered from 0101 and run after these.
pub static MIGRATIONS: Migrator = sqlx::migrate!();
