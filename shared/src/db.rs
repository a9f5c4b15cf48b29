//! The core's database: options, pool, and connections for reading. Writes need a
//! [`crate::unit_of_work::UnitOfWork`], so that no write can bypass the outbox.

mod calls;
mod connections;
mod deferred;
mod pools;
pub mod server;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deadpool::managed::Pool;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Executor, PgConnection, PgPool};
use tokio::sync::watch;

pub use self::calls::CallLimit;
use self::connections::Connections;
pub(crate) use self::connections::{NOW, from_micros, retire_if_stale};
pub use self::connections::{Pooled, Tx};
pub(crate) use self::deferred::Deferred;
pub use self::deferred::Parameters;
use crate::envelope::new_id;
use crate::retention::Retention;

/// How long a request waits for a free connection before it fails.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection counts as alive for this long after its last sign of life.
const ALIVE_FOR: Duration = Duration::from_millis(500);

/// The default schema of the core's tables.
pub const DEFAULT_SCHEMA: &str = "amends";

/// The settings of the core's database: names, sizes and retention. Every name is a value, so that an installation
/// can choose its own.
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
    parked_topic: String,
    connections: u32,
    request_connections: u32,
    list_connections: u32,
    shards: i16,
    retention: Retention,
    call_deadline: Duration,
}

impl DbOptions {
    /// Creates the options of a service with this name. Its messages carry the name as `source`.
    ///
    /// The defaults are: the schema [`DEFAULT_SCHEMA`], ten connections, one shard, two weeks of retention, one day for an
    /// external call, and a new instance name at every start. Copies of parked messages go to the topic `<source>.parked`.
    pub fn new(source: &'static str) -> Self {
        Self {
            source,
            schema: DEFAULT_SCHEMA.to_owned(),
            instance: format!("{source}-{}", new_id().simple()),
            parked_topic: format!("{source}.parked"),
            connections: 10,
            request_connections: 0,
            list_connections: 0,
            shards: 1,
            retention: Retention::default(),
            call_deadline: Duration::from_secs(24 * 3600),
        }
    }

    /// Sets the schema of the core's tables. Each consumer group needs a schema of its own, because the inbox
    /// remembers only the id of a message and not the group that handled it. The schema comes first in the search path of the connections that handlers get.
    #[must_use]
    pub fn schema(self, schema: impl Into<String>) -> Self {
        Self { schema: schema.into(), ..self }
    }

    /// Sets the name of this replica, which must differ between replicas. If the name survives a restart, the
    /// restarted replica continues at once with the work it had begun.
    #[must_use]
    pub fn instance(self, instance: impl Into<String>) -> Self {
        Self { instance: instance.into(), ..self }
    }

    /// Sets the topic for copies of parked messages, without the installation's prefix.
    #[must_use]
    pub fn parked_topic(self, topic: impl Into<String>) -> Self {
        Self { parked_topic: topic.into(), ..self }
    }

    /// Sets the largest number of connections in the pool. The relay uses two more per shard outside the pool.
    #[must_use]
    pub fn connections(self, connections: u32) -> Self {
        Self { connections: connections.max(1), ..self }
    }

    /// Gives requests a pool of so many connections, beside those of [`DbOptions::connections`]. With 0, the default,
    /// [`Db::for_requests`] uses the other connections too.
    #[must_use]
    pub fn request_connections(self, connections: u32) -> Self {
        Self { request_connections: connections, ..self }
    }

    /// Gives lists and audits a pool of so many connections, as [`DbOptions::request_connections`] does for requests.
    #[must_use]
    pub fn list_connections(self, connections: u32) -> Self {
        Self { list_connections: connections, ..self }
    }

    /// Sets the number of shards of the outbox. A hash of the key selects the shard. All replicas must use the same
    /// number, so all must stop before it changes. The first relay then moves unsent messages to their new shards.
    #[must_use]
    pub fn shards(self, shards: i16) -> Self {
        Self { shards: shards.max(1), ..self }
    }

    /// Sets how long message ids and step outcomes are remembered.
    #[must_use]
    pub fn retention(self, retention: Retention) -> Self {
        Self { retention, ..self }
    }

    /// Sets after how long an external call without an answer is given up, if its command allows that.
    #[must_use]
    pub fn call_deadline(self, call_deadline: Duration) -> Self {
        Self { call_deadline, ..self }
    }

    /// Opens a database with these connection options. It connects lazily, so that an unavailable database fails the
    /// first use and not this call.
    pub fn connect(self, options: PgConnectOptions) -> Db {
        let prepare = format!(
            "{SESSION}; select set_config('search_path', {} || ', ' || current_setting('search_path'), false)",
            quote_literal(&quote_ident(&self.schema))
        );
        // PgBouncer refuses a client that asks for this at the connection. The server's default is the same.
        let options = options.application_name(self.source).extra_float_digits(None);
        let new =
            |size| pools::pool(Connections { options: options.clone(), prepare: prepare.clone() }, size);
        let pool = new(self.connections);
        let other = |size| if size > 0 { new(size) } else { pool.clone() };
        let (requests, lists) = (other(self.request_connections), other(self.list_connections));
        let (relay, group) = (watch::Sender::new(()), Arc::default());
        Db { pool, requests, lists, relay, group, calls: CallLimit::default(), options: Arc::new(self) }
    }

    /// Opens a database with the connection options of the application's own pool.
    /// The core has its own pool, because its connections have other settings. They are read-only by default, have
    /// timeouts, and find the core's tables first. To publish inside a transaction of the application's own pool, use
    /// [`crate::outbox::Outbox`].
    pub fn connect_like(self, pool: &PgPool) -> Db {
        self.connect(PgPool::connect_options(pool).as_ref().clone())
    }
}

/// The database of one service.
#[derive(Clone)]
pub struct Db {
    /// The connections that this handle uses.
    pool: Pool<Connections>,
    requests: Pool<Connections>,
    lists: Pool<Connections>,
    /// Changes with every commit that wrote messages.
    relay: watch::Sender<()>,
    /// The consumer group whose messages the inbox remembers.
    group: Arc<OnceLock<String>>,
    calls: CallLimit,
    options: Arc<DbOptions>,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Db({})", self.options.source)
    }
}

impl Db {
    /// Returns how long message ids and step outcomes are remembered.
    pub fn retention(&self) -> Retention {
        self.options.retention
    }

    /// Returns after how long an external call without an answer is given up.
    pub fn call_deadline(&self) -> Duration {
        self.options.call_deadline
    }

    /// Returns the shard whose relay sends the messages of this key.
    pub(crate) fn shard(&self, key: &str) -> i16 {
        let shards = self.options.shards.unsigned_abs();
        i16::try_from(hash(key).unsigned_abs() % u64::from(shards)).unwrap_or(0)
    }

    /// Returns the number of shards of the outbox.
    pub fn shards(&self) -> i16 {
        self.options.shards
    }

    /// Returns the name of the service, which messages carry as `source`.
    pub fn source(&self) -> &'static str {
        self.options.source
    }

    /// Returns the name of this replica.
    pub fn instance(&self) -> &str {
        &self.options.instance
    }

    /// Returns the schema of the core's tables.
    pub fn schema(&self) -> &str {
        &self.options.schema
    }

    /// Returns the consumer group that the inbox belongs to: the first one that was named.
    pub(crate) fn group_or(&self, group: &str) -> &str {
        self.group.get_or_init(|| group.to_owned())
    }

    /// Returns the limit of external calls, for a program that may lose its name to another process.
    pub fn calls(&self) -> &CallLimit {
        &self.calls
    }

    pub(crate) fn parked_topic(&self) -> &str {
        &self.options.parked_topic
    }

    /// Wakes the relays of this process. Call it after a commit that wrote messages.
    pub(crate) fn wake_relay(&self) {
        self.relay.send_replace(());
    }

    /// Returns a receiver that changes after every commit that wrote messages. A busy relay sees the change later, so
    /// that none of several shards misses it.
    pub(crate) fn relay_wakeup(&self) -> watch::Receiver<()> {
        self.relay.subscribe()
    }

    /// Opens a connection outside the pool, for the relay and for migrations. It may write.
    ///
    /// # Errors
    /// Fails if the database does not answer.
    pub async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.pool.manager().connect().await?;
        connection.execute(sqlx::raw_sql("set default_transaction_read_only = off")).await?;
        Ok(connection)
    }

    /// Listens on these channels over a connection outside the pool.
    ///
    /// # Errors
    /// Fails if the database does not answer.
    pub(crate) async fn listen(&self, channels: &[&str]) -> Result<PgListener, sqlx::Error> {
        let options = self.pool.manager().options.clone();
        let own = PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
        let mut listener = PgListener::connect_with(&own.connect_lazy_with(options)).await?;
        listener.listen_all(channels.iter().copied()).await?;
        Ok(listener)
    }

    /// Closes the pools. Connections in use are closed when they are returned.
    pub fn close(&self) {
        for pool in [&self.pool, &self.requests, &self.lists] {
            pool.close();
        }
    }
}

/// Returns the FNV-1a hash. Locks and shards need a hash that is the same on all builds and machines.
pub(crate) fn hash(key: &str) -> i64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in key.bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0100_0000_01b3);
    }
    hash.cast_signed()
}

/// Returns a name quoted as an SQL identifier.
pub(crate) fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns a text quoted as an SQL literal, for PostgreSQL's default `standard_conforming_strings`.
pub(crate) fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The timeouts and the planner settings of a connection.
/// A process that was frozen in the middle of a batch keeps its locks for at most ten seconds. A statement may take
/// thirty seconds. A vanished host is noticed within a minute. A unit of work overrides the read-only default.
///
/// Every frequent statement finds its rows by key. Its plan is made while the table is empty, and is kept. With
/// default settings the planner would keep reading the whole table while it grows. Plans are therefore generic and
/// use indexes. [`Db::survey`] and [`Db::scan`] are for statements that do read whole tables.
///
/// They are set after connecting, because a pooler in between refuses or ignores them as options of the connection.
const SESSION: &str = "set idle_in_transaction_session_timeout = '10s'; set statement_timeout = '30s';
    set default_transaction_read_only = on;
    set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set enable_hashjoin = off;
    set enable_mergejoin = off;
    set tcp_keepalives_idle = 20; set tcp_keepalives_interval = 10; set tcp_keepalives_count = 3";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_can_have_any_name() {
        assert_eq!(quote_ident(r#"my "own" schema"#), r#""my ""own"" schema""#);
        assert_eq!(quote_literal("it's"), "'it''s'");
    }
}
