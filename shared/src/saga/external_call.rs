//! Calls to external dependencies such as a card provider, a carrier or a mail server. A call is never made inside a
//! transaction.
//!
//! A first transaction claims the command and records the intent. Then the dependency is called with the step's
//! idempotency key. A second transaction records the outcome and publishes the answer. A slow dependency therefore
//! holds no transaction and no partition. After a crash in between, the open intents are resumed and the dependency
//! is called with the same key.
//!
//! A dependency that answers at once needs one transaction only: it is called first, and what it has answered within
//! [`ExternalCall::CALL_FIRST`] is recorded together with the intent.
//!
//! A step without an answer stays open. It is called again, at intervals that grow to 30 seconds. Its saga
//! gets the outcome [`crate::envelope::Outcome::Failing`] at the first, second, fourth, eighth ...
//! attempt, so that an outage costs few messages. The saga concludes nothing from it.
//!
//! All calls with the same [`ExternalCall::TARGET`] share a circuit breaker ([`crate::circuit_breaker`]). While it is
//! open no call is made, and steps are deferred until a trial is possible. A deferral does not count as an attempt.

mod ahead;
mod caller;
mod store;

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

pub use self::ahead::AT_ONCE;
use self::ahead::{AheadCalls, Patience};
use self::caller::{Caller, HandedOver};
use crate::circuit_breaker::Dependency;
use crate::db::Db;
use crate::envelope::Command;
use crate::fault::Fault;
use crate::incoming::Incoming;
use crate::router::{BatchHandler, MessageRouter, Prepared};
use crate::saga::participant::{self, Answer, Task};
use crate::step_outcome::{OpenCall, Record, Status, StepKey};
use crate::unit_of_work::UnitOfWork;

/// A call that failed for a local reason. It says nothing about the dependency.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LocalError(pub &'static str);

/// Carries out commands of type `C` by calling an external dependency.
pub trait ExternalCall<C: Command>: Send + Sync + 'static {
    /// The name of the dependency. All calls with this name share its circuit breaker.
    const TARGET: &'static str;
    /// The dependency's answer, positive or negative.
    type Outcome: Send + Sync + 'static;

    /// The timeout of one call. The claim of a process on a task lasts twice as long, so that no two processes call
    /// at once. If they did, the idempotency key would still make it one effect.
    const TIMEOUT: Duration = Duration::from_secs(5);

    /// The largest number of concurrent calls of one process; further tasks wait in the database. It must not exceed
    /// the concurrency of the dependency, because waiting there would count as silence.
    const MAX_CONCURRENCY: usize = 512;

    /// Whether the dependency carries out repeated calls with one key only once. If it does not, a stopping service
    /// waits for the running calls. Otherwise it would repeat them after its next start.
    const IDEMPOTENT: bool = true;

    /// How long a batch waits for answers before its transaction; `None` if the intent is recorded before the call. With
    /// a value, for example [`AT_ONCE`], a command may be called several times under its key, and before its intent is
    /// recorded. So the dependency must be idempotent, and [`ExternalCall::call`] must not depend on what
    /// [`ExternalCall::record_intent`] writes or refuses. Only the first command of a key in a batch is called so.
    const CALL_FIRST: Option<Duration> = None;

    /// Records the intent in the transaction that claims the commands.
    ///
    /// # Errors
    /// Fails on a technical failure, which rolls the batch back.
    fn record_intent(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<C>],
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Calls the dependency, outside any transaction.
    ///
    /// # Errors
    /// Fails if no answer comes. Nothing is concluded from that: the call is repeated later with the same key.
    ///
    /// The text of the error goes to the log and to the saga, so it must not contain personal data. A database error
    /// or [`LocalError`] says nothing about the dependency. Any other error counts against it; see
    /// [`crate::circuit_breaker`].
    fn call(
        &self,
        idempotency_key: &str,
        task: &Task<C>,
    ) -> impl Future<Output = Result<Self::Outcome, Box<dyn Error + Send + Sync>>> + Send;

    /// Records the dependency's answers, and returns the answers to the commands in the order of `answered`.
    ///
    /// # Errors
    /// Fails on a technical failure, which rolls the transaction back. It is repeated.
    fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<C>, Self::Outcome)],
    ) -> impl Future<Output = Result<Vec<Answer<C>>, Fault>> + Send;

    /// Records intent and outcome together, for commands that were called first. `tasks` and `answered` are the same
    /// commands, in the same order. Implement it to write with fewer statements.
    ///
    /// # Errors
    /// Fails as the two others do.
    fn record_at_once(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<C>],
        answered: &[(Task<C>, Self::Outcome)],
    ) -> impl Future<Output = Result<Vec<Answer<C>>, Fault>> + Send {
        async move {
            self.record_intent(uow, tasks).await?;
            uow.flush().await?;
            self.record_outcome(uow, answered).await
        }
    }
}

impl MessageRouter {
    /// Registers `handler` for the commands of type `C`, which it carries out by external calls. The calls run beside
    /// the consumer.
    ///
    /// # Panics
    /// Panics if the type already has a handler.
    #[must_use]
    pub fn external<C: Command>(mut self, handler: &Arc<impl ExternalCall<C>>) -> Self {
        let intake = self.add_caller(handler);
        self.on(&[(C::TYPE, C::TOPIC)], Arc::new(intake))
    }

    /// Finishes external calls that began under another configuration. It accepts no new commands.
    #[must_use]
    pub fn finish_external<C: Command>(mut self, handler: &Arc<impl ExternalCall<C>>) -> Self {
        drop(self.add_caller(handler));
        self
    }

    fn add_caller<C: Command, E: ExternalCall<C>>(&mut self, handler: &Arc<E>) -> Intake<C, E> {
        let dependency = self.dependency(E::TARGET);
        const {
            assert!(
                E::IDEMPOTENT || E::CALL_FIRST.is_none(),
                "a dependency that is not idempotent cannot be called first"
            );
            // The wait is a part of the time that a batch may take.
            let patience = match E::CALL_FIRST {
                Some(patience) => patience.as_secs(),
                None => 0,
            };
            assert!(patience <= 10, "a batch must not wait for answers for more than ten seconds");
        }
        let (hand_over, tasks) = mpsc::channel(E::MAX_CONCURRENCY);
        let slots = Arc::new(Semaphore::new(E::MAX_CONCURRENCY));
        let intake = Intake {
            handler: Arc::clone(handler),
            dependency: Arc::clone(&dependency),
            hand_over,
            slots: Arc::clone(&slots),
            patience: Patience::default(),
        };
        let handler = Arc::clone(handler);
        let worker = move |db, stop| -> BoxFuture<'static, ()> {
            Box::pin(Caller { db, handler, dependency, tasks, slots }.run(stop))
        };
        self.add_worker(C::TYPE, Box::new(worker));
        intake
    }

    /// Returns the dependency with this name, whose circuit breaker all its callers share.
    fn dependency(&mut self, name: &'static str) -> Arc<Dependency> {
        Arc::clone(self.dependencies.entry(name).or_insert_with(|| Arc::new(Dependency::new(name))))
    }
}

/// Claims commands and records the intent, or the outcome if it is already known.
struct Intake<C: Command, E: ExternalCall<C>> {
    handler: Arc<E>,
    dependency: Arc<Dependency>,
    hand_over: mpsc::Sender<HandedOver<C, E::Outcome>>,
    slots: Arc<Semaphore>,
    patience: Patience,
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

/// Returns for how many seconds a process claims a task.
fn claim<C: Command, E: ExternalCall<C>>() -> f64 {
    (E::TIMEOUT * 2).as_secs_f64()
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
