//! Parked keys: a message that failed for good, and every later one of its key, wait in the table `parked`, in order,
//! for an operator. Other keys flow on.
//!
//! - A copy of each goes to a topic, `<service>.parked` unless it is called otherwise, through the outbox, in the transaction that parks it: see
//!   [`ParkedCopy`].
//! - An operator retries the key, edits a message or skips one ([`replay`]), over HTTP under `/parked` of a service. The messages are then
//!   replayed in order, each in a transaction that holds the key's lock. A message that arrives meanwhile waits
//!   for that lock: it is parked behind the others while one of them is left, and handled when none is.
//! - A message's id is claimed in the inbox when it is parked, so a redelivery is not parked twice, and a replay does not
//!   ask the inbox again: the row's status says whether the message has had its effect.

mod copy;
pub mod replay;
pub mod store;

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::debug;

#[cfg(feature = "service")]
pub(crate) use self::copy::readable;
pub use self::copy::{Encoding, ParkedCopy};
use crate::db::Db;
use crate::fault::Fault;
use crate::incoming::Incoming;
use crate::metric;
use crate::unit_of_work::UnitOfWork;

/// How often the parked keys are counted.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// A reason quotes what a producer sent (a type, a name); of more than this nobody reads on.
const MAX_REASON_CHARS: usize = 1000;

/// Parks a message and appends its copy. The caller has locked its key and claimed its id. Whether the key is parked
/// now because of it: a record that comes again, after an operator has dealt with it, is not parked again.
pub(crate) async fn park(uow: &mut UnitOfWork, message: &Incoming, reason: &str) -> Result<bool, Fault> {
    let reason = storable(reason);
    if !store::insert(uow.db(), message, &reason).await? {
        return Ok(false);
    }
    copy::append(uow, message, &reason)?;
    uow.after_commit(|| metric::PARKED_MESSAGES.counter(&[]).increment(1));
    Ok(true)
}

/// PostgreSQL's texts can't hold a NUL; the body, which is bytes, keeps it.
fn storable(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(MAX_REASON_CHARS).collect()
}

/// Counts the parked keys every five seconds until `stop`, and shows them as the gauge `parked_keys`, so that one can raise
/// an alarm.
pub async fn count(db: Db, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match counted(&db).await {
            Ok(keys) => metric::PARKED_KEYS.gauge(&[]).set(keys as f64),
            // The database's own trouble shows elsewhere, in /readyz first.
            Err(error) => debug!(%error, "the parked keys could not be counted"),
        }
        stop.run_until_cancelled(tokio::time::sleep(COUNT_EVERY)).await;
    }
}

async fn counted(db: &Db) -> Result<i64, sqlx::Error> {
    store::count_keys(&mut *db.read().await?).await
}
