//! The first half of an external call: claims commands, and records the intent, or the outcome if it is already known.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use super::ahead::{AheadCalls, Patience};
use super::caller::{self, HandedOver};
use super::{ExternalCall, claim, store};
use crate::circuit_breaker::Dependency;
use crate::db::Db;
use crate::envelope::Command;
use crate::fault::Fault;
use crate::incoming::Incoming;
use crate::router::{BatchHandler, Prepared};
use crate::saga::participant::{self, Task};
use crate::step_outcome::{OpenCall, Record, Status, StepKey};
use crate::unit_of_work::UnitOfWork;

/// Claims commands and records the intent, or the outcome if it is already known.
pub(super) struct Intake<C: Command, E: ExternalCall<C>> {
    pub handler: Arc<E>,
    pub dependency: Arc<Dependency>,
    pub hand_over: mpsc::Sender<HandedOver<C, E::Outcome>>,
    pub slots: Arc<Semaphore>,
    pub patience: Patience,
}

impl<C: Command, E: ExternalCall<C>> BatchHandler for Intake<C, E> {
    /// The record of its step shows a repeated command.
    fn is_idempotent(&self) -> bool {
        true
    }

    fn takes_steps(&self) -> bool {
        true
    }

    fn prepares(&self) -> bool {
        E::CALL_FIRST.is_some()
    }

    fn prepare<'a>(
        &'a self,
        db: &'a Db,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<Option<Prepared>, Fault>> {
        Box::pin(async move {
            let calls = self.call_ahead(db, messages).await?;
            Ok(calls.map(|calls| Box::new(calls) as Prepared))
        })
    }

    fn handle<'a>(
        &'a self,
        uow: &'a mut UnitOfWork,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let tasks = participant::unanswered::<C>(uow, messages).await?;
            // A repeated request of a saga or an operator must not wait for the next scheduled attempt.
            let asked_again = std::mem::take(&mut uow.steps.asked_again);
            if !asked_again.is_empty() {
                store::expedite(uow.db(), &asked_again, caller::min_wait(&self.dependency).as_secs_f64())
                    .await?;
            }
            let calls = uow.take_prepared::<AheadCalls<C, E::Outcome>>().unwrap_or_default();
            let AheadCalls { mut answered, mut running } =
                self.take_wanted(uow, calls, &tasks, messages).await?;
            let (at_once, tasks) = split(tasks, &mut answered);
            if !at_once.is_empty() {
                let answers = self.handler.record_at_once(uow, &at_once, &answered).await?;
                for (task, answer) in at_once.iter().zip(answers) {
                    let record = participant::answered(uow, task, answer)?;
                    uow.steps.add(record);
                }
            }
            if tasks.is_empty() {
                return Ok(());
            }
            self.handler.record_intent(uow, &tasks).await?;
            // By the time of the commit the capacity may be smaller, but only if an operator replays parked messages.
            let room = self.hand_over.capacity();
            let instance = uow.instance().to_owned();
            for intent in intents::<C, E>(&tasks, messages, room, &instance) {
                uow.steps.add(intent);
            }
            let hand_over = self.hand_over.clone();
            uow.after_commit(move || {
                for task in tasks.into_iter().take(room) {
                    let next = match running.remove(&task.step) {
                        Some(call) => HandedOver::Running(call),
                        None => HandedOver::Open(task),
                    };
                    // If the channel is full or the caller has stopped, the task is resumed when its claim expires.
                    if hand_over.try_send(next).is_err() {
                        break;
                    }
                }
            });
            Ok(())
        })
    }
}

/// Splits the tasks into those that are answered and the others, and puts the answers into the order of their tasks.
fn split<C, O>(tasks: Vec<Task<C>>, answered: &mut [(Task<C>, O)]) -> (Vec<Task<C>>, Vec<Task<C>>) {
    let places: HashMap<StepKey, usize> =
        tasks.iter().enumerate().map(|(place, task)| (task.step.clone(), place)).collect();
    answered.sort_by_key(|(task, _)| places.get(&task.step).copied());
    let known: HashSet<&StepKey> = answered.iter().map(|(task, _)| &task.step).collect();
    tasks.into_iter().partition(|task| known.contains(&task.step))
}

/// Returns the rows from which the tasks can be resumed. The first `room` tasks go to this process's caller. Any
/// replica may resume the others at once.
fn intents<C: Command, E: ExternalCall<C>>(
    tasks: &[Task<C>],
    messages: &[&Incoming],
    room: usize,
    instance: &str,
) -> Vec<Record> {
    let body = |message: &&Incoming| Some((message.envelope.as_ref()?.id, message.body.clone()));
    let mut bodies: HashMap<Uuid, Vec<u8>> = messages.iter().filter_map(body).collect();
    let intent = |(index, task): (usize, &Task<C>)| {
        let command = task.cause.causation_id.and_then(|id| bodies.remove(&id)).unwrap_or_default();
        let is_ours = index < room;
        let open = OpenCall {
            command,
            traceparent: task.cause.traceparent.clone(),
            claimed_by: is_ours.then(|| instance.to_owned()),
            claimed_for_seconds: if is_ours { claim::<C, E>() } else { 0.0 },
        };
        let record = participant::record(task, task.step.clone(), Status::Pending, None);
        Record { open: Some(open), ..record }
    };
    tasks.iter().enumerate().map(intent).collect()
}
