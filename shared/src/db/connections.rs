//! The pool, and the transactions on its connections.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

use deadpool::managed::{Manager, Metrics, Object, RecycleError, RecycleResult};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use time::OffsetDateTime;

use super::{ALIVE, Db};

/// The time as [`Tx::begin`] wants it. A number, because sqlx can't read a time as text that has no fraction of a second.
pub(crate) const NOW: &str = "(extract(epoch from now()) * 1000000)::bigint";

/// Makes the pool's connections. This is not sqlx's own pool: that one asks the server for a sign of life each time a
/// connection comes back, which was one round trip in eight.
pub(super) struct Connections {
    pub options: PgConnectOptions,
    /// Executed once on each new connection.
    pub prepare: String,
}

impl Connections {
    /// A new connection whose search path begins with the core's schema.
    ///
    /// # Errors
    /// If the database does not answer or refuses the connection.
    pub async fn connect(&self, options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
        let mut connection = PgConnection::connect_with(options).await?;
        connection.execute(sqlx::raw_sql(AssertSqlSafe(self.prepare.clone()))).await?;
        Ok(connection)
    }
}

/// A connection, and when it last showed that it is alive.
pub struct Alive {
    connection: PgConnection,
    seen: Instant,
}

impl Manager for Connections {
    type Type = Alive;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Alive, sqlx::Error> {
        Ok(Alive { connection: self.connect(&self.options).await?, seen: Instant::now() })
    }

    /// Pings a connection only if it has shown no sign of life for a while: after a restart of the server each dead
    /// connection would cost a request. A use is no sign of life, a commit is.
    async fn recycle(&self, it: &mut Alive, _: &Metrics) -> RecycleResult<sqlx::Error> {
        if it.seen.elapsed() >= ALIVE {
            it.connection.ping().await.map_err(RecycleError::Backend)?;
            it.seen = Instant::now();
        }
        Ok(())
    }
}

/// A connection on loan from the pool. It may only read: PostgreSQL refuses a write that bypasses
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

/// A transaction. If it is dropped before it is committed, its connection is closed and the server rolls it back: a
/// transaction that was given up in the middle of a statement leaves nothing behind for the next one.
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

    /// A commit alone would not fail after an error that somebody has swallowed: it would roll back silently.
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        self.finish("select 1; commit").await
    }

    /// Rolls the transaction back and keeps the connection.
    ///
    /// # Errors
    /// If the database does not answer. The transaction has no effect then either.
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
