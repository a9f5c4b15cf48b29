//! What every Amends service is built from: the message envelope, the transactional outbox and its relay, the inbox
//! (the idempotency store), the batch consumer, and the bootstrap that runs them. It knows nothing of orders.
//!
//! The guarantees, and where they come from:
//!
//! - **Effect and message are one transaction.** A write goes through [`inbox::Claimed`], which is the only way to a
//!   writable connection and to the outbox; both are committed together or not at all.
//! - **Every committed outbox row reaches Kafka at least once, in order per key.** See [`relay`].
//! - **Every message takes effect once.** The consumer claims message ids in the transaction of their effect
//!   ([`consumer`]); a command is claimed a second time by its saga step ([`steps`]).
//! - **No call to the outside happens inside a transaction.** See [`effects`].

pub mod audit;
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
pub mod service;
pub mod steps;
pub mod telemetry;

use sqlx::migrate::Migrator;

/// The tables of the messaging core. A service's own migrations are numbered from 0101 and run after these.
pub static MIGRATIONS: Migrator = sqlx::migrate!();
