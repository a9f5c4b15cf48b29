//! Parked keys. A message that failed permanently, and every later message of its key, wait for an operator. They
//! wait in order in the table `parked`. Other keys continue.
//!
//! - The transaction that parks a message also publishes a copy through the outbox, by default to the topic
//!   `<service>.parked`. See [`ParkedCopy`].
//! - An operator retries the key, edits a message or skips one ([`replay`]). A service offers this over HTTP under
//!   `/parked`. The messages are replayed in order, each in a transaction that holds the lock of the key. A message
//!   that arrives in the meantime waits for that lock. It is parked behind the others if any are left, and handled
//!   otherwise.
//! - A command that a saga asks again is not parked again while the first one waits.
//! - The inbox claims the id of a message when the message is parked, so that a redelivery is not parked twice. A
//!   replay does not check the inbox: the status of the row says whether the message has had its effect.

pub mod bulk;
mod copy;
mod filter;
pub mod replay;
pub mod store;

use std::time::Duration;

use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

#[cfg(feature = "service")]
pub(crate) use self::copy::readable;
pub use self::copy::{Encoding, ParkedCopy};
use crate::cloudevents;
use crate::db::Db;
use crate::deadline::limited;
use crate::envelope::{Envelope, Outcome};
use crate::fault::Fault;
use crate::incoming::Incoming;
use crate::metric;
use crate::unit_of_work::UnitOfWork;

/// The interval between two counts of the parked keys.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// The most parked messages of one type and key with which a further one is compared.
const MOST_COMPARED: i64 = 20;
/// The longest stored reason, in characters. Reasons quote text from producers, such as types and names.
const MAX_REASON_CHARS: usize = 1000;

/// Parks a message and appends its copy. The caller has locked the key and claimed the id. Returns whether this
/// parked the key. A redelivered record that an operator has already resolved is not parked again.
pub(crate) async fn park(uow: &mut UnitOfWork, message: &Incoming, reason: &str) -> Result<bool, Fault> {
    let reason = storable(reason);
    if !insert(uow, message, &reason).await? {
        return Ok(false);
    }
    let (key, message_id) = (message.key.clone(), message.id());
    let (topic, partition, offset) = (message.topic.clone(), message.partition, message.offset);
    uow.after_commit(move || {
        error!(
            key,
            ?message_id,
            topic,
            partition,
            offset,
            reason,
            "the message cannot be handled; its key is parked"
        );
    });
    Ok(true)
}

/// Parks a message whose key is parked already.
pub(crate) async fn park_behind(uow: &mut UnitOfWork, message: &Incoming) -> Result<(), Fault> {
    if insert(uow, message, "an earlier message of this key is parked").await? {
        let (key, message_id) = (message.key.clone(), message.id());
        uow.after_commit(move || {
            info!(key, ?message_id, "a message is parked behind an earlier one of its key")
        });
    }
    Ok(())
}

/// Returns whether a message says the same about its saga step as a message of its key that is parked: a command that was
/// asked again, or an answer that was given again. The parked one will have the effect of both. If an operator skips it, the
/// saga asks again. The caller has locked the key.
pub(crate) async fn is_repeated(uow: &mut UnitOfWork, message: &Incoming) -> Result<bool, sqlx::Error> {
    let Some(envelope) = message.envelope.as_ref().filter(|envelope| envelope.metadata.step.is_some()) else {
        return Ok(false);
    };
    let bodies = store::find_bodies(uow.db(), &message.key, &storable(&envelope.kind), MOST_COMPARED).await?;
    let parked = bodies.iter().filter_map(|body| cloudevents::envelope::<Box<RawValue>>(body).ok());
    let repeated = parked.into_iter().any(|parked| says_the_same(&parked, envelope));
    if repeated {
        uow.after_commit(|| metric::MESSAGES_PASSED_OVER.counter(&["asked_again"]).increment(1));
        debug!(key = message.key, kind = message.kind(), "a repeated message of a parked key is dropped");
    }
    Ok(repeated)
}

fn says_the_same(one: &Envelope, other: &Envelope) -> bool {
    // Whoever cannot answer yet says so again and again, with another number of attempts.
    let failing = other.metadata.outcome == Some(Outcome::Failing);
    (&one.kind, one.correlation_id, &one.metadata) == (&other.kind, other.correlation_id, &other.metadata)
        && (failing || one.data.get() == other.data.get())
}

async fn insert(uow: &mut UnitOfWork, message: &Incoming, reason: &str) -> Result<bool, Fault> {
    if !store::insert(uow.db(), message, reason).await? {
        warn!(
            key = %message.key, topic = %message.topic, partition = message.partition, offset = message.offset,
            "the record is in the table of parked messages already, and is not parked again"
        );
        uow.after_commit(|| metric::MESSAGES_PASSED_OVER.counter(&["parked_before"]).increment(1));
        return Ok(false);
    }
    copy::append(uow, message, reason)?;
    uow.after_commit(|| metric::PARKED_MESSAGES.counter(&[]).increment(1));
    Ok(true)
}

/// Removes NUL characters, which PostgreSQL texts cannot hold, and limits the length. The body is stored as bytes and
/// keeps them.
fn storable(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(MAX_REASON_CHARS).collect()
}

/// Counts the parked keys every five seconds until `stop`, and shows the number as the gauge `parked_keys` for
/// alerts.
pub async fn count(db: Db, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match limited(counted(&db)).await {
            Ok(keys) => metric::PARKED_KEYS.gauge(&[]).set(keys as f64),
            // A failing database already shows elsewhere, first in `/readyz`.
            Err(error) => debug!(%error, "the parked keys could not be counted"),
        }
        stop.run_until_cancelled(tokio::time::sleep(COUNT_EVERY)).await;
    }
}

async fn counted(db: &Db) -> Result<i64, sqlx::Error> {
    store::count_keys(&mut *db.read().await?).await
}
