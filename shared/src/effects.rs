//! Calls to the outside (card provider, carrier, mail), never made inside a transaction: a first transaction claims
//! the command and writes the intent, then the outside is called under the step's own idempotency key, then a second
//! transaction writes the outcome and the reply. A slow provider holds no transaction and no partition. After a crash
//! in between, the open intents are taken up again and the provider is asked under the same key.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use uuid::Uuid;

use crate::cloudevents;
use crate::consumer::{BatchHandler, BoxFuture, Incoming, Table};
use crate::db::Db;
use crate::envelope::{Cause, Command, Envelope};
use crate::fault::{Class, Fault};
use crate::inbox::Claimed;
use crate::service::jittered;
use crate::steps::{self, Answer, Record, StepKey, Task};

/// The wait before the second call; it doubles from call to call, up to 30 s.
const CALL_AGAIN: Duration = Duration::from_millis(500);
/// How often open intents are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Most calls under way at once. What is beyond waits in the database.
const CONCURRENT: usize = 512;
/// Most outcomes written in one transaction.
const BATCH: usize = 256;

/// Carries out commands of type `C` with the help of the outside.
pub trait Effect<C: Command>: Send + Sync + 'static {
    /// What the outside said, be it yes or no.
    type Outcome: Send + Sync + 'static;

    /// How long the outside may take. A task belongs to the process that took it for twice as long, so that no two
    /// processes ask at once; if they did, the idempotency key would still make it one effect.
    const PATIENCE: Duration = Duration::from_secs(5);

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
    /// If there is no answer. Nothing is concluded from that: the same is asked again later under the same key.
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
    effect: Arc<E>,
) -> (Intake<C, E>, Caller<C, E>) {
    let (hand_over, tasks) = mpsc::channel(CONCURRENT);
    let intake = Intake { effect: Arc::clone(&effect), instance: instance.clone(), hand_over };
    (intake, Caller { db, effect, instance, tasks })
}

/// Claims commands and writes the intent.
pub(crate) struct Intake<C, E> {
    effect: Arc<E>,
    instance: String,
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
            if tasks.is_empty() {
                return Ok(());
            }
            self.effect.intend(claimed, &tasks).await?;
            for intent in intents(&tasks, messages, &self.instance, claim::<C, E>()) {
                claimed.steps.add(intent);
            }
            let hand_over = self.hand_over.clone();
            claimed.after_commit(move || {
                for task in tasks {
                    // Where there are too many at once, the rest is found in the database when its claim has run out.
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

/// The rows from which the tasks can be taken up again.
fn intents<C: Command>(
    tasks: &[Task<C>],
    messages: &[&Incoming],
    instance: &str,
    claimed_for_seconds: f64,
) -> Vec<Record> {
    let body = |message: &&Incoming| Some((message.envelope.as_ref()?.id, message.body.clone()));
    let mut bodies: HashMap<Uuid, Vec<u8>> = messages.iter().filter_map(body).collect();
    let intent = |task: &Task<C>| {
        let command = task.cause.causation_id.and_then(|id| bodies.remove(&id)).unwrap_or_default();
        let open = steps::Open {
            command,
            traceparent: task.cause.traceparent.clone(),
            claimed_by: instance.to_owned(),
            claimed_for_seconds,
        };
        Record { open: Some(open), ..Record::open(task) }
    };
    tasks.iter().map(intent).collect()
}

/// Calls the outside and writes down what it said.
pub(crate) struct Caller<C, E> {
    db: Db,
    effect: Arc<E>,
    instance: String,
    tasks: mpsc::Receiver<Task<C>>,
}

impl<C: Command, E: Effect<C>> Caller<C, E> {
    /// Runs until `stop`. What is under way then is taken up after the next start, or waited for where the outside would
    /// do it twice.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        // Tasks of their own: calls go on while outcomes are written down.
        let mut calls = JoinSet::new();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut restarted = true;
        loop {
            let mut answered = Vec::new();
            tokio::select! {
                () = stop.cancelled() => {
                    if !E::DOES_IT_ONCE {
                        self.finish(calls).await;
                    }
                    return;
                }
                Some(task) = self.tasks.recv(), if calls.len() < CONCURRENT => drop(calls.spawn(self.call(task))),
                Some(ended) = calls.join_next(), if !calls.is_empty() => answered.extend(ended),
                _ = look.tick() => match self.take_up(restarted, CONCURRENT - calls.len().min(CONCURRENT)).await {
                    Ok(tasks) => {
                        restarted = false;
                        for task in tasks {
                            calls.spawn(self.call(task));
                        }
                    }
                    Err(fault) => warn!(%fault, "open calls could not be looked up"),
                },
            }
            // What is ready now is called, and written down, together.
            while calls.len() < CONCURRENT
                && let Ok(task) = self.tasks.try_recv()
            {
                calls.spawn(self.call(task));
            }
            ready(&mut calls, &mut answered);
            if !answered.is_empty() && !self.write_down(answered, &stop).await {
                return;
            }
        }
    }

    /// Waits for the calls under way and writes down what they say. The service's grace for stopping ends it.
    async fn finish(&self, mut calls: JoinSet<Ended<C, E::Outcome>>) {
        while let Some(ended) = calls.join_next().await {
            let mut answered: Vec<_> = ended.into_iter().collect();
            ready(&mut calls, &mut answered);
            self.write_down(answered, &CancellationToken::new()).await;
        }
    }

    fn call(&self, task: Task<C>) -> impl Future<Output = Ended<C, E::Outcome>> + Send + use<C, E> {
        let effect = Arc::clone(&self.effect);
        async move {
            let key = task.step.idempotency_key();
            match tokio::time::timeout(E::PATIENCE, effect.call(&key, &task)).await {
                Ok(Ok(outcome)) => Ended::Answered(task, outcome),
                Ok(Err(error)) => Ended::Unanswered(task, error.to_string()),
                Err(_) => Ended::Unanswered(task, format!("no answer within {:?}", E::PATIENCE)),
            }
        }
    }

    async fn take_up(&self, restarted: bool, limit: usize) -> Result<Vec<Task<C>>, Fault> {
        let mut claimed = self.db.write(&[]).await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let open =
            steps::claim_open(claimed.db(), C::TYPE, &self.instance, claim::<C, E>(), restarted, limit)
                .await?;
        claimed.commit().await?;
        let mut tasks = Vec::with_capacity(open.len());
        for row in open {
            debug!(saga = %row.saga_id, step = row.step, "an open call is taken up again");
            match task(&row) {
                Ok(task) => tasks.push(task),
                Err(_) => error!(saga = %row.saga_id, step = row.step, "an open call can't be read any more"),
            }
        }
        Ok(tasks)
    }

    /// Whether it was written down before a stop.
    async fn write_down(&self, ended: Vec<Ended<C, E::Outcome>>, stop: &CancellationToken) -> bool {
        let (mut settled, mut later) = (Vec::new(), Vec::new());
        for one in ended {
            match one {
                Ended::Answered(task, outcome) => settled.push((task, outcome)),
                Ended::Unanswered(task, why) => {
                    metrics::counter!("amends_effects_unanswered_total", "command" => C::TYPE).increment(1);
                    warn!(
                        order = task.subject,
                        step = task.step.step,
                        why,
                        "the outside did not answer; it is asked again"
                    );
                    later.push(task.step);
                }
            }
        }
        let mut backoff = Duration::from_millis(50);
        while !stop.is_cancelled() {
            let fault = match self.write(&settled, &later).await {
                Ok(()) => return true,
                Err(fault) => fault,
            };
            warn!(%fault, command = C::TYPE, "outcomes could not be written down");
            if fault.class() == Class::Permanent {
                if settled.is_empty() {
                    // Nothing is left to try; the steps stay open until their claims have run out.
                    return true;
                }
                self.one_by_one(std::mem::take(&mut settled), &mut later).await;
                continue;
            }
            tokio::time::sleep(jittered(backoff)).await;
            backoff = (backoff * 2).min(Duration::from_secs(2));
        }
        false
    }

    /// One of them spoils it for all, so each is written on its own. What can't be written is asked for again later;
    /// an operator has to look why.
    async fn one_by_one(&self, settled: Vec<(Task<C>, E::Outcome)>, later: &mut Vec<StepKey>) {
        for one in settled {
            let written = match self.is_open(&one.0).await {
                Ok(true) => self.write(std::slice::from_ref(&one), &[]).await,
                // Another process asked too, and was quicker; what it wrote is the answer.
                Ok(false) => Ok(()),
                Err(fault) => Err(fault),
            };
            if let Err(fault) = written {
                metrics::counter!("amends_effects_failed_total", "command" => C::TYPE).increment(1);
                error!(order = one.0.subject, step = one.0.step.step, %fault, "an outcome can't be written down");
                later.push(one.0.step);
            }
        }
    }

    async fn is_open(&self, task: &Task<C>) -> Result<bool, Fault> {
        let known = steps::find(&mut *self.db.read().await?, std::slice::from_ref(&task.step)).await?;
        Ok(known.iter().any(|record| record.status == steps::Status::Pending))
    }

    async fn write(&self, settled: &[(Task<C>, E::Outcome)], later: &[StepKey]) -> Result<(), Fault> {
        let mut keys: Vec<String> = settled.iter().map(|(task, _)| task.subject.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut claimed = self.db.write(&keys).await?;
        if !later.is_empty() {
            steps::try_later(claimed.db(), later, CALL_AGAIN.as_secs_f64()).await?;
        }
        if settled.is_empty() {
            return Ok(claimed.commit().await?);
        }
        let answers = self.effect.settle(&mut claimed, settled).await?;
        let mut records = Vec::with_capacity(answers.len());
        for ((task, _), answer) in settled.iter().zip(&answers) {
            records.push(steps::reply(&mut claimed, task, answer)?);
        }
        // Whoever asked a second time, after the claim had run out, may have written an outcome already.
        if steps::resolve(claimed.db(), &records).await? != records.len() as u64 {
            return Err(Fault::permanent("some of the outcomes were written by another process"));
        }
        Ok(claimed.commit().await?)
    }
}

/// Collects the calls that have ended, as many as are written down at once. One that panicked stays open, and is taken
/// up again when its claim has run out.
fn ready<T: 'static>(calls: &mut JoinSet<T>, answered: &mut Vec<T>) {
    while answered.len() < BATCH
        && let Some(ended) = calls.try_join_next()
    {
        answered.extend(ended);
    }
}

/// The task that a row was written for.
fn task<C: Command>(row: &steps::Reclaimed) -> Result<Task<C>, serde_json::Error> {
    let envelope: Envelope = cloudevents::envelope(&row.command)?;
    let cause = Cause {
        correlation_id: row.saga_id,
        causation_id: Some(row.message_id),
        traceparent: row.traceparent.clone(),
    };
    let command = serde_json::from_str(envelope.data.get())?;
    Ok(Task { command, subject: envelope.subject, cause, step: row.key() })
}

enum Ended<C, O> {
    Answered(Task<C>, O),
    Unanswered(Task<C>, String),
}

impl Table {
    pub(crate) fn effect<C: Command, E: Effect<C>>(self, intake: Intake<C, E>) -> Self {
        self.on(&[(C::TYPE, C::TOPIC)], Arc::new(intake))
    }
}
