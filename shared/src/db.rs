//! A service's database. Reads take a connection; writes take a [`Claimed`], so that no write can bypass the outbox.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Postgres, Row};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::inbox::Claimed;
use crate::retention::Retention;

/// How long a request waits for a free connection before it is refused.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection is taken for alive after it last showed that it is.
const ALIVE: Duration = Duration::from_millis(500);

/// The time as [`Tx::begin`] wants it. A number, because sqlx can't read a time as text that has no fraction of a second.
pub(crate) const NOW: &str = "(extract(epoch from now()) * 1000000)::bigint";

/// A statement whose parameters are being bound.
pub(crate) type PgQuery = sqlx::query::Query<'static, Postgres, PgArguments>;

/// The database of one service.
#[derive(Clone)]
pub struct Db {
    pool: Pool<Connections>,
    /// Changes with every commit that left messages.
    relay: watch::Sender<()>,
    source: &'static str,
    shards: i16,
    retention: Retention,
}

impl Db {
    /// Connects lazily: a database that is not there yet shows in `/readyz` and in the first use.
    pub fn new(source: &'static str, options: PgConnectOptions, connections: u32, shards: i16) -> Self {
        let pool = Pool::builder(Connections { options: bounded(options).application_name(source) })
            .max_size(connections as usize)
            .wait_timeout(Some(ACQUIRE_TIMEOUT))
            .create_timeout(Some(ACQUIRE_TIMEOUT))
            .recycle_timeout(Some(ACQUIRE_TIMEOUT))
            // The one that was used last is the warmest.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build();
        #[expect(clippy::expect_used, reason = "it fails only where timeouts are set without a runtime")]
        let pool = pool.expect("a runtime is given");
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
    pub async fn read(&self) -> Result<Pooled, sqlx::Error> {
        match self.pool.get().await {
            Ok(object) => Ok(Pooled(object)),
            Err(PoolError::Backend(error)) => Err(error),
            Err(PoolError::Closed) => Err(sqlx::Error::PoolClosed),
            Err(PoolError::Timeout(_) | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_)) => {
                Err(sqlx::Error::PoolTimedOut)
            }
        }
    }

    /// A snapshot of the whole database for reading, for statements that read whole tables; see [`Tx::end`].
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn survey(&self) -> Result<Tx, sqlx::Error> {
        self.look_around("repeatable read").await
    }

    /// As [`Db::survey`], but each statement has its own snapshot: for tables that are truncated meanwhile, which a snapshot
    /// from before would show empty.
    ///
    /// # Errors
    /// If the database does not answer.
    pub(crate) async fn scan(&self) -> Result<Tx, sqlx::Error> {
        self.look_around("read committed").await
    }

    async fn look_around(&self, isolation: &str) -> Result<Tx, sqlx::Error> {
        let begin = format!("begin isolation level {isolation} read only");
        let planner = "set local plan_cache_mode = force_custom_plan; set local enable_seqscan = on; \
                       set local enable_hashjoin = on; set local enable_mergejoin = on";
        let (tx, _) = Tx::begin(self, format!("{begin}; {planner}; select {NOW}")).await?;
        Ok(tx)
    }

    /// Begins a write about the aggregates with these keys, for a request that comes from outside. It waits for other
    /// writes about the same keys.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn write(&self, keys: &[String]) -> Result<Claimed, sqlx::Error> {
        Claimed::begin(self.clone(), keys).await
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

    /// A connection of its own, outside the pool, for the relay and for migrations. It may write.
    ///
    /// # Errors
    /// If the database does not answer.
    pub(crate) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let options = self.pool.manager().options.clone();
        PgConnection::connect_with(&options.options([("default_transaction_read_only", "off")])).await
    }

    /// Listens on these channels over a connection of its own, outside the pool.
    ///
    /// # Errors
    /// If the database does not answer.
    pub(crate) async fn listen(&self, channels: &[&str]) -> Result<PgListener, sqlx::Error> {
        let options = self.pool.manager().options.clone();
        let own = PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
        let mut listener = PgListener::connect_with(&own.connect_lazy_with(options)).await?;
        listener.listen_all(channels.iter().copied()).await?;
        Ok(listener)
    }

    pub(crate) fn close(&self) {
        self.pool.close();
    }
}

/// Makes the pool's connections. It is not sqlx's own pool, because that one asks the server for a sign of life each time
/// a connection comes back, which was one round trip in eight.
struct Connections {
    options: PgConnectOptions,
}

/// A connection, and when it last showed that it is alive.
struct Alive {
    connection: PgConnection,
    seen: Instant,
}

impl Manager for Connections {
    type Type = Alive;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Alive, sqlx::Error> {
        Ok(Alive { connection: PgConnection::connect_with(&self.options).await?, seen: Instant::now() })
    }

    /// Only a connection that has not shown it for a while is asked whether it still is one: after a restart of the server
    /// each dead one would cost a request. Being used is no sign of life, being able to commit is.
    async fn recycle(&self, it: &mut Alive, _: &Metrics) -> RecycleResult<sqlx::Error> {
        if it.seen.elapsed() >= ALIVE {
            it.connection.ping().await.map_err(RecycleError::Backend)?;
            it.seen = Instant::now();
        }
        Ok(())
    }
}

/// A connection on loan from the pool. It may only read: PostgreSQL refuses a write that bypasses [`Claimed`].
pub struct Pooled(Object<Connections>);

impl Deref for Pooled {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0.connection
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0.connection
    }
}

/// A transaction. Dropped before it is committed, its connection is closed, and the server rolls it back: a transaction
/// that was given up in the middle of a statement leaves nothing behind for the next one.
pub struct Tx(Option<Pooled>);

impl Tx {
    /// `begin` may be several statements, which then cost one round trip. They have no parameters, and the last one's first
    /// column is [`NOW`].
    pub(crate) async fn begin(db: &Db, begin: String) -> Result<(Self, OffsetDateTime), sqlx::Error> {
        let mut tx = Self(Some(db.read().await?));
        let rows = tx.fetch_all(sqlx::raw_sql(AssertSqlSafe(begin))).await?;
        let now: i64 = rows.last().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?;
        let now = OffsetDateTime::from_unix_timestamp_nanos(i128::from(now) * 1000);
        Ok((tx, now.map_err(|error| sqlx::Error::Decode(error.into()))?))
    }

    /// A commit alone would not fail after an error that somebody has swallowed: it would roll back, and say so nowhere.
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        self.finish("select 1; commit").await
    }

    /// Ends it without any effect, and keeps the connection.
    ///
    /// # Errors
    /// If the database does not answer; then too it has no effect.
    pub async fn end(self) -> Result<(), sqlx::Error> {
        self.finish("rollback").await
    }

    async fn finish(mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        self.execute(sqlx::raw_sql(statement)).await?;
        // Now it may go back.
        if let Some(mut connection) = self.0.take() {
            connection.0.seen = Instant::now();
        }
        Ok(())
    }
}

impl Deref for Tx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match &self.0 {
            Some(connection) => connection,
            None => unreachable!("it is there until the transaction ends"),
        }
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match &mut self.0 {
            Some(connection) => connection,
            None => unreachable!("it is there until the transaction ends"),
        }
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if let Some(Pooled(connection)) = self.0.take() {
            drop(Object::take(connection));
        }
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
/// [`Db::survey`] and [`Db::scan`] are for the statements that do read whole tables.
fn bounded(options: PgConnectOptions) -> PgConnectOptions {
    options.options([
        ("idle_in_transaction_session_timeout", "10s"),
        ("statement_timeout", "30s"),
        // A write says otherwise, and goes through a claim.
        ("default_transaction_read_only", "on"),
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("tcp_keepalives_idle", "20"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "3"),
    ])
}
