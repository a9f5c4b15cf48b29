//! Events that a coordinator publishes about its sagas. The application chooses their topic.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

/// Implements the type name and version of each event.
macro_rules! named {
    ($($event:ident = $kind:literal;)*) => {
        $(impl $event {
            /// The type name of the event.
            pub const TYPE: &'static str = $kind;
            /// The semantic version of the data.
            pub const DATA_VERSION: &'static str = "1.0.0";
        })*
    };
}

named! {
    SagaCompensating = "saga.compensating.v1";
    SagaStuck = "saga.stuck.v1";
    SagaCancellationRefused = "saga.cancellation_refused.v1";
    SagaCompleted = "saga.completed.v1";
    SagaCompensated = "saga.compensated.v1";
}

/// A step was refused, or the saga was cancelled or took too long. Its completed steps are being undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SagaCompensating {
    /// The saga.
    pub saga_id: Uuid,
    /// The step that was refused, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The reason, as a code.
    pub reason: String,
}

/// A step got no answer to too many requests. The orchestrator keeps asking, less and less often. An operator should
/// look for the cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SagaStuck {
    /// The saga.
    pub saga_id: Uuid,
    /// The step that got no answer.
    pub step: String,
    /// `do` or `undo`.
    pub direction: String,
    /// The participant's last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A customer cancelled too late, so the cancellation was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SagaCancellationRefused {
    /// The saga.
    pub saga_id: Uuid,
    /// `past_pivot`, `already_undone` or `not_foreseen`.
    pub reason: String,
}

/// A saga has ended with all steps done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SagaCompleted {
    /// The saga.
    pub saga_id: Uuid,
    /// The name and version of the definition, for example `place_order@1`.
    pub definition: String,
    /// The start of the saga.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "date-time")))]
    pub started_at: OffsetDateTime,
}

/// A saga has ended with all completed steps undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SagaCompensated {
    /// The saga.
    pub saga_id: Uuid,
    /// The name and version of the definition, for example `place_order@1`.
    pub definition: String,
    /// The start of the saga.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "date-time")))]
    pub started_at: OffsetDateTime,
    /// The reason, as a code.
    pub reason: String,
}
