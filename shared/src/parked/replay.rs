//! What an operator does with a parked key. Each act is a transaction that holds the key's lock, so that of two
//! operators the second sees what the first has done.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::storable;
use super::store::{self, Row};
use crate::cloudevents;
use crate::consumer::{Incoming, Table, bounded, place};
use crate::db::Db;
use crate::envelope::Envelope;
use crate::fault::{Class, Classified, Fault};
use crate::inbox::{self, Claimed};
use crate::problem::Invalid;

/// How long one request replays. What is left then is replayed by the next.
const LONGEST_RETRY: Duration = Duration::from_secs(15);

/// What came of a replay.
pub(super) struct Replay {
    /// How many messages had their effect now.
    pub replayed: u64,
    /// Where it stopped.
    pub failed: Option<Failed>,
}

/// A message that failed again.
pub(super) struct Failed {
    pub id: i64,
    pub reason: String,
}

/// Why an act was not done.
pub(super) enum Refused {
    /// There is no such message.
    Unknown,
    /// It was replayed or skipped before.
    NotParked {
        status: String,
        by: Option<String>,
    },
    Invalid(Vec<Invalid>),
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
pub(super) async fn retry(
    db: &Db,
    table: &Table,
    key: &str,
    stopping: &CancellationToken,
) -> Result<Replay, Fault> {
    let until = Instant::now() + LONGEST_RETRY;
    let mut replayed = 0;
    while Instant::now() < until && !stopping.is_cancelled() {
        let mut trying = None;
        match bounded(replay_first(db, table, key, &mut trying)).await {
            Ok(true) => replayed += 1,
            Ok(false) => break,
            Err(fault) => {
                let Some(id) = trying.filter(|_| fault.class() == Class::Permanent) else {
                    return Err(fault);
                };
                let reason = storable(&fault.chain());
                warn!(key, id, reason, "a parked message failed again");
                let mut claimed = locked(db, key).await?;
                store::mark_failed(claimed.db(), id, &reason).await?;
                claimed.commit().await?;
                return Ok(Replay { replayed, failed: Some(Failed { id, reason }) });
            }
        }
    }
    Ok(Replay { replayed, failed: None })
}

/// Replays one message; `trying` is then its id. Whether there was one.
async fn replay_first(db: &Db, table: &Table, key: &str, trying: &mut Option<i64>) -> Result<bool, Fault> {
    let mut claimed = locked(db, key).await?;
    let Some(row) = store::first(claimed.db(), key).await? else {
        claimed.abandon().await?;
        return Ok(false);
    };
    *trying = Some(row.id);
    let id = row.id;
    let mut message = incoming(row);
    // An event that this service does not listen to any more has nothing left to do.
    if table.admit(&mut message) {
        if let Some(reason) = message.refused() {
            return Err(Fault::permanent(reason.to_owned()));
        }
        if message.is_keyless() {
            let subject = message.envelope()?.subject.clone();
            claimed.lock([subject.clone()]).await?;
            if !store::parked_keys(claimed.db(), std::slice::from_ref(&subject)).await?.is_empty() {
                let reason =
                    format!("the message is about {subject}, which is parked itself: retry that first");
                return Err(Fault::permanent(reason));
            }
        }
        table.handler_of(message.kind())?.handle(&mut claimed, &[&message]).await?;
    }
    store::mark_replayed(claimed.db(), id).await?;
    claimed.commit().await?;
    info!(key, id, message = ?message.id(), kind = message.kind(), "a parked message was replayed");
    Ok(true)
}

/// Marks one message as skipped. How many of the key are left.
pub(super) async fn skip(db: &Db, key: &str, id: i64, reason: &str, by: &str) -> Result<i64, Refused> {
    let mut claimed = locked(db, key).await?;
    find(&mut claimed, key, id).await?;
    store::mark_skipped(claimed.db(), id, reason, by).await?;
    let left = store::left(claimed.db(), key).await?.unwrap_or(0);
    claimed.commit().await?;
    info!(key, id, by, "a parked message was skipped");
    Ok(left)
}

/// Puts a corrected body in the place of a message's.
pub(super) async fn edit(
    db: &Db,
    table: &Table,
    key: &str,
    id: i64,
    body: &RawValue,
    by: &str,
) -> Result<(), Refused> {
    let mut claimed = locked(db, key).await?;
    let row = find(&mut claimed, key, id).await?;
    let message_id = row.message_id;
    let mut message = incoming(Row { body: body.get().as_bytes().to_vec(), ..row });
    let envelope: Envelope = match cloudevents::envelope(body.get().as_bytes()) {
        Ok(envelope) => envelope,
        Err(error) => {
            let detail = format!("the body is not an envelope: {}", place(&error));
            return Err(Refused::Invalid(vec![Invalid::new("", detail)]));
        }
    };
    let mut wrong = Vec::new();
    if let Some(before) = message_id.filter(|before| *before != envelope.id) {
        wrong.push(Invalid::new("/id", format!("it must stay {before}")));
    }
    if !message.is_keyless() && envelope.subject != message.key {
        wrong.push(Invalid::new("/subject", format!("it must be the record's key, {}", message.key)));
    }
    let admitted = table.admit(&mut message);
    match message.refused() {
        Some(reason) => wrong.push(Invalid::new("", reason)),
        None if !admitted => wrong.push(Invalid::new("/type", "this service does not take this type")),
        None => {}
    }
    // A message that could not be read was not claimed when it was parked.
    if wrong.is_empty() && message_id.is_none() && !inbox::claim_one(claimed.db(), envelope.id).await? {
        let detail = "a message with this id has had its effect here; give it a new one";
        wrong.push(Invalid::new("/id", detail));
    }
    if !wrong.is_empty() {
        return Err(Refused::Invalid(wrong));
    }
    let kind = storable(&envelope.kind);
    store::replace_body(claimed.db(), id, body.get().as_bytes(), envelope.id, &kind, by).await?;
    claimed.commit().await?;
    info!(key, id, by, "a parked message was edited");
    Ok(())
}

async fn find(claimed: &mut Claimed, key: &str, id: i64) -> Result<Row, Refused> {
    match store::find(claimed.db(), key, id).await? {
        None => Err(Refused::Unknown),
        Some(row) if !row.is_parked() => Err(Refused::NotParked { status: row.status, by: row.settled_by }),
        Some(row) => Ok(row),
    }
}

async fn locked(db: &Db, key: &str) -> Result<Claimed, sqlx::Error> {
    db.write(&[key.to_owned()]).await
}

fn incoming(row: Row) -> Incoming {
    Incoming::read((row.topic, row.partition, row.offset), row.key, &row.body, row.traceparent)
}
