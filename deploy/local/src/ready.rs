//! The wait until clients can use a server. An open port is not enough for that.

use std::fmt::Display;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use crate::error::{Doing, Error};
use crate::instance::Instance;
use crate::process::POLL_INTERVAL;

/// Repeats `attempt` until it succeeds, the server ends, or `limit` has passed.
///
/// Fails with [`Error::Ended`] or [`Error::NotReady`], which quote the server's log. The attempts run on a thread of
/// their own, because the caller's thread may belong to an async runtime, which must not be blocked by another one.
pub(crate) fn await_ready<E, F>(instance: &Instance, limit: Duration, attempt: F) -> Result<(), Error>
where
    E: Display,
    F: AsyncFn() -> Result<(), E> + Send,
{
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .doing("make a runtime to await", Path::new(instance.name))?;
        runtime.block_on(async {
            let deadline = Instant::now() + limit;
            loop {
                let last = match timeout(Duration::from_secs(3), attempt()).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(fault)) => fault.to_string(),
                    Err(_) => "an attempt got no answer for 3 s".to_owned(),
                };
                if let Some(status) = instance.ended() {
                    return Err(Error::Ended { server: instance.name, status, log: instance.log_tail() });
                }
                if Instant::now() >= deadline {
                    return Err(Error::NotReady {
                        server: instance.name,
                        after: limit,
                        last,
                        log: instance.log_tail(),
                    });
                }
                sleep(POLL_INTERVAL).await;
            }
        })
    };
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
