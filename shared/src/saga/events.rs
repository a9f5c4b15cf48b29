//! What a coordinator publishes about its sagas. The topic is the coordinator's own, and is given to it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Gives events their names on the wire.
macro_rules! named {
    ($($event:ident = $kind:literal;)*) => {
        $(impl $event {
            /// Its name on the wire.
            pub const TYPE: &'static str = $kind;
            /// The version of its data, by semantic versioning.
            pub const DATA_VERSION: &'static str = "1.0.0";
        })*
    };
}

named! {
    SagaStarted = "saga.started.v1";
    SagaCompensating = "saga.compensating.v1";
    SagaStuck = "saga.stuck.v1";
    SagaCancellationRefused = "saga.cancellation_refused.v1";
    SagaCompleted = "saga.completed.v1";
    SagaCompensated = "saga.compensated.v1";
}

/// A saga began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SagaStarted {
    /// The saga.
    pub saga_id: Uuid,
    /// The definition's name and version, `place_order@1`.
    pub definition: String,
}

/// A step was refused, or the customer has cancelled; what was done is being undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SagaCompensating {
    /// The saga.
    pub saga_id: Uuid,
    /// The step that was refused, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Why, as a code.
    pub reason: String,
}

/// A step got no answer to too many requests. It is requested again, less and less often; an operator should look why.
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
    /// What the participant last gave as the reason why it can't answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A customer wanted a saga undone, and it was too late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SagaCancellationRefused {
    /// The saga.
    pub saga_id: Uuid,
    /// `past_pivot`, `already_undone` or `not_foreseen`.
    pub reason: String,
}

/// A saga reached its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SagaCompleted {
    /// The saga.
    pub saga_id: Uuid,
}

/// Everything that a saga did is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SagaCompensated {
    /// The saga.
    pub saga_id: Uuid,
    /// Why, as a code.
    pub reason: String,
}
