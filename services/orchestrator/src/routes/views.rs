//! Sagas as the routes show them.

use serde::Serialize;
use serde_json::value::RawValue;
use shared::envelope::Direction;
use shared::saga::registry::Registry;
use shared::saga::replay::replay;
use shared::saga::store::{LogRow, SagaRow};
use shared::service::problem::Problem;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use shared::saga::engine::{State as SagaState, StepState, StepStatus, Stuck};

/// A saga.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SagaView {
    id: Uuid,
    order_id: String,
    /// Name and version, for example `place_order@1`.
    definition: String,
    /// `running`, `compensating`, `completed`, `compensated` or `stuck`.
    status: String,
    /// Why the saga was undone, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    /// When the saga acts next if no message comes before.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    next_deadline: Option<OffsetDateTime>,
    /// The step at which the saga is stuck, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    stuck: Option<StuckView>,
    steps: Vec<StepView>,
}

/// The step at which a saga is stuck.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StuckView {
    step: String,
    /// `do` or `undo`.
    direction: &'static str,
    /// What is wrong, in a sentence.
    reason: String,
    /// The last error that the participant replied.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// What an operator can safely do.
    next_action: String,
}

/// A step of a saga.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StepView {
    name: String,
    /// Steps of one group run side by side.
    group: usize,
    /// `waiting`, `asked`, `unknown` (asked again, because no answer came in time), `done`, `refused`, `undoing` or `undone`.
    status: &'static str,
    /// The number of attempts in the present direction.
    attempts: u32,
    /// The last error that the participant replied.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    asked_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    ended_at: Option<OffsetDateTime>,
}

/// A saga with its log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SagaWithLog {
    #[serde(flatten)]
    pub saga: SagaView,
    /// Every input that changed the saga, with the decisions that followed.
    pub log: Vec<LogView>,
}

/// An entry of a saga's log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogView {
    sequence: i32,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    /// The message that brought the input.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<Uuid>,
    #[schema(value_type = Object)]
    input: Box<RawValue>,
    /// The step's reply, if the saga keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    reply: Option<Box<RawValue>>,
    #[schema(value_type = Vec<Object>)]
    decisions: Box<RawValue>,
}

/// Returns the view of a saga. `log` may have entries of other sagas too.
pub(super) fn view(registry: &Registry, row: SagaRow, log: &[LogRow]) -> Result<SagaView, Problem> {
    let beyond = |entry: &&LogRow| entry.saga_id == row.saga_id && entry.sequence > row.sequence;
    let beyond: Vec<&LogRow> = log.iter().filter(beyond).collect();
    let updated_at = beyond.last().map_or(row.updated_at, |entry| entry.at);
    let mut state: SagaState = serde_json::from_str(row.state.0.get())?;
    // A saga that has ended may be older than all definitions that are kept. Its row is enough then.
    let definition = registry.find(&row.definition, row.version).ok();
    if let Some(definition) = definition {
        replay(definition.shape(), &mut state, beyond, |_, _| Ok(()))?;
    }
    let names = definition.map(|found| found.shape().steps.clone()).unwrap_or_default();
    let step = |(index, step): (usize, shared::saga::engine::StepState)| StepView {
        name: names.get(index).map_or_else(|| format!("step {index}"), |shape| shape.name.to_owned()),
        group: names.get(index).map_or(index, |shape| shape.group),
        status: shown(&step),
        attempts: step.attempts,
        last_error: step.last_error,
        asked_at: step.asked_at,
        ended_at: step.ended_at,
    };
    let stuck = state.stuck.as_ref().map(|stuck| {
        let at = names.iter().position(|shape| shape.name == stuck.step);
        stuck_view(stuck, at.and_then(|index| state.steps.get(index)), row.saga_id)
    });
    let status = state.shown().as_str().to_owned();
    Ok(SagaView {
        id: row.saga_id,
        order_id: row.subject,
        definition: format!("{}@{}", row.definition, row.version),
        status,
        reason: state.refusal.map(|refusal| refusal.code),
        started_at: row.started_at,
        updated_at,
        next_deadline: row.due_at,
        stuck,
        steps: state.steps.into_iter().enumerate().map(step).collect(),
    })
}

fn shown(step: &StepState) -> &'static str {
    match step.status {
        StepStatus::Waiting => "waiting",
        StepStatus::Asked if step.attempts > 1 => "unknown",
        StepStatus::Asked => "asked",
        StepStatus::Done => "done",
        StepStatus::Refused => "refused",
        StepStatus::Undoing => "undoing",
        StepStatus::Undone => "undone",
    }
}

fn stuck_view(stuck: &Stuck, step: Option<&StepState>, saga: Uuid) -> StuckView {
    let Stuck { step: name, direction } = stuck;
    let attempts = step.map_or(0, |step| step.attempts);
    let what = match direction {
        Direction::Do => name.clone(),
        Direction::Undo => format!("the undo of {name}"),
    };
    StuckView {
        step: name.clone(),
        direction: direction.as_str(),
        reason: format!(
            "{what} was asked {attempts} times without an answer; the orchestrator keeps asking, less and less often"
        ),
        last_error: step.and_then(|step| step.last_error.clone()),
        next_action: format!(
            "restore the participant, then have it asked at once: POST /sagas/{saga}/retry?sagaId=true; if its provider \
             never answers, find out what it did, and state it: amends saga resolve {saga} --saga-id --step {name}{} \
             --outcome done|refused",
            if *direction == Direction::Undo { " --undo" } else { "" }
        ),
    }
}

impl From<LogRow> for LogView {
    fn from(row: LogRow) -> Self {
        Self {
            sequence: row.sequence,
            at: row.at,
            message_id: row.message_id,
            input: row.input.0,
            reply: row.reply.map(|reply| reply.0),
            decisions: row.decisions.0,
        }
    }
}
