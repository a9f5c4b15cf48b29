//! Calls to the outside (card provider, carrier, mail), never made inside a transaction: a first transaction claims
//! the command and writes the intent, then the outside is called under the step's own idempotency key, then a second
//! transaction writes the outcome and the reply. A slow provider holds no transaction and no partition. After a crash
//! in between, the open intents are taken up again and the provider is asked under the same key.
//!
//! A step that gets no answer stays open and is called again, less and less often, in the end twice a minute. Its saga
//! is told of that, with the outcome [`crate::steps::ReplyOutcome::Failing`], at the first, second, fourth, eighth ...
//! time, so that an outage costs few messages; nothing is concluded from it. All effects with the same
//! [`Effect::OUTSIDE`] share a circuit breaker ([`crate::breaker`]): while it is open no call is made, steps are put off
//! until it may be tried, and that counts as none of their calls.

mod caller;

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use uuid::Uuid;

pub(crate) use self::caller::Caller;
use crate::breaker::Outside;
use crate::consumer::{BatchHandler, BoxFuture, Incoming, Table};
use crate::db::Db;
use crate::envelope::Command;
use crate::fault::Fault;
use crate::inbox::Claimed;
use crate::steps::{self, Answer, Record, Task};

/// A call that failed for a reason of this house: nothing is concluded of how the outside stands.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InHouse(pub &'static str);

/// Carries out commands of type `C` with the help of the outside.
pub trait Effect<C: Command>: Send + Sync + 'static {
    /// The name of the outside. Effects that call the same one share its circuit breaker.
    const OUTSIDE: &'static str;
    /// What the outside said, be it yes or no.
    type Outcome: Send + Sync + 'static;

    /// How long the outside may take. A task belongs to the process that took it for twice as long, so that no two
    /// processes ask at once; if they did, the idempotency key would still make it one effect.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Most calls that a process has under way at once; what is beyond waits in the database. No more than the outside
    /// takes at once, or waiting for it would count as its silence.
    const MOST_AT_ONCE: usize = 512;

    /// Whether the outside does once what it is asked twice under one key. Where it does not, a service that stops
    /// waits for the calls under way, lest it ask for the same again after its next start.
    const DOES_IT_ONCE: bool = true;

    /// Notes in the database what is about to be asked. In the transaction that claims the commands.
    ///
    /// # Errors
    /// A technical failure, which rolls the batch back.
    fn intend(
        &self,
        claimed: &mut Claimed,
        tasks: &[Task<C>],
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Asks the outside, outside any transaction.
    ///
    /// # Errors
    /// If there is no answer. Nothing is concluded from that: the same is asked again later under the same key. The
    /// error's text goes to the log and to the saga, so it must name nobody. An error of the
    /// database, or [`InHouse`], says nothing of the outside; any other counts against it ([`crate::breaker`]).
    fn call(
        &self,
        idempotency_key: &str,
        task: &Task<C>,
    ) -> impl Future<Output = Result<Self::Outcome, Box<dyn Error + Send + Sync>>> + Send;

    /// Writes down what the outside said, and answers in the order of `settled`.
    ///
    /// # Errors
    /// A technical failure, which rolls the transaction back; it is repeated.
    fn settle(
        &self,
        claimed: &mut Claimed,
        settled: &[(Task<C>, Self::Outcome)],
    ) -> impl Future<Output = Result<Vec<Answer<C>>, Fault>> + Send;
}

/// The two halves of an effect: the one that takes commands, and the one that calls.
pub(crate) fn effect<C: Command, E: Effect<C>>(
    db: Db,
    instance: String,
    outside: Arc<Outside>,
    effect: Arc<E>,
) -> (Intake<C, E>, Caller<C, E>) {
    let (hand_over, tasks) = mpsc::channel(E::MOST_AT_ONCE);
    let intake = Intake {
        effect: Arc::clone(&effect),
        instance: instance.clone(),
        outside: Arc::clone(&outside),
        hand_over,
    };
    (intake, Caller { db, effect, instance, outside, tasks })
}

/// The name of the outside that an effect calls.
pub(crate) fn outside<C: Command, E: Effect<C>>(_: &E) -> &'static str {
    E::OUTSIDE
}

/// Claims commands and writes the intent.
pub(crate) struct Intake<C, E> {
    effect: Arc<E>,
    instance: String,
    outside: Arc<Outside>,
    hand_over: mpsc::Sender<Task<C>>,
}

impl<C: Command, E: Effect<C>> BatchHandler for Intake<C, E> {
    fn takes_steps(&self) -> bool {
        true
    }

    fn handle<'a>(
        &'a self,
        claimed: &'a mut Claimed,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let tasks = steps::unanswered::<C>(claimed, messages).await?;
            // Whoever asks again, a saga or an operator behind it, does not wait for the step's next turn.
            let again = std::mem::take(&mut claimed.steps.asked_again);
            if !again.is_empty() {
                steps::hurry(claimed.db(), &again, caller::rest(&self.outside).as_secs_f64()).await?;
            }
            if tasks.is_empty() {
                return Ok(());
            }
            self.effect.intend(claimed, &tasks).await?;
            // Seldom it is less by the time of the commit, if an operator replays what was parked.
            let room = self.hand_over.capacity();
            for intent in self.intents(&tasks, messages, room) {
                claimed.steps.add(intent);
            }
            let hand_over = self.hand_over.clone();
            claimed.after_commit(move || {
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
fn claim<C: Command, E: Effect<C>>() -> f64 {
    (E::PATIENCE * 2).as_secs_f64()
}

impl<C: Command, E: Effect<C>> Intake<C, E> {
    /// The rows from which the tasks can be taken up again. The first `room` of them are handed to this process's caller;
    /// the others anybody may take up at once.
    fn intents(&self, tasks: &[Task<C>], messages: &[&Incoming], room: usize) -> Vec<Record> {
        let body = |message: &&Incoming| Some((message.envelope.as_ref()?.id, message.body.clone()));
        let mut bodies: HashMap<Uuid, Vec<u8>> = messages.iter().filter_map(body).collect();
        let intent = |(index, task): (usize, &Task<C>)| {
            let command = task.cause.causation_id.and_then(|id| bodies.remove(&id)).unwrap_or_default();
            let is_ours = index < room;
            let open = steps::Open {
                command,
                traceparent: task.cause.traceparent.clone(),
                claimed_by: is_ours.then(|| self.instance.clone()),
                claimed_for_seconds: if is_ours { claim::<C, E>() } else { 0.0 },
            };
            Record { open: Some(open), ..Record::open(task) }
        };
        tasks.iter().enumerate().map(intent).collect()
    }
}

impl Table {
    pub(crate) fn effect<C: Command, E: Effect<C>>(self, intake: Intake<C, E>) -> Self {
        self.on(&[(C::TYPE, C::TOPIC)], Arc::new(intake))
    }
}
