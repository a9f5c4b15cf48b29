//! What an operator does with a parked key. Each act is a transaction that holds the key's lock, so that of two
//! operators the second sees what the first has done.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::storable;
use super::store::{self, Row};
use crate::cloudevents;
use crate::db::Db;
use crate::deadline::bounded;
use crate::envelope::Envelope;
use crate::fault::{Class, Classified, Fault};
use crate::inbox;
use crate::incoming::{Incoming, place};
use crate::router::MessageRouter;
use crate::unit_of_work::UnitOfWork;

/// How long one request replays. What is left then is replayed by the next.
const LONGEST_RETRY: Duration = Duration::from_secs(15);

/// What came of a replay.
pub struct Replay {
    /// How many messages had their effect now.
    pub replayed: u64,
    /// Where it stopped.
    pub failed: Option<Failed>,
}

/// A message that failed again.
pub struct Failed {
    /// Its number in the table `parked`.
    pub id: i64,
    /// Why it failed this time.
    pub reason: String,
}

/// Why an act was not done.
pub enum Refused {
    /// There is no such message.
    Unknown,
    /// It was replayed or skipped before.
    NotParked {
        /// What it is now: `replayed` or `skipped`.
        status: String,
        /// Who did that, where it is known.
        by: Option<String>,
    },
    /// The new body is not right: each member's JSON pointer, and what is wrong with it.
    Invalid(Vec<(&'static str, String)>),
    /// A technical failure; nothing has happened.
    Fault(Fault),
}

impl<E: Classified> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Fault(error.into())
    }
}

/// Replays the key's messages in order, each in a transaction of its own, up to the first that fails again.
///
/// # Errors
/// A failure that may pass. What was replayed before it stays replayed.
pub async fn retry(
    db: &Db,
    router: &MessageRouter,
    key: &str,
    stopping: &CancellationToken,
) -> Result<Replay, Fault> {
    let until = Instant::now() + LONGEST_RETRY;
    let mut replayed = 0;
    while Instant::now() < until && !stopping.is_cancelled() {
        let mut trying = None;
        match bounded(replay_first(db, router, key, &mut trying)).await {
            Ok(true) => replayed += 1,
            Ok(false) => break,
            Err(fault) => {
                let Some(id) = trying.filter(|_| fault.class() == Class::Permanent) else {
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

/// Replays one message; `trying` is then its id. Whether there was one.
async fn replay_first(
    db: &Db,
    router: &MessageRouter,
    key: &str,
    trying: &mut Option<i64>,
) -> Result<bool, Fault> {
    let mut uow = locked(db, key).await?;
    let Some(row) = store::first(uow.db(), key).await? else {
        uow.abandon().await?;
        return Ok(false);
    };
    *trying = Some(row.id);
    let id = row.id;
    let mut message = incoming(row);
    // An event that this service does not listen to any more has nothing left to do.
    if router.admit(&mut message) {
        if let Some(reason) = message.refused() {
            return Err(Fault::permanent(reason.to_owned()));
        }
        if message.is_keyless() {
            let subject = message.envelope()?.subject.clone();
            uow.lock([subject.clone()]).await?;
            if !store::parked_keys(uow.db(), std::slice::from_ref(&subject)).await?.is_empty() {
                let reason =
                    format!("the message is about {subject}, which is parked itself: retry that first");
                return Err(Fault::permanent(reason));
            }
        }
        router.handler_of(message.kind())?.handle(&mut uow, &[&message]).await?;
    }
    store::mark_replayed(uow.db(), id).await?;
    uow.commit().await?;
    info!(key, id, message = ?message.id(), kind = message.kind(), "a parked message was replayed");
    Ok(true)
}

/// Marks one message as skipped, with the reason and who skips it. Returns how many of the key are left.
///
/// # Errors
/// See [`Refused`].
pub async fn skip(db: &Db, key: &str, id: i64, reason: &str, by: &str) -> Result<i64, Refused> {
    let mut uow = locked(db, key).await?;
    find(&mut uow, key, id).await?;
    store::mark_skipped(uow.db(), id, reason, by).await?;
    let left = store::left(uow.db(), key).await?.unwrap_or(0);
    uow.commit().await?;
    info!(key, id, by, "a parked message was skipped");
    Ok(left)
}

/// Replaces a message's body with a corrected one. It keeps the message's id, and its subject stays the record's key; the
/// body as it was before is kept too. Nothing is replayed by it.
///
/// # Errors
/// See [`Refused`].
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
    let mut message = incoming(Row { body: body.get().as_bytes().to_vec(), ..row });
    let envelope: Envelope = match cloudevents::envelope(body.get().as_bytes()) {
        Ok(envelope) => envelope,
        Err(error) => {
            let detail = format!("the body is not an envelope: {}", place(&error));
            return Err(Refused::Invalid(vec![("", detail)]));
        }
    };
    let mut wrong = Vec::new();
    if let Some(before) = message_id.filter(|before| *before != envelope.id) {
        wrong.push(("/id", format!("it must stay {before}")));
    }
    if !message.is_keyless() && envelope.subject != message.key {
        wrong.push(("/subject", format!("it must be the record's key, {}", message.key)));
    }
    let admitted = router.admit(&mut message);
    match message.refused() {
        Some(reason) => wrong.push(("", reason.to_owned())),
        None if !admitted => wrong.push(("/type", "this service does not take this type".to_owned())),
        None => {}
    }
    // A message that could not be read was not claimed when it was parked.
    if wrong.is_empty() && message_id.is_none() && !inbox::claim_one(uow.db(), envelope.id).await? {
        let detail = "a message with this id has had its effect here; give it a new one";
        wrong.push(("/id", detail.to_owned()));
    }
    if !wrong.is_empty() {
        return Err(Refused::Invalid(wrong));
    }
    let kind = storable(&envelope.kind);
    store::replace_body(uow.db(), id, body.get().as_bytes(), envelope.id, &kind, by).await?;
    uow.commit().await?;
    info!(key, id, by, "a parked message was edited");
    Ok(())
}

async fn find(uow: &mut UnitOfWork, key: &str, id: i64) -> Result<Row, Refused> {
    match store::find(uow.db(), key, id).await? {
        None => Err(Refused::Unknown),
        Some(row) if !row.is_parked() => Err(Refused::NotParked { status: row.status, by: row.resolved_by }),
        Some(row) => Ok(row),
    }
}

async fn locked(db: &Db, key: &str) -> Result<UnitOfWork, sqlx::Error> {
    db.write(&[key.to_owned()]).await
}

fn incoming(row: Row) -> Incoming {
    Incoming::read((row.topic, row.partition, row.offset), row.key, &row.body, row.traceparent)
}
