//! Waiting until a server really serves: an open port is not enough.

use std::fmt::Display;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use crate::error::{Doing, Error};
use crate::files::POLL;
use crate::unit::Unit;

/// Repeats `attempt` until it succeeds, the server ends, or `limit` has passed.
///
/// It runs on a thread of its own, so that callers may be inside an async runtime or not.
pub(crate) fn await_ready<E, F>(unit: &Unit, limit: Duration, attempt: F) -> Result<(), Error>
where
    E: Display,
    F: AsyncFn() -> Result<(), E> + Send,
{
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .doing("make a runtime to await", Path::new(unit.name))?;
        runtime.block_on(async {
            let deadline = Instant::now() + limit;
            loop {
                let last = match timeout(Duration::from_secs(3), attempt()).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(fault)) => fault.to_string(),
                    Err(_) => "an attempt got no answer for 3 s".to_owned(),
                };
                if let Some(status) = unit.ended() {
                    return Err(Error::Ended { server: unit.name, status, log: unit.log_tail() });
                }
                if Instant::now() >= deadline {
                    return Err(Error::NotReady {
                        server: unit.name,
                        after: limit,
                        last,
                        log: unit.log_tail(),
                    });
                }
                sleep(POLL).await;
            }
        })
    };
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
