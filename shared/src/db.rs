//! The database that the core works on: options, pool, and connections for reading. Writes take a
//! [`crate::unit_of_work::UnitOfWork`], so that no write can bypass the outbox.

mod connections;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{Pool, PoolError, QueueMode};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{PgConnection, PgPool, Postgres};
use tokio::sync::watch;

use self::connections::Connections;
pub(crate) use self::connections::NOW;
pub use self::connections::{Pooled, Tx};
use crate::envelope::new_id;
use crate::retention::Retention;

/// How long a request waits for a free connection before it is refused.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection is taken for alive after it last showed that it is.
const ALIVE: Duration = Duration::from_millis(500);

/// The schema of the core's tables unless another one is chosen.
pub const DEFAULT_SCHEMA: &str = "amends";

/// A statement whose parameters are being bound.
pub(crate) type PgQuery = sqlx::query::Query<'static, Postgres, PgArguments>;

/// What the core is told about its surroundings: names, sizes, and how long it remembers. Every name is a value here, so
/// that an installation can choose its own.
///
/// ```no_run
/// # fn example(pool: &sqlx::PgPool) {
/// use shared::db::DbOptions;
///
/// let db = DbOptions::new("loyalty").connections(20).connect_like(pool);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct DbOptions {
    source: &'static str,
    schema: String,
    instance: String,
    reply_topic: String,
    parked_topic: String,
    connections: u32,
    shards: i16,
    retention: Retention,
}

impl DbOptions {
    /// The defaults for a service with this name, which its messages carry as `source`: the schema [`DEFAULT_SCHEMA`], ten
    /// connections, one shard, two weeks of retention, an instance name of its own at every start, the reply topic
    /// `orchestrator.replies`, and the topic `<source>.parked` for copies of parked messages.
    pub fn new(source: &'static str) -> Self {
        Self {
            source,
            schema: DEFAULT_SCHEMA.to_owned(),
            instance: format!("{source}-{}", new_id().simple()),
            reply_topic: "orchestrator.replies".to_owned(),
            parked_topic: format!("{source}.parked"),
            connections: 10,
            shards: 1,
            retention: Retention::default(),
        }
    }

    /// The schema that has the core's tables. It comes first in the search path of the connections that handlers get.
    #[must_use]
    pub fn schema(self, schema: impl Into<String>) -> Self {
        Self { schema: schema.into(), ..self }
    }

    /// The name of this replica. It must differ between replicas. If it outlives a restart, a restarted replica takes up
    /// at once what it had begun.
    #[must_use]
    pub fn instance(self, instance: impl Into<String>) -> Self {
        Self { instance: instance.into(), ..self }
    }

    /// The topic to which participants of sagas reply, without the installation's prefix.
    #[must_use]
    pub fn reply_topic(self, topic: impl Into<String>) -> Self {
        Self { reply_topic: topic.into(), ..self }
    }

    /// The topic for copies of parked messages, without the installation's prefix.
    #[must_use]
    pub fn parked_topic(self, topic: impl Into<String>) -> Self {
        Self { parked_topic: topic.into(), ..self }
    }

    /// The largest number of connections in the pool. The relay has two more of its own per shard.
    #[must_use]
    pub fn connections(self, connections: u32) -> Self {
        Self { connections, ..self }
    }

    /// Into how many shards the outbox is divided, by hash of key. All replicas must agree, and the outbox must be empty
    /// when it is changed.
    #[must_use]
    pub fn shards(self, shards: i16) -> Self {
        Self { shards: shards.max(1), ..self }
    }

    /// How long message ids and step outcomes are remembered.
    #[must_use]
    pub fn retention(self, retention: Retention) -> Self {
        Self { retention, ..self }
    }

    /// A database with these connection options. It connects lazily: a database that is not there yet shows in the first
    /// use.
    pub fn connect(self, options: PgConnectOptions) -> Db {
        let prepare = format!(
            "select set_config('search_path', {} || ', ' || current_setting('search_path'), false)",
            quote_literal(&quote_ident(&self.schema))
        );
        let connections = Connections { options: bounded(options).application_name(self.source), prepare };
        let pool = Pool::builder(connections)
            .max_size(self.connections as usize)
            .wait_timeout(Some(ACQUIRE_TIMEOUT))
            .create_timeout(Some(ACQUIRE_TIMEOUT))
            .recycle_timeout(Some(ACQUIRE_TIMEOUT))
            // The one that was used last is the warmest.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build();
        #[expect(clippy::expect_used, reason = "it fails only where timeouts are set without a runtime")]
        let pool = pool.expect("a runtime is given");
        Db { pool, relay: watch::Sender::new(()), options: Arc::new(self) }
    }

    /// A database with the connection options of the application's own pool. The core has a pool of its own beside it,
    /// because its connections have other settings: they are read-only by default, bounded in time, and find the core's
    /// tables first. Inside a transaction of the application's own pool messages are published with
    /// [`crate::outbox::Outbox`].
    pub fn connect_like(self, pool: &PgPool) -> Db {
        self.connect(PgPool::connect_options(pool).as_ref().clone())
    }
}

/// The database of one service.
#[derive(Clone)]
pub struct Db {
    pool: Pool<Connections>,
    /// Changes with every commit that left messages.
    relay: watch::Sender<()>,
    options: Arc<DbOptions>,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Db({})", self.options.source)
    }
}

impl Db {
    /// How long message ids and step outcomes are remembered.
    pub fn retention(&self) -> Retention {
        self.options.retention
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

    /// A snapshot of the whole database for statements that read whole tables. End it with [`Tx::end`].
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
    pub async fn scan(&self) -> Result<Tx, sqlx::Error> {
        self.look_around("read committed").await
    }

    async fn look_around(&self, isolation: &str) -> Result<Tx, sqlx::Error> {
        let begin = format!("begin isolation level {isolation} read only");
        let planner = "set local plan_cache_mode = force_custom_plan; set local enable_seqscan = on; \
                       set local enable_hashjoin = on; set local enable_mergejoin = on";
        let (tx, _) = Tx::begin(self, format!("{begin}; {planner}; select {NOW}")).await?;
        Ok(tx)
    }

    /// The shard whose relay sends the messages of this key.
    pub(crate) fn shard(&self, key: &str) -> i16 {
        let shards = self.options.shards.unsigned_abs();
        i16::try_from(hash(key).unsigned_abs() % u64::from(shards)).unwrap_or(0)
    }

    /// Into how many shards the outbox is divided.
    pub fn shards(&self) -> i16 {
        self.options.shards
    }

    /// The name of the service, as messages have it in `source`.
    pub fn source(&self) -> &'static str {
        self.options.source
    }

    /// The name of this replica.
    pub fn instance(&self) -> &str {
        &self.options.instance
    }

    /// The schema of the core's tables.
    pub fn schema(&self) -> &str {
        &self.options.schema
    }

    /// The topic to which participants of sagas reply.
    pub fn reply_topic(&self) -> &str {
        &self.options.reply_topic
    }

    pub(crate) fn parked_topic(&self) -> &str {
        &self.options.parked_topic
    }

    /// Wakes the relays of this process. Called after a commit that left messages.
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
    pub async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let connections = self.pool.manager();
        let options = connections.options.clone().options([("default_transaction_read_only", "off")]);
        connections.connect(&options).await
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

    /// Closes the pool. Connections on loan are closed when they come back.
    pub fn close(&self) {
        self.pool.close();
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

/// A name as SQL wants it between double quotes.
pub(crate) fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL wants it between single quotes, with PostgreSQL's default `standard_conforming_strings`.
pub(crate) fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
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
        // A write says otherwise, and goes through a unit of work.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_can_have_any_name() {
        assert_eq!(quote_ident(r#"my "own" schema"#), r#""my ""own"" schema""#);
        assert_eq!(quote_literal("it's"), "'it''s'");
    }
}
