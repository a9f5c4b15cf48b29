//! The asynchronous runtime of commands that only wait for answers.

/// Runs an asynchronous command to its end, on the calling thread.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
