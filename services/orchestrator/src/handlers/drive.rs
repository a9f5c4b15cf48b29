//! Applies inputs to sagas, a whole batch at once.

use std::collections::HashMap;

use schemas::orchestrator::{SagaCompensated, SagaCompensating, SagaCompleted, SagaStarted};
use serde_json::value::RawValue;
use shared::envelope::{Cause, Direction, Metadata};
use shared::fault::Fault;
use shared::inbox::Claimed;
use shared::outbox::Attributes;
use tracing::{debug, info};
use uuid::Uuid;

use crate::engine::{Decision, Input, Refusal, Shape, State, Status};
use crate::sagas::{OpenSaga, Registry};
use crate::store::{self, Entry, SagaRow, Saved};

/// An input for a saga.
pub(super) struct Change {
    pub saga_id: Uuid,
    pub subject: String,
    pub cause: Cause,
    /// How the saga begins, if it does.
    pub begin: Option<Begin>,
    pub input: Input,
    /// What the step replied.
    pub reply: Option<Box<RawValue>>,
}

/// The definition and the first memory of a new saga.
pub(super) struct Begin {
    pub definition: &'static str,
    pub version: i32,
    pub data: String,
}

/// A saga while inputs are applied.
struct Live<'r> {
    subject: String,
    definition: String,
    version: i32,
    hash: String,
    shape: &'r Shape,
    state: State,
    memory: Box<dyn OpenSaga>,
    sequence: i32,
    traceparent: Option<String>,
    due_at: Option<time::OffsetDateTime>,
    new: bool,
    changed: bool,
    /// Whether the memory is another one.
    kept: bool,
}

/// Applies the changes in their order and writes what comes of them.
pub(super) async fn drive(
    claimed: &mut Claimed,
    registry: &Registry,
    changes: Vec<Change>,
) -> Result<(), Fault> {
    let ids: Vec<Uuid> = changes.iter().map(|change| change.saga_id).collect();
    let mut live = HashMap::with_capacity(ids.len());
    for row in store::lock_sagas(claimed.db(), &ids).await? {
        live.insert(row.saga_id, Live::load(registry, row)?);
    }
    let mut log = Vec::with_capacity(changes.len());
    for change in changes {
        if let Some(begin) = &change.begin
            && !live.contains_key(&change.saga_id)
        {
            let saga = Live::begin(registry, begin, &change)?;
            let definition = format!("{}@{}", saga.definition, saga.version);
            let started = SagaStarted { saga_id: change.saga_id, definition };
            claimed.publish(&change.subject, &change.cause, &started)?;
            live.insert(change.saga_id, saga);
        }
        let Some(saga) = live.get_mut(&change.saga_id) else {
            return Err(Fault::permanent(format!("there is no saga {} for this reply", change.saga_id)));
        };
        if let Some(entry) = saga.apply(claimed, &change)? {
            log.push(entry);
        }
    }
    let saved = live.iter().filter(|(_, saga)| saga.changed);
    let mut saved =
        saved.map(|(id, saga)| Ok((saga.new, saga.saved(*id)?))).collect::<Result<Vec<_>, Fault>>()?;
    saved.sort_by_key(|(_, saga)| saga.saga_id);
    let new: Vec<&Saved> = saved.iter().filter(|(new, _)| *new).map(|(_, saga)| saga).collect();
    let old: Vec<&Saved> = saved.iter().filter(|(new, _)| !*new).map(|(_, saga)| saga).collect();
    store::insert_sagas(claimed.db(), &new).await?;
    store::move_sagas(claimed.db(), &old, &log).await?;
    Ok(())
}

impl<'r> Live<'r> {
    fn load(registry: &'r Registry, row: SagaRow) -> Result<Self, Fault> {
        let definition = registry.find(&row.definition, row.version)?;
        Ok(Self {
            subject: row.subject,
            definition: row.definition,
            version: row.version,
            hash: row.plan_hash,
            shape: definition.shape(),
            state: serde_json::from_str(row.state.0.get())?,
            memory: definition.open(row.data.0.get())?,
            sequence: row.sequence,
            traceparent: row.traceparent,
            due_at: row.due_at,
            new: false,
            changed: false,
            kept: false,
        })
    }

    fn begin(registry: &'r Registry, begin: &Begin, change: &Change) -> Result<Self, Fault> {
        let definition = registry.find(begin.definition, begin.version)?;
        Ok(Self {
            subject: change.subject.clone(),
            definition: begin.definition.to_owned(),
            version: begin.version,
            hash: definition.hash().to_owned(),
            shape: definition.shape(),
            state: State::new(definition.shape()),
            memory: definition.open(&begin.data)?,
            sequence: 0,
            traceparent: change.cause.traceparent.clone(),
            due_at: None,
            new: true,
            changed: false,
            kept: false,
        })
    }

    /// Applies one input and sends what the engine decides. The log entry, unless nothing changed.
    fn apply(&mut self, claimed: &mut Claimed, change: &Change) -> Result<Option<Entry>, Fault> {
        let mut cause = change.cause.clone();
        // A deadline has no message behind it; what it causes still belongs to the saga's trace.
        cause.traceparent = cause.traceparent.or_else(|| self.traceparent.clone());
        if let (Some(reply), Input::Done { step, direction: Direction::Do }) = (&change.reply, &change.input)
            && let Some(index) = self.shape.index(step)
            && self.state.awaits(index, Direction::Do)
        {
            self.memory.keep(index, reply)?;
            self.kept = true;
        }
        let before = self.state.clone();
        let decisions = self.state.apply(self.shape, &change.input, claimed.now());
        if decisions.is_empty() && before == self.state && self.due_at == self.state.due_at() && !self.new {
            debug!(saga = %change.saga_id, input = ?change.input, "the input changes nothing");
            return Ok(None);
        }
        self.changed = true;
        for decision in &decisions {
            self.carry_out(claimed, change.saga_id, &cause, decision)?;
        }
        // Moving the alarm with each step would rewrite its index each time. It may ring early, never late; when it
        // rings, it is set anew.
        let next = self.state.due_at();
        let keep = self.due_at.is_some_and(|due| next.is_some_and(|next| due <= next));
        if !keep || change.input == Input::Due {
            self.due_at = next;
        }
        if decisions.is_empty() && before == self.state {
            return Ok(None);
        }
        self.sequence += 1;
        Ok(Some(Entry {
            saga_id: change.saga_id,
            sequence: self.sequence,
            message_id: change.cause.causation_id,
            input: serde_json::to_string(&change.input)?,
            decisions: serde_json::to_string(&decisions)?,
        }))
    }

    fn carry_out(
        &self,
        claimed: &mut Claimed,
        saga_id: Uuid,
        cause: &Cause,
        decision: &Decision,
    ) -> Result<(), Fault> {
        let key = self.subject.as_str();
        match decision {
            Decision::Ask { step, direction } => {
                let index =
                    self.shape.index(step).ok_or_else(|| Fault::permanent(format!("no step {step}")))?;
                let none = Refusal::default();
                let refusal = self.state.refusal.as_ref().unwrap_or(&none);
                let command = self.memory.command(index, *direction, refusal)?;
                let metadata =
                    Metadata { step: Some(step.clone()), direction: Some(*direction), ..Metadata::default() };
                // A participant knows the saga by the correlation id.
                let cause = Cause { correlation_id: saga_id, ..cause.clone() };
                claimed.send_erased(key, &cause, &command, Attributes { sequence: None, metadata })?;
            }
            Decision::Compensate { step, reason } => {
                info!(saga = %saga_id, step, reason, "the saga is undone");
                let (step, reason) = (step.clone(), reason.clone());
                claimed.publish(key, cause, &SagaCompensating { saga_id, step, reason })?;
            }
            Decision::Complete => {
                claimed.publish(key, cause, &SagaCompleted { saga_id })?;
                claimed.after_commit(|| metrics::counter!("amends_sagas_completed_total").increment(1));
            }
            Decision::Compensated { reason } => {
                claimed.publish(key, cause, &SagaCompensated { saga_id, reason: reason.clone() })?;
                claimed.after_commit(|| metrics::counter!("amends_sagas_compensated_total").increment(1));
            }
        }
        Ok(())
    }

    fn saved(&self, saga_id: Uuid) -> Result<Saved, Fault> {
        let ended = matches!(self.state.status, Status::Completed | Status::Compensated);
        Ok(Saved {
            saga_id,
            definition: self.definition.clone(),
            version: self.version,
            plan_hash: self.hash.clone(),
            subject: self.subject.clone(),
            status: self.state.status.as_str(),
            reason: self.state.refusal.as_ref().map(|refusal| refusal.code.clone()),
            state: serde_json::to_string(&self.state)?,
            data: if self.new || self.kept { Some(self.memory.data()?) } else { None },
            sequence: self.sequence,
            traceparent: self.traceparent.clone(),
            due_at: if ended { None } else { self.due_at },
        })
    }
}
