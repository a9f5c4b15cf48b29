//! The pools of connections: one for messages, one for requests, and one for lists. Whoever uses up one of them delays nobody
//! else.

use deadpool::Runtime;
use deadpool::managed::{Pool, PoolError, QueueMode};

use super::connections::{Connections, NOW, Pooled, Tx};
use super::{ACQUIRE_TIMEOUT, Db};

/// Returns a pool that connects lazily.
pub(super) fn pool(connections: Connections, size: u32) -> Pool<Connections> {
    let pool = Pool::builder(connections)
        .max_size(size as usize)
        .wait_timeout(Some(ACQUIRE_TIMEOUT))
        .create_timeout(Some(ACQUIRE_TIMEOUT))
        .recycle_timeout(Some(ACQUIRE_TIMEOUT))
        // The most recently used connection has the warmest caches.
        .queue_mode(QueueMode::Lifo)
        .runtime(Runtime::Tokio1)
        .build();
    #[expect(clippy::expect_used, reason = "it fails only where timeouts are set without a runtime")]
    pool.expect("a runtime is given")
}

impl Db {
    /// Returns the same database with the connections of requests. Requests that wait for the database then keep no
    /// message from being handled, nor the other way round.
    #[must_use]
    pub fn for_requests(&self) -> Self {
        Self { pool: self.requests.clone(), ..self.clone() }
    }

    /// Returns the same database with the connections of lists, which may read for long.
    #[must_use]
    pub fn for_lists(&self) -> Self {
        Self { pool: self.lists.clone(), ..self.clone() }
    }

    /// Takes a read-only connection from the pool.
    ///
    /// # Errors
    /// Fails if no connection is free within five seconds, or if the database does not answer.
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

    /// Begins a read-only transaction with one snapshot, for statements that read whole tables, over a connection of
    /// lists. End it with [`Tx::end`].
    ///
    /// # Errors
    /// Fails if the database does not answer.
    pub async fn survey(&self) -> Result<Tx, sqlx::Error> {
        self.begin_read_only("repeatable read").await
    }

    /// Begins a read-only transaction as [`Db::survey`] does, in which each statement has its own snapshot. Use it for
    /// tables that are truncated in the meantime: an older snapshot would show them empty.
    ///
    /// # Errors
    /// Fails if the database does not answer.
    pub async fn scan(&self) -> Result<Tx, sqlx::Error> {
        self.begin_read_only("read committed").await
    }

    async fn begin_read_only(&self, isolation: &str) -> Result<Tx, sqlx::Error> {
        let begin = format!("begin isolation level {isolation} read only");
        let planner = "set local plan_cache_mode = force_custom_plan; set local enable_seqscan = on; \
                       set local enable_hashjoin = on; set local enable_mergejoin = on";
        let (tx, _) = Tx::begin(&self.for_lists(), format!("{begin}; {planner}; select {NOW}")).await?;
        Ok(tx)
    }
}
