//! A saga in memory. It is read from its snapshot and log, changed by inputs, and written as log entries and
//! snapshots.

use std::collections::HashSet;
use std::sync::Arc;

use time::OffsetDateTime;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::{NewSaga, SagaInput};
use crate::envelope::{Cause, Direction, Metadata};
use crate::fault::Fault;
use crate::metric;
use crate::outbox::Draft;
use crate::saga::engine::{Decision, Input, Refusal, State, Status};
use crate::saga::events::{
    SagaCancellationRefused, SagaCompensated, SagaCompensating, SagaCompleted, SagaStuck,
};
use crate::saga::registry::{AnyDefinition, OpenSaga, Registry};
use crate::saga::replay::replay;
use crate::saga::store::{Entry, LogRow, SagaRow, Snapshot};
use crate::unit_of_work::UnitOfWork;

/// The topic for events about sagas.
pub(super) type Topic = Arc<str>;

/// Appends an event about a saga.
macro_rules! publish {
    ($uow:expr, $topic:expr, $key:expr, $cause:expr, $event:ident { $($member:tt)* }) => {{
        let event = $event { $($member)* };
        let draft = Draft::untyped(($event::TYPE, $event::DATA_VERSION), $topic.to_string(), &event);
        $uow.publish($key, $cause, draft)?;
    }};
}

/// A saga to which inputs are applied.
pub(super) struct SagaInstance {
    subject: String,
    name: String,
    version: i32,
    definition: Arc<dyn AnyDefinition>,
    state: State,
    memory: Box<dyn OpenSaga>,
    /// The length of the memory's JSON when it was read.
    data_bytes: usize,
    sequence: i32,
    traceparent: Option<String>,
    started_at: OffsetDateTime,
    /// The time at which the timers will wake the saga. It is not later than the next deadline, unless a timer has
    /// just claimed the saga.
    due_at: Option<OffsetDateTime>,
    /// The status in the last snapshot. A saga that has just begun has no snapshot.
    saved: Option<Status>,
    /// Whether the row needs a new wake-up time.
    due_changed: bool,
}

impl SagaInstance {
    /// Loads a saga from its row and its later log entries.
    pub fn load(registry: &Registry, row: SagaRow, newer: &[LogRow]) -> Result<Self, Fault> {
        let definition = Arc::clone(registry.find(&row.definition, row.version)?);
        // No other plan of the same name may decide.
        if row.due_at.is_some() && definition.hash() != row.plan_hash {
            let (saga, name, version) = (row.saga_id, row.definition, row.version);
            return Err(Fault::permanent(format!(
                "the saga {saga} began with another plan of {name}@{version}, whose hash is {}; run the release that has \
                 it, then retry the key",
                row.plan_hash
            )));
        }
        // A gap means that the database lost commits in a failover, while this process continued from its cache.
        if let Some((entry, _)) =
            newer.iter().zip(row.sequence + 1..).find(|(entry, next)| entry.sequence != *next)
        {
            let (saga, entry) = (row.saga_id, entry.sequence);
            return Err(Fault::permanent(format!(
                "the log of the saga {saga} has a gap before entry {entry}"
            )));
        }
        let mut state: State = serde_json::from_str(row.state.0.get())?;
        let saved = Some(state.shown());
        let mut memory = definition.open(row.data.0.get())?;
        replay(definition.shape(), &mut state, newer, |step, reply| memory.on_reply(step, reply).map(drop))?;
        Ok(Self {
            subject: row.subject,
            name: row.definition,
            version: row.version,
            definition,
            state,
            memory,
            data_bytes: row.data.0.get().len(),
            sequence: newer.last().map_or(row.sequence, |entry| entry.sequence),
            traceparent: row.traceparent,
            started_at: row.started_at,
            due_at: row.due_at,
            saved,
            due_changed: false,
        })
    }

    /// Creates a new saga.
    pub fn begin(
        registry: &Registry,
        begin: &NewSaga,
        change: &SagaInput,
        now: OffsetDateTime,
    ) -> Result<Self, Fault> {
        let definition = Arc::clone(registry.find(begin.definition, begin.version)?);
        Ok(Self {
            subject: change.subject.clone(),
            name: begin.definition.to_owned(),
            version: begin.version,
            state: State::new(definition.shape()),
            memory: definition.open(&begin.data)?,
            data_bytes: begin.data.len(),
            definition,
            sequence: 0,
            traceparent: change.cause.traceparent.clone(),
            started_at: now,
            due_at: None,
            saved: None,
            due_changed: false,
        })
    }

    /// Returns about how many bytes of memory the saga takes: those of its data, and those that every saga takes.
    pub fn bytes(&self) -> usize {
        1500 + self.data_bytes
    }

    /// Checks that an answer came from the service that owns the command.
    ///
    /// # Errors
    /// Fails permanently if it came on another topic, or if the plan has no such step. Whoever may write to one
    /// service's topic could otherwise answer for another service.
    pub fn check_sender(&self, change: &SagaInput) -> Result<(), Fault> {
        let (Some(answer), Some((step, direction))) = (&change.answer, change.input.answered()) else {
            return Ok(());
        };
        let index = self.definition.shape().index(step);
        let index = index.ok_or_else(|| Fault::permanent(format!("the plan has no step {step}")))?;
        let owner = self.definition.answers(index, direction);
        if answer.topic == owner {
            return Ok(());
        }
        Err(Fault::permanent(format!(
            "the answer of {step} came on {}, but only {owner} may answer this step; find out who wrote it, and skip it",
            answer.topic
        )))
    }

    /// Returns whether this input would change the cached state.
    pub fn awaits(&self, input: &Input) -> bool {
        let open = |step: &str, direction| {
            self.definition.shape().index(step).is_some_and(|index| self.state.awaits(index, direction))
        };
        match input {
            Input::Started => false,
            Input::Done { .. } | Input::Refused { .. } | Input::Failing { .. } => {
                input.answered().is_some_and(|(step, direction)| open(step, direction))
            }
            Input::Cancel => !self.state.cancelled,
            // Returning `false` forces a fresh read before an operator's retry.
            Input::Retry { .. } => false,
            // The wake-up time is in the row and not in the log, so the row must be read again.
            Input::Due => false,
        }
    }

    /// Returns whether a step is open that is not among these.
    pub fn has_open_beside(&self, answered: &HashSet<(&str, Direction)>) -> bool {
        let steps = self.definition.shape().steps.iter().enumerate();
        let mut open = steps.flat_map(|(index, step)| {
            let ways = [Direction::Do, Direction::Undo].into_iter();
            ways.filter(move |way| self.state.awaits(index, *way)).map(|way| (step.name, way))
        });
        open.any(|step| !answered.contains(&step))
    }

    /// Returns the sequence number of the last log entry.
    pub fn sequence(&self) -> i32 {
        self.sequence
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.state.status, Status::Completed | Status::Compensated)
    }

    /// Applies one input and sends the engine's decisions. Returns the log entry, or `None` if nothing changed.
    pub fn apply(
        &mut self,
        uow: &mut UnitOfWork,
        topic: &Topic,
        change: &SagaInput,
    ) -> Result<Option<Entry>, Fault> {
        let mut cause = change.cause.clone();
        // A deadline has no message and therefore no trace. Its results still belong to the saga's trace.
        cause.traceparent = cause.traceparent.or_else(|| self.traceparent.clone());
        let shape = self.definition.shape();
        let mut kept = None;
        let reply = change.answer.as_ref().and_then(|answer| answer.reply.as_ref());
        if let (Some(reply), Input::Done { step, direction: Direction::Do }) = (reply, &change.input)
            && let Some(index) = shape.index(step)
            && self.state.awaits(index, Direction::Do)
            && self.memory.on_reply(index, reply)?
        {
            kept = Some(reply.clone());
        }
        let before = self.state.clone();
        let decisions = self.state.apply(shape, &change.input, uow.now());
        for decision in &decisions {
            self.carry_out(uow, topic, change.saga_id, &cause, decision)?;
        }
        // Moving the wake-up time with every step would rewrite its index every time. A wake-up may therefore be too
        // early. It is late only by the lease of a timer that died. Each wake-up sets the time anew. The timer has
        // moved it in the row, and a wake-up always reads the row.
        let next = self.state.due_at();
        let late = self.due_at.is_none_or(|due| next.is_some_and(|next| next < due));
        let changed = !decisions.is_empty() || before != self.state;
        let mut moved = false;
        // An input without an effect must not move the wake-up time, because its log entry would look like a second
        // answer.
        if change.input == Input::Due || changed && late {
            moved = self.due_at != next;
            self.due_changed |= moved;
            self.due_at = next;
        }
        // Other replicas with this saga in their cache learn of the new time by the log entry.
        if !changed && !moved {
            self.pass_over(uow, change);
            return Ok(None);
        }
        self.sequence += 1;
        Ok(Some(Entry {
            saga_id: change.saga_id,
            sequence: self.sequence,
            message_id: change.cause.causation_id,
            input: serde_json::to_string(&change.input)?,
            reply: kept,
            decisions: serde_json::to_string(&decisions)?,
        }))
    }

    /// Counts an input without an effect, if it is an answer, and reports one that no repetition can be.
    fn pass_over(&self, uow: &mut UnitOfWork, change: &SagaInput) {
        debug!(saga = %change.saga_id, input = ?change.input, "the input has no effect");
        if change.answer.is_none() {
            return;
        }
        let contradicts = self.state.contradicts(self.definition.shape(), &change.input);
        if contradicts {
            error!(
                saga = %change.saga_id, message_id = ?change.cause.causation_id, answer = ?change.input,
                "a step that has ended is answered in another way; the first answer counts"
            );
        }
        let reason = if contradicts { "contradicts" } else { "answered_before" };
        uow.after_commit(move || metric::MESSAGES_PASSED_OVER.counter(&[reason]).increment(1));
    }

    fn carry_out(
        &self,
        uow: &mut UnitOfWork,
        topic: &Topic,
        saga_id: Uuid,
        cause: &Cause,
        decision: &Decision,
    ) -> Result<(), Fault> {
        let key = self.subject.as_str();
        match decision {
            Decision::Ask { step, direction } => {
                let index = self.definition.shape().index(step);
                let index = index.ok_or_else(|| Fault::permanent(format!("no step {step}")))?;
                let none = Refusal::default();
                let refusal = self.state.refusal.as_ref().unwrap_or(&none);
                let command = self.memory.command(index, *direction, refusal)?;
                let metadata =
                    Metadata { step: Some(step.clone()), direction: Some(*direction), ..Metadata::default() };
                // Participants identify the saga by the correlation id.
                let cause = Cause { correlation_id: saga_id, ..cause.clone() };
                let kind = (command.kind, command.data_version);
                uow.publish(
                    key,
                    &cause,
                    Draft::untyped(kind, command.topic, &command.data).metadata(metadata),
                )?;
            }
            Decision::Compensate { step, reason } => {
                info!(saga = %saga_id, ?step, reason, "the saga is being undone");
                let (step, reason) = (step.clone(), reason.clone());
                publish!(uow, topic, key, cause, SagaCompensating { saga_id, step, reason });
            }
            Decision::Stuck { step, direction } => {
                let index = self.definition.shape().index(step);
                let last_error = index.and_then(|index| self.state.steps[index].last_error.clone());
                warn!(saga = %saga_id, step, ?direction, last_error, "the saga is stuck");
                let (step, direction) = (step.clone(), direction.as_str().to_owned());
                publish!(uow, topic, key, cause, SagaStuck { saga_id, step, direction, last_error });
            }
            Decision::RefuseCancellation { reason } => {
                let reason = reason.as_str().to_owned();
                publish!(uow, topic, key, cause, SagaCancellationRefused { saga_id, reason });
            }
            Decision::Complete => {
                let (definition, started_at) = (self.definition_name(), self.started_at);
                publish!(uow, topic, key, cause, SagaCompleted { saga_id, definition, started_at });
                uow.after_commit(|| metric::SAGAS_COMPLETED.counter(&[]).increment(1));
            }
            Decision::Compensated { reason } => {
                let (definition, started_at) = (self.definition_name(), self.started_at);
                let reason = reason.clone();
                publish!(uow, topic, key, cause, SagaCompensated { saga_id, definition, started_at, reason });
                uow.after_commit(|| metric::SAGAS_COMPENSATED.counter(&[]).increment(1));
            }
        }
        Ok(())
    }

    fn definition_name(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// Returns the new row, if the log alone is not enough. Status and wake-up time are queried by index, so they
    /// must be in the row.
    pub fn snapshot(&mut self, saga_id: Uuid) -> Result<Option<Snapshot>, Fault> {
        let status = self.state.shown();
        if self.saved == Some(status) && !self.due_changed {
            return Ok(None);
        }
        self.saved = Some(status);
        self.due_changed = false;
        if self.has_ended() {
            self.due_at = None;
        }
        Ok(Some(Snapshot {
            saga_id,
            definition: self.name.clone(),
            version: self.version,
            plan_hash: self.definition.hash().to_owned(),
            subject: self.subject.clone(),
            status: status.as_str(),
            reason: self.state.refusal.as_ref().map(|refusal| refusal.code.clone()),
            state: serde_json::to_string(&self.state)?,
            data: self.memory.data()?,
            sequence: self.sequence,
            traceparent: self.traceparent.clone(),
            due_at: self.due_at,
        }))
    }
}
