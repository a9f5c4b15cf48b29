//! Calls of external dependencies (card provider, carrier, mail server), never made inside a transaction. A first transaction
//! claims the command and writes the intent. Then the dependency is called under the step's own idempotency key. A second
//! transaction writes the outcome and the reply. A slow provider holds no transaction and no partition. After a crash in
//! between, the open intents are taken up again and the provider is called under the same key.
//!
//! A step that gets no answer stays open and is called again, less and less often, in the end twice a minute. Its saga
//! is told with the outcome [`crate::saga::participant::ReplyOutcome::Failing`] at the first, second, fourth, eighth ...
//! attempt, so that an outage costs few messages; the saga concludes nothing from it. All calls with the same
//! [`ExternalCall::TARGET`] share a circuit breaker ([`crate::circuit_breaker`]): while it is open no call is made, and
//! steps are put off until one may be tried. That counts as none of their attempts.

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
use crate::step_outcome::{Open, Record, Status};
use crate::unit_of_work::UnitOfWork;

/// A call that failed for a local reason: nothing is concluded about the dependency.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LocalError(pub &'static str);

/// Carries out commands of type `C` by calling an external dependency.
pub trait ExternalCall<C: Command>: Send + Sync + 'static {
    /// The name of the dependency. Calls of the same one share its circuit breaker.
    const TARGET: &'static str;
    /// What the dependency answered, be it yes or no.
    type Outcome: Send + Sync + 'static;

    /// How long one call may take. A task belongs to the process that took it for twice as long, so that no two
    /// processes call at once; if they did, the idempotency key would still make it one effect.
    const TIMEOUT: Duration = Duration::from_secs(5);

    /// The largest number of calls that a process has under way at once; more wait in the database. It must not be more than
    /// the dependency takes at once, or waiting for it would count as its silence.
    const MAX_CONCURRENCY: usize = 512;

    /// Whether the dependency does once what it is asked twice under one key. Where it does not, a service that stops
    /// waits for the calls under way, lest it ask for the same again after its next start.
    const IDEMPOTENT: bool = true;

    /// Records in the database what is about to be asked, in the transaction that claims the commands.
    ///
    /// # Errors
    /// A technical failure, which rolls the batch back.
    fn record_intent(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<C>],
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Calls the dependency, outside any transaction.
    ///
    /// # Errors
    /// If there is no answer. Nothing is concluded from that: the same is asked again later under the same key. The
    /// error's text goes to the log and to the saga, so it must name nobody. An error of the database, or
    /// [`LocalError`], says nothing about the dependency; any other counts against it
    /// ([`crate::circuit_breaker`]).
    fn call(
        &self,
        idempotency_key: &str,
        task: &Task<C>,
    ) -> impl Future<Output = Result<Self::Outcome, Box<dyn Error + Send + Sync>>> + Send;

    /// Records what the dependency answered, and returns the commands' answers in the order of `answered`.
    ///
    /// # Errors
    /// A technical failure, which rolls the transaction back; it is repeated.
    fn record_outcome(
        &self,
        uow: &mut UnitOfWork,
        answered: &[(Task<C>, Self::Outcome)],
    ) -> impl Future<Output = Result<Vec<Answer<C>>, Fault>> + Send;
}

impl MessageRouter {
    /// Carries out the commands of type `C` by the external calls of `handler`. The calls run beside the consumer.
    ///
    /// # Panics
    /// If the type has a handler already.
    #[must_use]
    pub fn external<C: Command>(mut self, handler: &Arc<impl ExternalCall<C>>) -> Self {
        let intake = self.add_caller(handler);
        self.on(&[(C::TYPE, C::TOPIC)], Arc::new(intake))
    }

    /// Brings external calls to their end that were begun under another configuration. It takes no new commands.
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

    /// The dependency with this name, whose circuit breaker all its callers share.
    fn dependency(&mut self, name: &'static str) -> Arc<Dependency> {
        Arc::clone(self.dependencies.entry(name).or_insert_with(|| Arc::new(Dependency::new(name))))
    }
}

/// Claims commands and writes the intent.
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
            // Whoever asks again, a saga or an operator behind it, does not wait for the step's next turn.
            let again = std::mem::take(&mut uow.steps.asked_again);
            if !again.is_empty() {
                store::hurry(uow.db(), &again, caller::rest(&self.dependency).as_secs_f64()).await?;
            }
            if tasks.is_empty() {
                return Ok(());
            }
            self.handler.record_intent(uow, &tasks).await?;
            // Seldom it is less by the time of the commit, if an operator replays what was parked.
            let room = self.hand_over.capacity();
            let instance = uow.instance().to_owned();
            for intent in intents::<C, E>(&tasks, messages, room, &instance) {
                uow.steps.add(intent);
            }
            let hand_over = self.hand_over.clone();
            uow.after_commit(move || {
                for task in tasks.into_iter().take(room) {
                    // There is no room any more, or the caller has stopped: it is taken up when its claim has run out.
                    if hand_over.try_send(task).is_err() {
                        break;
                    }
                }
            });
            Ok(())
        })
    }
}

/// For how many seconds a task belongs to the process that took it.
fn claim<C: Command, E: ExternalCall<C>>() -> f64 {
    (E::TIMEOUT * 2).as_secs_f64()
}

/// The rows from which the tasks can be taken up again. The first `room` of them are handed to this process's caller;
/// the others anybody may take up at once.
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
        let open = Open {
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
