//! Calls before the transaction. A dependency that answers at once then costs one transaction and not two.
//!
//! The steps are looked up without a transaction. A step that is on record, or barred, or whose key is parked, is not
//! called. Then the dependency is called under the step's key. The transaction claims the step and records the intent and
//! the outcome together. What has not been answered by then gets its intent recorded, and the running call is handed over
//! to the [`Caller`](super::caller::Caller).
//!
//! After a crash in between, the command is delivered again and the dependency is called again under the same key. Each
//! repetition of a failed transaction calls again too. The same happens if the process freezes and another replica takes
//! the partition over. The transaction then finds the other's record, and the answer is dropped: the dependency has acted
//! once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::error;
use uuid::Uuid;

use super::caller::{Ended, call};
use super::{ExternalCall, Intake, store};
use crate::db::Db;
use crate::envelope::Command;
use crate::fault::Fault;
use crate::inbox;
use crate::incoming::Incoming;
use crate::parked;
use crate::retention;
use crate::saga::participant::{self, Task};
use crate::step_outcome::{Status, StepKey};
use crate::unit_of_work::UnitOfWork;

/// The longest time without calls ahead, in batches, after the dependency was too slow.
const MAX_PAUSE: u32 = 64;

/// Decides whether calling ahead is worth the wait. After a batch in which a call was too slow, the next batches are not
/// called ahead: one batch at first, then twice as many each time.
#[derive(Debug, Default)]
pub(super) struct Patience {
    pause: AtomicU32,
    left: AtomicU32,
}

impl Patience {
    /// Returns whether the next batch is called ahead.
    fn is_left(&self) -> bool {
        let take = |left: u32| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err()
    }

    fn learn(&self, all_answered: bool) {
        let pause = match all_answered {
            true => 0,
            false => (self.pause.load(Ordering::Relaxed) * 2).clamp(1, MAX_PAUSE),
        };
        self.pause.store(pause, Ordering::Relaxed);
        self.left.store(pause, Ordering::Relaxed);
    }
}

/// The calls of a batch that were made ahead.
pub(super) struct AheadCalls<C, O> {
    pub answered: Vec<(Task<C>, O)>,
    /// Calls without an answer, or with an error.
    pub running: HashMap<StepKey, JoinHandle<Ended<C, O>>>,
}

impl<C, O> Default for AheadCalls<C, O> {
    fn default() -> Self {
        Self { answered: Vec::new(), running: HashMap::new() }
    }
}

impl<C: Command, E: ExternalCall<C>> Intake<C, E> {
    /// Calls the dependency for those of the commands that need a call, and waits for the answers for a short time.
    pub(super) async fn call_ahead(
        &self,
        db: &Db,
        messages: &[&Incoming],
    ) -> Result<Option<AheadCalls<C, E::Outcome>>, Fault> {
        let Some(patience) = E::CALL_FIRST.filter(|_| self.patience.is_left()) else { return Ok(None) };
        // A command that cannot be read is reported in the transaction. One under another key than its subject cannot be
        // answered there, because the lock of the subject is not held.
        let task = |message: &&Incoming| {
            participant::task(message).ok().filter(|task: &Task<C>| task.subject == message.key)
        };
        let tasks: Vec<Task<C>> = messages.iter().filter_map(task).collect();
        let tasks = callable(db, tasks).await?;
        let mut running = HashMap::with_capacity(tasks.len());
        for task in tasks {
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else { break };
            let Ok(permit) = self.dependency.begin() else { break };
            let step = task.step.clone();
            let call = call(Arc::clone(&self.handler), task, permit, Some(slot));
            #[expect(
                clippy::disallowed_methods,
                reason = "the batch awaits the call or hands it over; otherwise it ends by its timeout, without an effect here"
            )]
            running.insert(step, tokio::spawn(call));
        }
        if running.is_empty() {
            return Ok(None);
        }
        let until = tokio::time::Instant::now() + patience;
        let mut calls = AheadCalls { answered: Vec::with_capacity(running.len()), running: HashMap::new() };
        let mut in_time = true;
        for (step, mut call) in running {
            match tokio::time::timeout_at(until, &mut call).await {
                Ok(Ok(Ended::Answered(task, outcome))) => calls.answered.push((task, outcome)),
                // The caller records the error, and makes the next attempt.
                Ok(Ok(ended @ (Ended::Unanswered(_) | Ended::Withdrawn(_)))) => {
                    #[expect(clippy::disallowed_methods, reason = "it has already ended")]
                    calls.running.insert(step, tokio::spawn(std::future::ready(ended)));
                }
                // It panicked. The caller calls the step again.
                Ok(Err(panic)) => error!(command = C::TYPE, %panic, "a call ended with a panic"),
                Err(_) => {
                    in_time = false;
                    calls.running.insert(step, call);
                }
            }
        }
        self.patience.learn(in_time);
        Ok(Some(calls))
    }

    /// Keeps the calls of those steps that are to be carried out. The others are dropped, answered or not: somebody else
    /// has recorded the step in the meantime.
    pub(super) async fn take_wanted(
        &self,
        uow: &mut UnitOfWork,
        mut calls: AheadCalls<C, E::Outcome>,
        tasks: &[Task<C>],
        messages: &[&Incoming],
    ) -> Result<AheadCalls<C, E::Outcome>, Fault> {
        let wanted: HashSet<&StepKey> = tasks.iter().map(|task| &task.step).collect();
        let called = calls.answered.iter().map(|(task, _)| &task.step).chain(calls.running.keys());
        let is_barred = |step: &&StepKey| {
            let record = uow.steps.get(step).filter(|_| !wanted.contains(step));
            record.is_some_and(|record| record.status == Status::Tombstoned)
        };
        let barred: Vec<StepKey> = called.filter(is_barred).cloned().collect();
        for step in &barred {
            report_barred::<C>(uow, step, messages).await?;
        }
        calls.answered.retain(|(task, _)| wanted.contains(&task.step));
        calls.running.retain(|step, _| wanted.contains(step));
        Ok(calls)
    }
}

/// Returns the tasks that may be called: those without a record, of keys that are not parked, in messages that no
/// operator has resolved.
async fn callable<C: Command>(db: &Db, tasks: Vec<Task<C>>) -> Result<Vec<Task<C>>, Fault> {
    if tasks.is_empty() {
        return Ok(tasks);
    }
    let mut steps: Vec<StepKey> = tasks.iter().map(|task| task.step.clone()).collect();
    steps.extend(tasks.iter().filter_map(|task| task.step.action()));
    let keys: Vec<&str> = tasks.iter().map(|task| task.subject.as_str()).collect();
    let messages: Vec<Uuid> = tasks.iter().filter_map(|task| task.cause.causation_id).collect();
    let known = store::look_up(&mut *db.read().await?, &keys, &messages, &steps).await?;
    let retention = db.retention().steps;
    let may_be_called = |task: &Task<C>| {
        let to_do = match task.step.action() {
            // What was not done is not undone by a call.
            Some(action) => known.outcomes.get(&action) == Some(&Status::Done),
            None => !retention::stale(task.step.saga_id, known.now, retention),
        };
        let is_resolved = task.cause.causation_id.is_some_and(|id| known.resolved.contains(&id));
        to_do
            && !is_resolved
            && !known.outcomes.contains_key(&task.step)
            && !known.parked.contains(&task.subject)
    };
    Ok(tasks.into_iter().filter(may_be_called).collect())
}

/// Parks a command whose step was barred while the dependency was being called. That takes an undo without an action,
/// handled elsewhere in the same moment, so it should never happen. If it does, the dependency may have acted on a step
/// that the saga takes for undone, and only a person can find out.
async fn report_barred<C: Command>(
    uow: &mut UnitOfWork,
    step: &StepKey,
    messages: &[&Incoming],
) -> Result<(), Fault> {
    let is_of_step = |message: &&&Incoming| StepKey::of(message).is_ok_and(|of| of == *step);
    let Some(message) = messages.iter().find(is_of_step) else { return Ok(()) };
    error!(key = message.key, step = step.step, "a dependency was called for a step that was barred");
    if let Some(id) = message.id()
        && !inbox::claim_one(uow.db(), id).await?
    {
        return Ok(());
    }
    let reason = format!(
        "{} was called for the step {} while another process barred the step; find out under the key {} what it did, undo \
         it there, and skip this message",
        C::TYPE,
        step.step,
        step.idempotency_key()
    );
    parked::park(uow, message, &reason).await?;
    Ok(())
}

/// The wait for answers before a transaction, for dependencies that mostly answer at once.
pub const AT_ONCE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_dependency_is_called_ahead_less_and_less_often_until_it_is_fast_again() {
        let patience = Patience::default();
        assert!(patience.is_left());
        for pause in [1, 2, 4, 8, 16, 32, 64, 64] {
            patience.learn(false);
            let waited = (0..).take_while(|_| !patience.is_left()).count();
            assert_eq!(waited, pause);
        }
        patience.learn(true);
        assert!(patience.is_left() && patience.is_left());
        patience.learn(false);
        assert!(!patience.is_left() && patience.is_left(), "it begins anew");
    }
}
