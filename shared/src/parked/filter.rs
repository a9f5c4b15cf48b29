//! The selection of parked messages.

use std::time::Duration;

use serde_json::{Value, json};

/// Selects parked messages. Every member that is set must match.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The type of the message.
    pub kind: Option<String>,
    /// A part of the reason for which the message was parked.
    pub cause: Option<String>,
    /// The topic of the record.
    pub topic: Option<String>,
    /// The shortest time since the message was parked.
    pub older_than: Option<Duration>,
}

impl Filter {
    /// Returns whether the filter selects every parked message.
    pub fn is_empty(&self) -> bool {
        self.kind.is_none() && self.cause.is_none() && self.topic.is_none() && self.older_than.is_none()
    }

    pub(super) fn as_json(&self) -> Value {
        let seconds = self.older_than.map(|age| age.as_secs());
        json!({"type": self.kind, "cause": self.cause, "topic": self.topic, "olderThanSeconds": seconds})
    }
}
