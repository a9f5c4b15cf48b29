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

/// A step was refused; what was done is being undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SagaCompensating {
    pub saga_id: Uuid,
    pub step: String,
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
    SagaCompleted = "saga.completed.v1", on "orchestrator.events";
    SagaCompensated = "saga.compensated.v1", on "orchestrator.events";
}
