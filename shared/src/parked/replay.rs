//! The actions of an operator on a parked key. Each action is a transaction that holds the lock of the key. The
//! second of two operators therefore sees the result of the first.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::storable;
use super::store::{self, ParkedRow};
use crate::cloudevents;
use crate::db::Db;
use crate::deadline::bounded;
use crate::envelope::Envelope;
use crate::fault::{Class, Classified, Fault};
use crate::inbox;
use crate::incoming::{Incoming, position_of};
use crate::router::MessageRouter;
use crate::unit_of_work::UnitOfWork;

/// How long one request replays. The next request replays the rest.
const MAX_RETRY_TIME: Duration = Duration::from_secs(15);

/// The result of a replay.
pub struct Replay {
    /// The number of messages that had their effect now.
    pub replayed: u64,
    /// The message at which the replay stopped, if one failed again.
    pub failed: Option<Failed>,
}

/// A message that failed again.
pub struct Failed {
    /// The id of the message in the table `parked`.
    pub id: i64,
    /// The reason of this failure.
    pub reason: String,
}

/// The reason why an action was not carried out.
pub enum Refused {
    /// There is no such message.
    Unknown,
    /// The message is already resolved.
    NotParked {
        /// The current status: `replayed` or `skipped`.
        status: String,
        /// The operator who resolved it, if known.
        by: Option<String>,
    },
    /// The new body is invalid. Each entry is the JSON pointer of a member, and the problem with it.
    Invalid(Vec<(&'static str, String)>),
    /// A technical failure. Nothing has changed.
    Fault(Fault),
}

impl<E: Classified> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Fault(error.into())
    }
}

/// Replays the key's messages in order, each in its own transaction, up to the first that fails again.
///
/// # Errors
/// Fails on a transient failure. Messages that were replayed before it stay replayed.
pub async fn retry(
    db: &Db,
    router: &MessageRouter,
    key: &str,
    stopping: &CancellationToken,
) -> Result<Replay, Fault> {
    let until = Instant::now() + MAX_RETRY_TIME;
    let mut replayed = 0;
    while Instant::now() < until && !stopping.is_cancelled() {
        let mut attempted = None;
        match bounded(replay_first(db, router, key, &mut attempted)).await {
            Ok(true) => replayed += 1,
            Ok(false) => break,
            Err(fault) => {
                let Some(id) = attempted.filter(|_| fault.class() == Class::Permanent) else {
                    return Err(fault);
                };
                let reason = storable(&fault.chain());
                warn!(key, id, reason, "a parked message failed again");
                let mut uow = locked(db, key).await?;
                store::mark_failed(uow.db(), id, &reason).await?;
                uow.commit().await?;
                return Ok(Replay { replayed, failed: Some(Failed { id, reason }) });
            }
        }
    }
    Ok(Replay { replayed, failed: None })
}

/// Replays one message and sets `attempted` to its id. Returns whether there was one.
async fn replay_first(
    db: &Db,
    router: &MessageRouter,
    key: &str,
    attempted: &mut Option<i64>,
) -> Result<bool, Fault> {
    let mut uow = locked(db, key).await?;
    let Some(row) = store::first(uow.db(), key).await? else {
        uow.abandon().await?;
        return Ok(false);
    };
    *attempted = Some(row.id);
    let id = row.id;
    let mut message = incoming(row);
    // If this service no longer consumes the event, the message needs no handling.
    if router.admit(&mut message) {
        if let Some(reason) = message.refused() {
            return Err(Fault::permanent(reason.to_owned()));
        }
        if message.is_keyless() {
            let subject = message.envelope()?.subject.clone();
            uow.lock([subject.clone()]).await?;
            if !store::parked_keys(uow.db(), std::slice::from_ref(&subject)).await?.is_empty() {
                let reason = format!(
                    "the message is about {subject}, and that key is parked too: retry {subject} first"
                );
                return Err(Fault::permanent(reason));
            }
        }
        router.handle(&mut uow, &message).await?;
    }
    store::mark_replayed(uow.db(), id).await?;
    uow.commit().await?;
    info!(key, id, message_id = ?message.id(), kind = message.kind(), "a parked message was replayed");
    Ok(true)
}

/// Marks one message as skipped, with the reason and the name of the operator. The unit of work holds the lock of the key, and
/// the caller commits it. Returns how many parked messages of the key are left.
///
/// # Errors
/// Fails if the message is unknown or already resolved, or on a technical failure. See [`Refused`].
pub async fn skip(uow: &mut UnitOfWork, key: &str, id: i64, reason: &str, by: &str) -> Result<i64, Refused> {
    find(uow, key, id).await?;
    store::mark_skipped(uow.db(), id, reason, by).await?;
    let left = store::left(uow.db(), key).await?.unwrap_or(0);
    let (key, by) = (key.to_owned(), by.to_owned());
    uow.after_commit(move || info!(key, id, by, "a parked message was skipped"));
    Ok(left)
}

/// Replaces the body of a message with a corrected one. The id of the message must stay, and the subject must be the
/// record's key. The old body is kept in the table `parked_edit`. This does not replay the message.
///
/// # Errors
/// Fails if the message is unknown or already resolved, if the body is invalid, or on a technical failure. See
/// [`Refused`].
pub async fn edit(
    db: &Db,
    router: &MessageRouter,
    key: &str,
    id: i64,
    body: &RawValue,
    by: &str,
) -> Result<(), Refused> {
    let mut uow = locked(db, key).await?;
    let row = find(&mut uow, key, id).await?;
    let message_id = row.message_id;
    let mut message = incoming(ParkedRow { body: body.get().as_bytes().to_vec(), ..row });
    let envelope: Envelope = match cloudevents::envelope(body.get().as_bytes()) {
        Ok(envelope) => envelope,
        Err(error) => {
            let detail = format!("the body is not an envelope: {}", position_of(&error));
            return Err(Refused::Invalid(vec![("", detail)]));
        }
    };
    let mut invalid = Vec::new();
    if let Some(before) = message_id.filter(|before| *before != envelope.id) {
        invalid.push(("/id", format!("it must stay {before}")));
    }
    if !message.is_keyless() && envelope.subject != message.key {
        invalid.push(("/subject", format!("it must be the record's key, {}", message.key)));
    }
    let admitted = router.admit(&mut message);
    match message.refused() {
        Some(reason) => invalid.push(("", reason.to_owned())),
        None if !admitted => invalid.push(("/type", "this service does not consume this type".to_owned())),
        None => {}
    }
    // The id of a message that could not be read was not claimed when the message was parked.
    if invalid.is_empty() && message_id.is_none() && !inbox::claim_one(uow.db(), envelope.id).await? {
        let detail = "a message with this id already had its effect here; use a new id";
        invalid.push(("/id", detail.to_owned()));
    }
    if !invalid.is_empty() {
        return Err(Refused::Invalid(invalid));
    }
    let kind = storable(&envelope.kind);
    store::replace_body(uow.db(), id, body.get().as_bytes(), envelope.id, &kind, by).await?;
    uow.commit().await?;
    info!(key, id, by, "a parked message was edited");
    Ok(())
}

async fn find(uow: &mut UnitOfWork, key: &str, id: i64) -> Result<ParkedRow, Refused> {
    match store::find(uow.db(), key, id).await? {
        None => Err(Refused::Unknown),
        Some(row) if !row.is_parked() => Err(Refused::NotParked { status: row.status, by: row.resolved_by }),
        Some(row) => Ok(row),
    }
}

async fn locked(db: &Db, key: &str) -> Result<UnitOfWork, sqlx::Error> {
    db.write(&[key.to_owned()]).await
}

fn incoming(row: ParkedRow) -> Incoming {
    Incoming::read((row.topic, row.partition, row.offset), row.key, &row.body, row.traceparent)
}
