//! Calls to external dependencies such as a card provider, a carrier or a mail server. A call is never made inside a
//! transaction.
//!
//! A first transaction claims the command and records the intent. Then the dependency is called with the step's
//! idempotency key. A second transaction records the outcome and publishes the reply. A slow dependency therefore
//! holds no transaction and no partition. After a crash in between, the open intents are resumed and the dependency
//! is called with the same key.
//!
//! A step without an answer stays open. It is called again, at intervals that grow to 30 seconds. Its saga
//! gets the outcome [`crate::saga::participant::ReplyOutcome::Failing`] at the first, second, fourth, eighth ...
//! attempt, so that an outage costs few messages. The saga concludes nothing from it.
//!
//! All calls with the same [`ExternalCall::TARGET`] share a circuit breaker ([`crate::circuit_breaker`]). While it is
//! open no call is made, and steps are deferred until a trial is possible. A deferral does not count as an attempt.

mod caller;
mod store;

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use uuid::Uuid;

use self::caller::Caller;
use crate::circuit_breaker::Dependency;
use crate::envelope::Command;
use crate::fault::Fault;
use crate::incoming::Incoming;
use crate::router::{BatchHandler, MessageRouter};
use crate::saga::participant::{self, Answer, Task};
use crate::step_outcome::{OpenCall, Record, Status};
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
        let (hand_over, tasks) = mpsc::channel(E::MAX_CONCURRENCY);
        let intake = Intake { handler: Arc::clone(handler), dependency: Arc::clone(&dependency), hand_over };
        let handler = Arc::clone(handler);
        let worker = move |db, stop| -> BoxFuture<'static, ()> {
            Box::pin(Caller { db, handler, dependency, tasks }.run(stop))
        };
        self.add_worker(C::TYPE, Box::new(worker));
        intake
    }

    /// Returns the dependency with this name, whose circuit breaker all its callers share.
    fn dependency(&mut self, name: &'static str) -> Arc<Dependency> {
        Arc::clone(self.dependencies.entry(name).or_insert_with(|| Arc::new(Dependency::new(name))))
    }
}

/// Claims commands and records the intent.
struct Intake<C, E> {
    handler: Arc<E>,
    dependency: Arc<Dependency>,
    hand_over: mpsc::Sender<Task<C>>,
}

impl<C: Command, E: ExternalCall<C>> BatchHandler for Intake<C, E> {
    fn takes_steps(&self) -> bool {
        true
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
                    // If the channel is full or the caller has stopped, the task is resumed when its claim expires.
                    if hand_over.try_send(task).is_err() {
                        break;
                    }
                }
            });
            Ok(())
        })
    }
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
