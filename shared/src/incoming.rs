//! A received message on its way to a handler: the record, its envelope if it has one, and the reason if no handler
//! may see it.

use rdkafka::message::{BorrowedMessage, Message as _};
use serde::de::DeserializeOwned;
use tracing::Span;
use uuid::Uuid;

use crate::cloudevents;
use crate::envelope::{Cause, Envelope, MAX_MESSAGE_BYTES, is_usable_key};
use crate::fault::Fault;
use crate::trace::{self, RecordOrigin};

/// The largest part of a record that is kept, in bytes. By default a broker accepts up to 1 MiB. A record is
/// therefore cut only if the broker accepts more, or if the record was compressed.
pub const MAX_KEPT_BYTES: usize = 1024 * 1024;

/// A received message on its way to a handler.
pub struct Incoming {
    /// The topic without the installation's prefix.
    pub topic: String,
    /// The partition of the record.
    pub partition: i32,
    /// The offset of the record in its partition.
    pub offset: i64,
    /// The record's key: the aggregate that the message is about.
    pub key: String,
    /// The record's value. A message of the previous version is already converted to the current version.
    pub body: Vec<u8>,
    /// The W3C trace context of the message.
    pub traceparent: Option<String>,
    /// The parsed value, if it is an envelope. Every message that a handler sees has one.
    pub envelope: Option<Envelope>,
    /// The unconverted value of the record, if the message was converted to the current version.
    pub(crate) original: Option<Vec<u8>>,
    /// The reason why no handler may see the message.
    refused: Option<String>,
    span: Span,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Incoming({}/{}/{} {})", self.topic, self.partition, self.offset, self.kind())
    }
}

impl Incoming {
    pub(crate) fn new(record: &BorrowedMessage<'_>, topic: String) -> Self {
        let (partition, offset) = (record.partition(), record.offset());
        // A record without a usable key gets a key of its own, so that it can be parked without blocking others.
        let key = record.key().and_then(|key| std::str::from_utf8(key).ok()).filter(|key| is_usable_key(key));
        let key = key.map_or_else(|| own_key(&topic, partition, offset), str::to_owned);
        let traceparent = cloudevents::header(record.headers(), cloudevents::TRACEPARENT).map(str::to_owned);
        Self::read((topic, partition, offset), key, record.payload().unwrap_or_default(), traceparent)
    }

    /// Reads the message of a record, from Kafka or from the table of parked messages.
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
                let position_of = RecordOrigin {
                    topic: &incoming.topic,
                    partition: incoming.partition,
                    offset: incoming.offset,
                    key: &incoming.key,
                };
                incoming.span = trace::process_span(position_of, incoming.traceparent.as_deref(), &envelope);
                incoming.envelope = Some(envelope);
            }
            Err(error) => incoming.refuse(format!("the value is not an envelope: {}", position_of(&error))),
        }
        incoming
    }

    /// Marks the message so that no handler sees it and it is parked. The first reason is kept.
    pub(crate) fn refuse(&mut self, reason: String) {
        self.refused.get_or_insert(reason);
    }

    /// Returns the reason why no handler may see this message, if there is one.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Returns whether the record had no usable key and got a key made from its offset.
    pub(crate) fn is_keyless(&self) -> bool {
        self.key == own_key(&self.topic, self.partition, self.offset)
    }

    /// Returns the value as it was received, before any conversion.
    pub(crate) fn original(&self) -> &[u8] {
        self.original.as_deref().unwrap_or(&self.body)
    }

    /// Returns the type of the message, or an empty text if it could not be read.
    pub fn kind(&self) -> &str {
        self.envelope.as_ref().map_or("", |envelope| &envelope.kind)
    }

    /// Returns whether the message is an event that answers a saga step.
    pub(crate) fn answers_step(&self) -> bool {
        self.envelope.as_ref().is_some_and(|envelope| envelope.metadata.outcome.is_some())
    }

    pub(crate) fn id(&self) -> Option<Uuid> {
        self.envelope.as_ref().map(|envelope| envelope.id)
    }

    /// Returns the envelope.
    ///
    /// # Errors
    /// Fails if the message could not be read. That never happens in a handler, because such a message is parked.
    pub fn envelope(&self) -> Result<&Envelope, Fault> {
        self.envelope.as_ref().ok_or_else(|| Fault::permanent(self.refused.clone().unwrap_or_default()))
    }

    /// Parses the data of the message.
    ///
    /// # Errors
    /// Fails permanently if the data does not match the type. Repeating cannot help, so the message is parked.
    pub fn data<D: DeserializeOwned>(&self) -> Result<D, Fault> {
        let envelope = self.envelope()?;
        serde_json::from_str(envelope.data.get()).map_err(|error| {
            Fault::permanent(format!("the data is not a {}: {}", envelope.kind, position_of(&error)))
        })
    }

    /// Returns the values that messages caused by this one inherit.
    ///
    /// # Errors
    /// Fails as [`Incoming::envelope`] does.
    pub fn cause(&self) -> Result<Cause, Fault> {
        let envelope = self.envelope()?;
        Ok(Cause {
            correlation_id: envelope.correlation_id,
            causation_id: Some(envelope.id),
            traceparent: trace::traceparent_of(&self.span).or_else(|| self.traceparent.clone()),
        })
    }
}

fn own_key(topic: &str, partition: i32, offset: i64) -> String {
    format!("{topic}/{partition}/{offset}")
}

/// Returns where JSON is wrong. The parser's own message would quote the data, which may be personal.
pub(crate) fn position_of(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Data => "a member is missing or of another type",
        _ => "it is not JSON",
    };
    format!("{what} at line {}, column {}", error.line(), error.column())
}
