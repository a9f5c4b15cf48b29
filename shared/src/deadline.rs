//! A time limit for work on the database, and protection against handlers that panic.
//!
//! A connection may fall silent without being closed: a host vanishes, a firewall forgets it, a proxy hangs. The server's
//! own timeouts never reach the client then. So whoever uses the database outside of a request and of the consumer limits
//! the time, and drops the connection at the limit. The next try gets another one.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;

use crate::fault::Fault;

/// How long a unit of work may take. It is longer than a statement may take by the server's limit.
pub const LIMIT: Duration = Duration::from_secs(45);

/// Runs `work` with a time limit.
///
/// # Errors
/// Fails as the work does, or if there is no end within [`LIMIT`]. Whether the work took effect is unknown then.
pub async fn limited<T, E>(work: impl Future<Output = Result<T, E>>) -> Result<T, Fault>
where
    Fault: From<E>,
{
    // On the heap, because large futures that are passed on by value fill the stack.
    match tokio::time::timeout(LIMIT, Box::pin(work)).await {
        Ok(ended) => Ok(ended?),
        Err(_) => Err(Fault::exhausted(format!("no end within {LIMIT:?}"))),
    }
}

/// Runs `work` with a time limit and catches panics. A silent connection or a panicking handler must not stop the
/// consumer.
pub(crate) async fn bounded<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let caught = AssertUnwindSafe(Box::pin(work)).catch_unwind();
    let panicked = |_| Fault::permanent("the handler panicked; the log has the details");
    limited(caught.map(|ended| ended.unwrap_or_else(|panic| Err(panicked(panic))))).await
}
