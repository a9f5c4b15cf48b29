//! A message as it arrived, on its way to a handler: the record, its envelope where it is one, and why no handler may see it
//! where none may.

use rdkafka::message::{BorrowedMessage, Message as _};
use serde::de::DeserializeOwned;
use tracing::Span;
use uuid::Uuid;

use crate::cloudevents;
use crate::envelope::{Cause, Envelope, MAX_MESSAGE_BYTES};
use crate::fault::Fault;
use crate::trace::{self, RecordPlace};

/// The largest part of a record that is kept, in bytes. A broker takes up to 1 MiB unless told otherwise, so a record is cut
/// only on one that takes more, or where it came compressed.
pub const MAX_KEPT_BYTES: usize = 1024 * 1024;

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
    pub(crate) original: Option<Vec<u8>>,
    /// Why no handler gets to see it.
    refused: Option<String>,
    span: Span,
}

/// The longest key, in bytes; what it is about goes into indexes and addresses.
const MAX_KEY_BYTES: usize = 512;

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Incoming({}/{}/{} {})", self.topic, self.partition, self.offset, self.kind())
    }
}

impl Incoming {
    pub(crate) fn new(record: &BorrowedMessage<'_>, topic: String) -> Self {
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
        let kept = &value[..value.len().min(MAX_KEPT_BYTES)];
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
                let place = RecordPlace {
                    topic: &incoming.topic,
                    partition: incoming.partition,
                    offset: incoming.offset,
                    key: &incoming.key,
                };
                incoming.span = trace::process_span(place, incoming.traceparent.as_deref(), &envelope);
                incoming.envelope = Some(envelope);
            }
            Err(error) => incoming.refuse(format!("the value is not an envelope: {}", place(&error))),
        }
        incoming
    }

    /// Keeps the message from the handlers; it will be parked. The first reason stays.
    pub(crate) fn refuse(&mut self, reason: String) {
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
    pub fn data<D: DeserializeOwned>(&self) -> Result<D, Fault> {
        let envelope = self.envelope()?;
        serde_json::from_str(envelope.data.get()).map_err(|error| {
            Fault::permanent(format!("the data is not a {}: {}", envelope.kind, place(&error)))
        })
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
            traceparent: trace::traceparent_of(&self.span).or_else(|| self.traceparent.clone()),
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
