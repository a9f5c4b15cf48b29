//! A message before it is appended to the outbox.

use std::borrow::Cow;

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::OutboxRow;
use crate::db::Db;
use crate::envelope::{
    Cause, Envelope, MAX_KEY_BYTES, MAX_MESSAGE_BYTES, Message, Metadata, is_usable_key, new_id,
};
use crate::fault::{Class, Classified};

/// The reason why a message could not be appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The message has more than [`MAX_MESSAGE_BYTES`].
    #[error(
        "a {kind} about {key} has {bytes} bytes, more than the {MAX_MESSAGE_BYTES} that a message may have"
    )]
    TooLarge {
        /// The type of the message.
        kind: &'static str,
        /// The aggregate that the message is about.
        key: String,
        /// The size of the message in bytes of JSON.
        bytes: usize,
    },
    /// No consumer could use the key: it is empty, `.` or `..`, contains a NUL character, or has more than
    /// [`MAX_KEY_BYTES`].
    #[error(
        "a {kind} has an unusable key of {bytes} bytes; a key has 1 to {MAX_KEY_BYTES} bytes without a NUL character, \
         and is neither `.` nor `..`"
    )]
    Key {
        /// The type of the message.
        kind: &'static str,
        /// The size of the key in bytes.
        bytes: usize,
    },
    /// The transaction does not hold the key's lock, so the order of the key's messages could not be kept.
    #[error("a {kind} about {key} was appended without holding the key's lock")]
    NotLocked {
        /// The type of the message.
        kind: &'static str,
        /// The aggregate whose lock is missing.
        key: String,
    },
    /// The data cannot be represented as JSON.
    #[error("a {kind} can't be written as JSON")]
    Json {
        /// The type of the message.
        kind: &'static str,
        /// The error of the serialiser.
        #[source]
        source: serde_json::Error,
    },
}

impl Classified for AppendError {
    fn class(&self) -> Class {
        match self {
            Self::TooLarge { .. } | Self::Key { .. } | Self::NotLocked { .. } | Self::Json { .. } => {
                Class::Permanent
            }
        }
    }
}

/// A message to append: its data, and facts about it beside the data. `&message` converts into a draft.
///
/// ```
/// # use shared::envelope::Message;
/// # use shared::outbox::Draft;
/// # fn with<PriceChanged: Message>(event: &PriceChanged) {
/// let draft = Draft::from(event).version(7);
/// # }
/// ```
#[derive(Debug)]
pub struct Draft<'m, D: ?Sized> {
    kind: &'static str,
    data_version: &'static str,
    topic: Cow<'static, str>,
    data: &'m D,
    id: Option<Uuid>,
    sequence: Option<i64>,
    metadata: Metadata,
}

impl<'m, M: Message> From<&'m M> for Draft<'m, M> {
    fn from(message: &'m M) -> Self {
        Self::untyped((M::TYPE, M::DATA_VERSION), M::TOPIC, message)
    }
}

impl<'m, D: Serialize + ?Sized> Draft<'m, D> {
    /// Creates a draft whose type (name and data version) and topic are known only at run time.
    pub fn untyped(
        (kind, data_version): (&'static str, &'static str),
        topic: impl Into<Cow<'static, str>>,
        data: &'m D,
    ) -> Self {
        let (topic, metadata) = (topic.into(), Metadata::default());
        Self { kind, data_version, topic, data, id: None, sequence: None, metadata }
    }

    /// Adds the version of the aggregate after the change.
    #[must_use]
    pub fn version(self, version: i64) -> Self {
        Self { sequence: Some(version), ..self }
    }

    /// Sets the id of the message, which must be new. Otherwise it is drawn when the message is appended.
    #[must_use]
    pub fn id(self, id: Uuid) -> Self {
        Self { id: Some(id), ..self }
    }

    /// Adds metadata: the saga step of the message, or the user who caused it.
    #[must_use]
    pub fn metadata(self, metadata: Metadata) -> Self {
        Self { metadata, ..self }
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    /// Returns the new id of the message, and its row.
    pub(crate) fn encode(
        self,
        db: &Db,
        key: &str,
        timestamp: OffsetDateTime,
        cause: &Cause,
    ) -> Result<(Uuid, OutboxRow), AppendError> {
        let (id, kind) = (self.id.unwrap_or_else(new_id), self.kind);
        if !is_usable_key(key) {
            return Err(AppendError::Key { kind, bytes: key.len() });
        }
        let envelope = Envelope {
            id,
            kind: Cow::Borrowed(kind),
            source: Cow::Borrowed(db.source()),
            subject: key.to_owned(),
            data_version: Cow::Borrowed(self.data_version),
            timestamp,
            correlation_id: cause.correlation_id,
            causation_id: cause.causation_id,
            sequence: self.sequence,
            data: self.data,
            metadata: self.metadata,
        };
        let body = serde_json::to_vec(&envelope).map_err(|source| AppendError::Json { kind, source })?;
        if body.len() > MAX_MESSAGE_BYTES {
            return Err(AppendError::TooLarge { kind, key: key.to_owned(), bytes: body.len() });
        }
        let row = OutboxRow {
            shard: db.shard(key),
            topic: self.topic,
            key: key.to_owned(),
            traceparent: cause.traceparent.clone(),
            body,
        };
        Ok((id, row))
    }
}
