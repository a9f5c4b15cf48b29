//! A time limit for work on the database, and protection against handlers that panic.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;

use crate::fault::Fault;

/// How long a batch may take before its connection is closed.
const MAX_BATCH_TIME: Duration = Duration::from_secs(45);

/// Runs `work` with a time limit and catches panics. A silent connection or a panicking handler must not stop the
/// consumer.
pub(crate) async fn bounded<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match tokio::time::timeout(MAX_BATCH_TIME, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(_)) => Err(Fault::permanent("the handler panicked; the log has the details")),
        Err(_) => Err(Fault::exhausted(format!("no end within {MAX_BATCH_TIME:?}"))),
    }
}
