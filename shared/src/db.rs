//! A service's database. Reads take a connection; writes take a [`Claimed`], so that no write can bypass the outbox.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool, Postgres, Transaction};
use tokio::sync::watch;

use crate::inbox::Claimed;
use crate::retention::Retention;

/// How long a request waits for a free connection before it is refused.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may have been idle and still be taken for alive.
const RESTED: Duration = Duration::from_millis(500);

/// The database of one service.
#[derive(Clone)]
pub struct Db {
    pool: PgPool,
    /// Changes with every commit that left messages.
    relay: watch::Sender<()>,
    source: &'static str,
    shards: i16,
    retention: Retention,
}

impl Db {
    /// Connects lazily: a database that is not there yet shows in `/readyz` and in the first use.
    pub fn new(source: &'static str, options: PgConnectOptions, connections: u32, shards: i16) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // A ping per use costs a round trip, so only a connection that has rested is asked whether it still is one:
            // after a restart of the server each dead one would cost a request.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move { Ok(meta.idle_for < RESTED || connection.ping().await.is_ok()) })
            })
            .connect_lazy_with(bounded(options).application_name(source));
        Self { pool, relay: watch::Sender::new(()), source, shards, retention: Retention::default() }
    }

    /// The same database, remembering for so long.
    #[must_use]
    pub fn with_retention(self, retention: Retention) -> Self {
        Self { retention, ..self }
    }

    pub(crate) fn retention(&self) -> Retention {
        self.retention
    }

    /// A connection for reading.
    ///
    /// # Errors
    /// If none is to be had within five seconds.
    pub async fn read(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        self.pool.acquire().await
    }

    /// A snapshot of the whole database for reading, for statements that read whole tables. It ends when it is dropped.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn survey(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let begin = "begin isolation level repeatable read read only; set local plan_cache_mode = force_custom_plan; \
                     set local enable_seqscan = on; set local enable_hashjoin = on; set local enable_mergejoin = on";
        self.pool.begin_with(begin).await
    }

    /// Begins a write about the aggregates with these keys, for a request that comes from outside. It waits for other
    /// writes about the same keys.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn write(&self, keys: &[String]) -> Result<Claimed, sqlx::Error> {
        #[expect(clippy::disallowed_methods, reason = "this is where a write begins")]
        let tx = self.pool.begin().await?;
        Claimed::begin(tx, self.clone(), keys).await
    }

    /// The shard whose relay sends the messages of this key.
    pub(crate) fn shard(&self, key: &str) -> i16 {
        i16::try_from(hash(key).unsigned_abs() % self.shards.unsigned_abs() as u64).unwrap_or(0)
    }

    pub(crate) fn shards(&self) -> i16 {
        self.shards
    }

    /// The name of the service, as messages have it in `source`.
    pub fn source(&self) -> &'static str {
        self.source
    }

    /// Wakes the relays of this process. Called after commit.
    pub(crate) fn wake_relay(&self) {
        self.relay.send_replace(());
    }

    /// Changes after every commit that left messages. A relay that is busy meanwhile finds the change later, so that
    /// with several shards none misses it.
    pub(crate) fn relay_wakeup(&self) -> watch::Receiver<()> {
        self.relay.subscribe()
    }

    /// A connection of its own, outside the pool, for the relay and for migrations.
    ///
    /// # Errors
    /// If the database does not answer.
    pub(crate) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect_with(&self.pool.connect_options()).await
    }

    /// Listens on these channels over a connection of its own, outside the pool.
    ///
    /// # Errors
    /// If the database does not answer.
    pub(crate) async fn listen(&self, channels: &[&str]) -> Result<PgListener, sqlx::Error> {
        let options = PgConnectOptions::clone(&self.pool.connect_options());
        let own = PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
        let mut listener = PgListener::connect_with(&own.connect_lazy_with(options)).await?;
        listener.listen_all(channels.iter().copied()).await?;
        Ok(listener)
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// FNV-1a: stable across builds and machines, as locks and shards must be.
pub(crate) fn hash(key: &str) -> i64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in key.bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0100_0000_01b3);
    }
    hash.cast_signed()
}

/// Nothing waits for ever: a process that was frozen in the middle of a batch holds its locks for ten seconds, a
/// statement may take thirty, and a host that vanished is noticed within a minute.
///
/// Every hot statement finds its rows by key, in a table that is empty when its plan is made and kept. Left to itself
/// the planner keeps reading such a table from end to end while it grows; so plans are generic, and use indexes.
/// [`Db::survey`] is for the statements that do read whole tables.
fn bounded(options: PgConnectOptions) -> PgConnectOptions {
    options.options([
        ("idle_in_transaction_session_timeout", "10s"),
        ("statement_timeout", "30s"),
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("tcp_keepalives_idle", "20"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "3"),
    ])
}
