//! A service's database. Reads take a connection; writes take a [`Claimed`], so that no write can bypass the outbox.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Postgres, Row};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::inbox::Claimed;
use crate::retention::Retention;

/// How long a request waits for a free connection before it is refused.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may have been idle and still be taken for alive.
const RESTED: Duration = Duration::from_millis(500);

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

    /// A snapshot of the whole database for reading, for statements that read whole tables. It ends when it is dropped.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn survey(&self) -> Result<Tx, sqlx::Error> {
        let begin = "begin isolation level repeatable read read only; set local plan_cache_mode = force_custom_plan; \
                     set local enable_seqscan = on; set local enable_hashjoin = on; set local enable_mergejoin = on";
        let (tx, _) = Tx::begin(self, format!("{begin}; select now()")).await?;
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

    /// A connection of its own, outside the pool, for the relay and for migrations.
    ///
    /// # Errors
    /// If the database does not answer.
    pub(crate) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect_with(&self.pool.manager().options).await
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

impl Manager for Connections {
    type Type = PgConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect_with(&self.options).await
    }

    /// Only a connection that has rested is asked whether it still is one: after a restart of the server each dead one
    /// would cost a request.
    async fn recycle(&self, connection: &mut PgConnection, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if metrics.last_used() < RESTED {
            return Ok(());
        }
        connection.ping().await.map_err(RecycleError::Backend)
    }
}

/// A connection on loan from the pool.
pub struct Pooled(Object<Connections>);

impl Deref for Pooled {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

/// A transaction. Dropped before it is committed, its connection is closed, and the server rolls it back: a transaction
/// that was given up in the middle of a statement leaves nothing behind for the next one.
pub struct Tx(Option<Pooled>);

impl Tx {
    /// `begin` may be several statements, which then cost one round trip. They have no parameters, and the last one's first
    /// column is the time that is returned.
    pub(crate) async fn begin(db: &Db, begin: String) -> Result<(Self, OffsetDateTime), sqlx::Error> {
        let mut tx = Self(Some(db.read().await?));
        let rows = tx.fetch_all(sqlx::raw_sql(AssertSqlSafe(begin))).await?;
        let now = rows.last().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?;
        Ok((tx, now))
    }

    pub(crate) async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.execute(sqlx::raw_sql("commit")).await?;
        // Now it may go back.
        drop(self.0.take());
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
