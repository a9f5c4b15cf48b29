//! The batch consumer: what has arrived is claimed, handled and committed in one transaction, and only then are the
//! offsets stored.
//!
//! A batch that fails is rolled back. If the failure may pass, the whole batch is repeated with backoff; if not, its
//! messages are redone one by one, so that a bad one costs only itself: it is parked together with its key.
//! A rebalance in between does no harm: whoever handles a message again finds its id claimed, or what it has written.

mod held;
mod runtime;
mod table;
mod versions;
mod watch;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use rdkafka::message::{BorrowedMessage, Message as _};
use tracing::{Span, debug};
use uuid::Uuid;

pub(crate) use self::runtime::Consumer;
pub use self::table::{BatchHandler, BoxFuture, Table};
use crate::cloudevents;
use crate::db::Db;
use crate::envelope::{Cause, Envelope, MAX_MESSAGE_BYTES, Message};
use crate::fault::Fault;
use crate::inbox::{self, Asked, Claimed, Claims};
use crate::parked;
use crate::retention;
use crate::steps::StepKey;
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
    /// The record's value; of a message of the previous version, that of the version which it was cast to.
    pub body: Vec<u8>,
    /// The trace that the message belongs to.
    pub traceparent: Option<String>,
    /// The value as an envelope, where it is one. A handler only sees messages that have it.
    pub envelope: Option<Envelope>,
    /// The record's value as it came, where it was cast up.
    original: Option<Vec<u8>>,
    /// Why no handler gets to see it.
    refused: Option<String>,
    span: Span,
}

/// How long a batch may take before its connection is given up.
const LONGEST_BATCH: Duration = Duration::from_secs(45);

/// The longest key, in bytes; what it is about goes into indexes and addresses.
const MAX_KEY_BYTES: usize = 512;

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Incoming({}/{}/{} {})", self.topic, self.partition, self.offset, self.kind())
    }
}

impl Incoming {
    fn new(record: &BorrowedMessage<'_>, topic: String) -> Self {
        let (partition, offset) = (record.partition(), record.offset());
        // A record without a usable key is its own aggregate, so that it can be parked without holding up others.
        let key = record.key().and_then(|key| std::str::from_utf8(key).ok()).filter(|key| is_usable(key));
        let key = key.map_or_else(|| own_key(&topic, partition, offset), str::to_owned);
        let traceparent = cloudevents::header(record.headers(), cloudevents::TRACEPARENT).map(str::to_owned);
        Self::read((topic, partition, offset), key, record.payload().unwrap_or_default(), traceparent)
    }

    /// The message of a record, from Kafka or from the parked table.
    pub(crate) fn read(
        (topic, partition, offset): (String, i32, i64),
        key: String,
        value: &[u8],
        traceparent: Option<String>,
    ) -> Self {
        let kept = &value[..value.len().min(parked::MAX_KEPT_BYTES)];
        let mut incoming = Self {
            topic,
            partition,
            offset,
            key,
            body: kept.to_vec(),
            traceparent,
            envelope: None,
            original: None,
            refused: None,
            span: Span::none(),
        };
        if value.len() > MAX_MESSAGE_BYTES {
            let mut reason = format!(
                "the record has {} bytes, more than the {MAX_MESSAGE_BYTES} that a message may have",
                value.len()
            );
            if kept.len() < value.len() {
                reason.push_str(&format!("; the first {} are kept", kept.len()));
            }
            incoming.refuse(reason);
        }
        match cloudevents::envelope::<Box<serde_json::value::RawValue>>(&incoming.body) {
            Ok(envelope) => {
                incoming.span = telemetry::process_span(&incoming, &envelope);
                incoming.envelope = Some(envelope);
            }
            Err(error) => incoming.refuse(format!("the value is not an envelope: {}", place(&error))),
        }
        incoming
    }

    /// Keeps the message from the handlers; it will be parked. The first reason stays.
    fn refuse(&mut self, reason: String) {
        self.refused.get_or_insert(reason);
    }

    /// Why no handler may see this message, if none may.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Whether the record had no key that could be used, so that its place stands for one.
    pub(crate) fn is_keyless(&self) -> bool {
        self.key == own_key(&self.topic, self.partition, self.offset)
    }

    /// The record's value as it came.
    pub(crate) fn original(&self) -> &[u8] {
        self.original.as_deref().unwrap_or(&self.body)
    }

    /// The message's type, or nothing if it could not be read.
    pub fn kind(&self) -> &str {
        self.envelope.as_ref().map_or("", |envelope| &envelope.kind)
    }

    pub(crate) fn id(&self) -> Option<Uuid> {
        self.envelope.as_ref().map(|envelope| envelope.id)
    }

    /// The envelope.
    ///
    /// # Errors
    /// Never in a handler: a message that can't be read does not get that far.
    pub fn envelope(&self) -> Result<&Envelope, Fault> {
        self.envelope.as_ref().ok_or_else(|| Fault::permanent(self.refused.clone().unwrap_or_default()))
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

/// Whether a record's key can stand in a text, in an index and in an address.
fn is_usable(key: &str) -> bool {
    !key.contains('\0') && key.len() <= MAX_KEY_BYTES && !matches!(key, "" | "." | "..")
}

fn own_key(topic: &str, partition: i32, offset: i64) -> String {
    format!("{topic}/{partition}/{offset}")
}

/// Where JSON is wrong. What is wrong would quote the data, which may be personal.
pub(crate) fn place(error: &serde_json::Error) -> String {
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
    let (claiming, others): (Vec<_>, Vec<_>) =
        batch.iter().copied().partition(|message| table.claims(message.kind()));
    let ids_of = |messages: &[&Incoming]| messages.iter().filter_map(|message| message.id()).collect();
    let (ids, others): (Vec<Uuid>, Vec<Uuid>) = (ids_of(&claiming), ids_of(&others));
    let mut steps = Vec::new();
    for message in batch.iter().filter(|message| table.takes_steps(message.kind())) {
        // One that does not say its step is refused by its handler.
        let Ok(step) = StepKey::of(message) else { continue };
        steps.extend(step.action());
        steps.push(step);
    }
    let asked = Asked { ids: &ids, others: &others, steps: &steps };
    let (mut claimed, claims) = Claimed::claim(db.clone(), &keys, &asked).await?;
    let Claims { mut new, mut parked, settled } = claims;
    let duplicates = ids.len() - new.len();
    claimed.after_commit(move || {
        metrics::counter!("amends_inbox_duplicates_total").increment(duplicates as u64)
    });

    let mut fresh = Vec::with_capacity(batch.len());
    for &message in batch {
        let id = message.id();
        let (claiming, unclaimed) = if table.claims(message.kind()) { (id, None) } else { (None, id) };
        // The first of several copies in one batch takes the claim.
        if claiming.is_some_and(|id| !new.remove(&id)) {
            continue;
        }
        // An operator has decided what was to become of it.
        if unclaimed.is_some_and(|id| settled.contains(&id)) {
            continue;
        }
        // Its id is new only because it was forgotten, or might have been.
        let stale = claiming.is_some_and(|id| retention::stale(id, claimed.now(), db.retention().inbox));
        let refused = if stale { Some(retention::STALE) } else { message.refused() };
        // What is parked is claimed, so that it is parked once.
        if (parked.contains(&message.key) || refused.is_some())
            && let Some(id) = unclaimed
            && !inbox::claim_one(claimed.db(), id).await?
        {
            continue;
        }
        if parked.contains(&message.key) {
            parked::park(&mut claimed, message, "an earlier message of this key is parked").await?;
        } else if let Some(reason) = refused {
            if parked::park(&mut claimed, message, reason).await? {
                parked.insert(message.key.clone());
            }
        } else {
            fresh.push(message);
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
    // Another replica may have handled it meanwhile, or parked it.
    if let Some(id) = message.id()
        && !inbox::claim_one(claimed.db(), id).await?
    {
        return Ok(claimed.abandon().await?);
    }
    parked::park(&mut claimed, message, reason).await?;
    claimed.commit().await?;
    Ok(())
}

/// A connection that has gone silent, or a handler that panics, must not take the consumer with it.
pub(crate) async fn bounded<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match tokio::time::timeout(LONGEST_BATCH, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(_)) => Err(Fault::permanent("the handler panicked; the log has the details")),
        Err(_) => Err(Fault::exhausted(format!("no end within {LONGEST_BATCH:?}"))),
    }
}
