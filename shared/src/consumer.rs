//! The batch consumer: what has arrived is claimed, handled and committed in one transaction, and only then are the
//! offsets stored.
//!
//! A batch that fails is rolled back. If the failure may pass, the whole batch is repeated with backoff; if not, its
//! messages are redone one by one, so that a bad one costs only itself: it is parked together with its key.
//! A rebalance in between does no harm: whoever handles a message again finds its id claimed.

mod runtime;
mod table;

use std::collections::HashMap;

use rdkafka::message::{BorrowedMessage, Message as _};
use tracing::{Span, debug};
use uuid::Uuid;

pub(crate) use self::runtime::Consumer;
pub use self::table::{BatchHandler, BoxFuture, Table};
use crate::cloudevents;
use crate::db::Db;
use crate::envelope::{Cause, Envelope, Message};
use crate::fault::Fault;
use crate::inbox;
use crate::parked;
use crate::telemetry;

/// A message as it arrived, on its way to a handler.
pub struct Incoming {
    /// The topic without the installation's prefix.
    pub topic: String,
    /// The partition of the topic that it came from.
    pub partition: i32,
    /// Its place in the partition.
    pub offset: i64,
    /// The record's key: the aggregate that the message is about.
    pub key: String,
    /// The record's value as it was.
    pub body: Vec<u8>,
    /// The trace that the message belongs to.
    pub traceparent: Option<String>,
    /// The value as an envelope, where it is one. A handler only sees messages that have it.
    pub envelope: Option<Envelope>,
    undecodable: String,
    span: Span,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Incoming({}/{}/{} {})", self.topic, self.partition, self.offset, self.kind())
    }
}

impl Incoming {
    fn new(record: &BorrowedMessage<'_>, topic: String) -> Self {
        let body = record.payload().unwrap_or_default().to_vec();
        let (partition, offset) = (record.partition(), record.offset());
        // A record without a readable key is its own aggregate, so that it can be parked without holding up others.
        let key =
            record.key().and_then(|key| std::str::from_utf8(key).ok()).filter(|key| !key.contains('\0'));
        let key = key.map_or_else(|| format!("{topic}/{partition}/{offset}"), str::to_owned);
        let traceparent = cloudevents::header(record.headers(), cloudevents::TRACEPARENT).map(str::to_owned);
        let mut incoming = Self {
            topic,
            partition,
            offset,
            key,
            body,
            traceparent,
            envelope: None,
            undecodable: String::new(),
            span: Span::none(),
        };
        match cloudevents::envelope::<Box<serde_json::value::RawValue>>(&incoming.body) {
            Ok(envelope) => {
                incoming.span = telemetry::process_span(&incoming, &envelope);
                incoming.envelope = Some(envelope);
            }
            Err(error) => incoming.undecodable = format!("the value is not an envelope: {}", place(&error)),
        }
        incoming
    }

    /// The message's type, or nothing if it could not be read.
    pub fn kind(&self) -> &str {
        self.envelope.as_ref().map_or("", |envelope| &envelope.kind)
    }

    fn id(&self) -> Option<Uuid> {
        self.envelope.as_ref().map(|envelope| envelope.id)
    }

    /// The envelope.
    ///
    /// # Errors
    /// Never in a handler: a message that can't be read does not get that far.
    pub fn envelope(&self) -> Result<&Envelope, Fault> {
        self.envelope.as_ref().ok_or_else(|| Fault::permanent(self.undecodable.clone()))
    }

    /// The message's data.
    ///
    /// # Errors
    /// If the data is not what the type says. It will not be better next time, so the message is parked.
    pub fn data<M: Message>(&self) -> Result<M, Fault> {
        let envelope = self.envelope()?;
        serde_json::from_str(envelope.data.get())
            .map_err(|error| Fault::permanent(format!("the data is not a {}: {}", M::TYPE, place(&error))))
    }

    /// What the messages inherit that this one causes.
    ///
    /// # Errors
    /// As [`Incoming::envelope`].
    pub fn cause(&self) -> Result<Cause, Fault> {
        let envelope = self.envelope()?;
        Ok(Cause {
            correlation_id: envelope.correlation_id,
            causation_id: Some(envelope.id),
            traceparent: telemetry::traceparent_of(&self.span).or_else(|| self.traceparent.clone()),
        })
    }
}

/// Where JSON is wrong. What is wrong would quote the data, which may be personal.
fn place(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Data => "a member is missing or of another type",
        _ => "it is not JSON",
    };
    format!("{what} at line {}, column {}", error.line(), error.column())
}

/// Claims and handles messages in one transaction.
async fn attempt(db: &Db, table: &Table, batch: &[&Incoming]) -> Result<(), Fault> {
    let mut keys: Vec<String> = batch.iter().map(|message| message.key.clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut claimed = db.write(&keys).await?;
    let mut parked = parked::parked_keys(claimed.db(), &keys).await?;
    let ids: Vec<Uuid> = batch.iter().filter_map(|message| message.id()).collect();
    let mut new = inbox::claim(claimed.db(), &ids).await?;
    let duplicates = ids.len() - new.len();
    claimed.after_commit(move || {
        metrics::counter!("amends_inbox_duplicates_total").increment(duplicates as u64)
    });

    let mut fresh = Vec::with_capacity(batch.len());
    for &message in batch {
        match message.id() {
            // The first of several copies in one batch takes the claim.
            Some(id) if !new.remove(&id) => {}
            Some(_) if parked.contains(&message.key) => {
                parked::park(claimed.db(), message, "an earlier message of this key is parked").await?;
            }
            Some(_) => fresh.push(message),
            None => {
                parked::park(claimed.db(), message, &message.undecodable).await?;
                parked.insert(message.key.clone());
            }
        }
    }
    for (handler, messages) in waves(table, &fresh)? {
        handler.handle(&mut claimed, &messages).await?;
    }
    claimed.commit().await?;
    for message in fresh {
        debug!(key = %message.key, message = ?message.id(), kind = message.kind(), "handled");
    }
    Ok(())
}

type Wave<'t, 'm> = (&'t dyn BatchHandler, Vec<&'m Incoming>);

/// Groups messages by handler without reordering those of one key: a message goes into a later wave than an earlier
/// one of its key that has another handler.
fn waves<'t, 'm>(table: &'t Table, messages: &[&'m Incoming]) -> Result<Vec<Wave<'t, 'm>>, Fault> {
    let mut last: HashMap<&str, (usize, usize)> = HashMap::new();
    let mut groups: Vec<HashMap<usize, Vec<&'m Incoming>>> = Vec::new();
    for message in messages {
        let Some(handler) = table.route(message.kind()) else {
            return Err(Fault::permanent(format!("no handler for {}", message.kind())));
        };
        let wave = match last.get(message.key.as_str()) {
            Some(&(wave, same)) if same == handler => wave,
            Some(&(wave, _)) => wave + 1,
            None => 0,
        };
        last.insert(&message.key, (wave, handler));
        if groups.len() <= wave {
            groups.resize_with(wave + 1, HashMap::new);
        }
        groups[wave].entry(handler).or_default().push(message);
    }
    let mut ordered = Vec::new();
    for group in groups {
        let mut handlers: Vec<_> = group.into_iter().collect();
        handlers.sort_unstable_by_key(|(handler, _)| *handler);
        ordered.extend(handlers.into_iter().map(|(handler, messages)| (table.handler(handler), messages)));
    }
    Ok(ordered)
}

/// Parks one message that failed for good, in a transaction of its own.
async fn park(db: &Db, message: &Incoming, reason: &str) -> Result<(), Fault> {
    let mut claimed = db.write(std::slice::from_ref(&message.key)).await?;
    let ids: Vec<Uuid> = message.id().into_iter().collect();
    inbox::claim(claimed.db(), &ids).await?;
    parked::park(claimed.db(), message, reason).await?;
    claimed.after_commit(|| metrics::counter!("amends_parked_total").increment(1));
    claimed.commit().await?;
    Ok(())
}
