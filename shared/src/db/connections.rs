//! The connection pool, and transactions on its connections.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, Object, RecycleError, RecycleResult};
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError};
use sqlx::{AssertSqlSafe, Connection, Decode, Executor, PgConnection, Postgres, Row, Type};
use time::OffsetDateTime;
use tokio::runtime::Handle;

use super::{ALIVE_FOR, Db};

/// How long the rollback of a dropped transaction may take. It waits for a statement that is still running.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);

/// The current time in the form that [`Tx::begin`] needs. It is a number, because sqlx cannot parse a time without a
/// fraction of a second.
pub(crate) const NOW: &str = "(extract(epoch from now()) * 1000000)::bigint";

/// Converts a time as [`NOW`] returns it.
pub(crate) fn from_micros(now: i64) -> Result<OffsetDateTime, sqlx::Error> {
    let now = OffsetDateTime::from_unix_timestamp_nanos(i128::from(now) * 1000);
    now.map_err(|error| sqlx::Error::Decode(error.into()))
}

/// Makes the connections of the pool. It replaces sqlx's own pool, which pings the server whenever a connection is
/// returned. Those pings were one round trip in eight.
pub(super) struct Connections {
    pub options: PgConnectOptions,
    /// Executed once on each new connection.
    pub prepare: String,
}

impl Connections {
    /// Opens a connection with the session's settings, whose search path begins with the core's schema.
    ///
    /// # Errors
    /// Fails if the database does not answer or refuses the connection.
    pub async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        connection.execute(sqlx::raw_sql(AssertSqlSafe(self.prepare.clone()))).await?;
        Ok(connection)
    }
}

/// Changes when connections with a stale plan were met. Older connections are not used again.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Closes all pooled connections of this process when they are used next, if this error says that a prepared statement no
/// longer fits its tables. The client would repeat the statement, and its error, on each connection for ever.
pub(crate) fn retire_if_stale(error: &dyn DatabaseError) {
    // The server has no code of its own for this.
    let revalidation = |error: &PgDatabaseError| error.routine() == Some("RevalidateCachedQuery");
    if error.try_downcast_ref::<PgDatabaseError>().is_some_and(revalidation) {
        GENERATION.fetch_add(1, Ordering::AcqRel);
    }
}

/// A connection, and the time of its last sign of life.
pub struct Alive {
    connection: PgConnection,
    generation: u64,
    last_alive: Instant,
}

impl Manager for Connections {
    type Type = Alive;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Alive, sqlx::Error> {
        let generation = GENERATION.load(Ordering::Acquire);
        Ok(Alive { connection: self.connect().await?, generation, last_alive: Instant::now() })
    }

    /// Pings a connection only if its last sign of life is too old. Without the ping, each dead connection would cost
    /// one request after a restart of the server. A commit counts as a sign of life; a mere use does not.
    async fn recycle(&self, it: &mut Alive, _: &Metrics) -> RecycleResult<sqlx::Error> {
        if it.generation != GENERATION.load(Ordering::Acquire) {
            return Err(RecycleError::message("its prepared statements are stale"));
        }
        if it.last_alive.elapsed() >= ALIVE_FOR {
            it.connection.ping().await.map_err(RecycleError::Backend)?;
            it.last_alive = Instant::now();
        }
        Ok(())
    }
}

/// A connection borrowed from the pool. It may only read: PostgreSQL refuses writes that bypass
/// [`crate::unit_of_work::UnitOfWork`].
pub struct Pooled(pub(super) Object<Connections>);

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

/// A transaction. If it is dropped before its end, it is rolled back in the background. Its connection returns to the
/// pool then, or is closed if it does not answer soon.
pub struct Tx(Option<Pooled>);

impl Tx {
    /// Begins a transaction with `begin`, which may be several statements in one round trip. They have no parameters.
    /// The first column of the last statement must be [`NOW`].
    pub(crate) async fn begin(db: &Db, begin: String) -> Result<(Self, OffsetDateTime), sqlx::Error> {
        let (tx, now) = Self::begin_with(db, begin).await?;
        Ok((tx, from_micros(now)?))
    }

    /// Begins a transaction with `begin`, which may be several statements in one round trip, and returns the first
    /// column of the last one.
    pub(crate) async fn begin_with<T>(db: &Db, begin: String) -> Result<(Self, T), sqlx::Error>
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        let mut tx = Self(Some(db.read().await?));
        let rows = tx.fetch_all(sqlx::raw_sql(AssertSqlSafe(begin))).await?;
        let answer = rows.last().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?;
        Ok((tx, answer))
    }

    /// Commits. A commit would silently roll back if an earlier error was ignored. `checked` says that the statement
    /// before it has succeeded, which shows that there was none; otherwise a statement is added that shows it.
    pub(crate) async fn commit(self, checked: bool) -> Result<(), sqlx::Error> {
        self.finish(if checked { "commit" } else { "select 1; commit" }).await
    }

    /// Rolls the transaction back and returns the connection to the pool.
    ///
    /// # Errors
    /// Fails if the database does not answer. The transaction has no effect in that case either.
    pub async fn end(self) -> Result<(), sqlx::Error> {
        self.finish("rollback").await
    }

    async fn finish(mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        self.execute(sqlx::raw_sql(statement)).await?;
        // The transaction has ended, so the connection may return to the pool.
        if let Some(mut connection) = self.0.take() {
            connection.0.last_alive = Instant::now();
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
        if let Some(connection) = self.0.take() {
            let unfinished = Unfinished(Some(connection));
            // Without a runtime the connection is closed.
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(unfinished.roll_back());
            }
        }
    }
}

/// A connection whose transaction was dropped before its end. An answer such as 404 often ends a transaction so, and a
/// new connection costs the server far more than a rollback. The connection is closed when this is dropped, so that a
/// transaction that stopped in the middle of a statement does not affect the next one.
struct Unfinished(Option<Pooled>);

impl Unfinished {
    async fn roll_back(mut self) {
        let Some(connection) = &mut self.0 else { return };
        let rollback = connection.execute(sqlx::raw_sql("rollback"));
        if let Ok(Ok(_)) = tokio::time::timeout(ROLLBACK_TIMEOUT, rollback).await {
            connection.0.last_alive = Instant::now();
            self.0 = None;
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(Pooled(connection)) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}
