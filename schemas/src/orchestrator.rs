//! Messages of the orchestrator.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::macros::events;

/// A saga began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SagaStarted {
    pub saga_id: Uuid,
    /// The definition's name and version, `place_order@1`.
    pub definition: String,
}

/// A step was refused, or the customer has cancelled; what was done is being undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SagaCompensating {
    pub saga_id: Uuid,
    /// The step that was refused, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    pub reason: String,
}

/// A step was asked in vain too often. It is asked on, less and less often; somebody should look why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SagaStuck {
    pub saga_id: Uuid,
    pub step: String,
    /// `do` or `undo`.
    pub direction: String,
    /// What the participant last said of why it can't answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A customer wanted a saga undone, and it was too late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SagaCancellationRefused {
    pub saga_id: Uuid,
    /// `past_pivot` or `already_undone`.
    pub reason: String,
}

/// A saga reached its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SagaCompleted {
    pub saga_id: Uuid,
}

/// Everything that a saga did is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SagaCompensated {
    pub saga_id: Uuid,
    pub reason: String,
}

events! {
    SagaStarted = "saga.started.v1", on "orchestrator.events";
    SagaCompensating = "saga.compensating.v1", on "orchestrator.events";
    SagaStuck = "saga.stuck.v1", on "orchestrator.events";
    SagaCancellationRefused = "saga.cancellation_refused.v1", on "orchestrator.events";
    SagaCompleted = "saga.completed.v1", on "orchestrator.events";
    SagaCompensated = "saga.compensated.v1", on "orchestrator.events";
}
