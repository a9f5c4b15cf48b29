//! The second half of an external call: calls the dependency, and records its answer or its silence.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{ExternalCall, LocalError, claim, store};
use crate::backoff::jittered;
use crate::circuit_breaker::{Call, Dependency};
use crate::cloudevents;
use crate::db::Db;
use crate::envelope::{Cause, Command, Envelope};
use crate::fault::{Class, Fault};
use crate::metric;
use crate::saga::participant::{self, Task};
use crate::step_outcome::{self, Status, StepKey};
use crate::unit_of_work::UnitOfWork;

/// The wait before the second call. It doubles from call to call, up to 30 s.
const CALL_AGAIN: Duration = Duration::from_millis(500);
/// How often the database is checked for open intents.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The largest number of outcomes in one transaction.
const BATCH: usize = 256;

/// Calls the dependency and records its answers.
pub(crate) struct Caller<C, E> {
    pub(super) db: Db,
    pub(super) handler: Arc<E>,
    pub(super) dependency: Arc<Dependency>,
    pub(super) tasks: mpsc::Receiver<Task<C>>,
}

/// Collects ended calls, as many as one transaction records. A call that panicked stays open, and is resumed when its
/// claim expires.
fn ready<T: 'static>(calls: &mut JoinSet<T>, answered: &mut Vec<T>) {
    while answered.len() < BATCH
        && let Some(ended) = calls.try_join_next()
    {
        answered.extend(ended);
    }
}

/// The running calls. They are separate tasks, so that they continue while outcomes are recorded.
type Calls<C, O> = JoinSet<Ended<C, O>>;

enum Ended<C, O> {
    Answered(Task<C>, O),
    Unanswered(Unanswered<C>),
}

/// A step whose call got no answer, and the reason.
struct Unanswered<C> {
    task: Task<C>,
    why: String,
}

/// A step that was not called, and the wait before its next attempt.
struct PutOff {
    step: StepKey,
    wait: Duration,
}

impl<C: Command, E: ExternalCall<C>> Caller<C, E> {
    /// Runs until `stop`. Running calls are resumed after the next start. If the dependency is not idempotent, they
    /// are awaited instead.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut calls = JoinSet::new();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut released, mut more) = (false, false);
        loop {
            if more && calls.len() <= E::MAX_CONCURRENCY / 2 {
                look.reset_immediately();
                more = false;
            }
            let (mut answered, mut put_off) = (Vec::new(), Vec::new());
            tokio::select! {
                () = stop.cancelled() => {
                    if !E::IDEMPOTENT {
                        self.finish(calls).await;
                    }
                    return;
                }
                Some(task) = self.tasks.recv(), if calls.len() < E::MAX_CONCURRENCY => put_off.extend(self.begin(task, &mut calls)),
                Some(ended) = calls.join_next(), if !calls.is_empty() => answered.extend(ended),
                _ = look.tick() => {
                    let room = self.room(&calls);
                    match self.take_up(&mut released, room).await {
                        Ok(tasks) => {
                            more = room > 0 && tasks.len() == room;
                            for task in tasks {
                                put_off.extend(self.begin(task, &mut calls));
                            }
                        }
                        Err(fault) => warn!(%fault, "open calls could not be claimed"),
                    }
                }
            }
            // Everything that is ready now is called, deferred and recorded together.
            while calls.len() < E::MAX_CONCURRENCY
                && put_off.len() < BATCH
                && let Ok(task) = self.tasks.try_recv()
            {
                put_off.extend(self.begin(task, &mut calls));
            }
            ready(&mut calls, &mut answered);
            self.put_off(&put_off).await;
            if !answered.is_empty() && !self.write_down(answered, &stop).await {
                return;
            }
        }
    }

    /// Waits for the running calls and records their outcomes. The service's grace period limits the wait.
    async fn finish(&self, mut calls: Calls<C, E::Outcome>) {
        while let Some(ended) = calls.join_next().await {
            let mut answered: Vec<_> = ended.into_iter().collect();
            ready(&mut calls, &mut answered);
            self.write_down(answered, &CancellationToken::new()).await;
        }
    }

    /// Returns how many calls may begin now.
    fn room(&self, calls: &Calls<C, E::Outcome>) -> usize {
        self.dependency.room().min(E::MAX_CONCURRENCY.saturating_sub(calls.len()))
    }

    /// Begins a call, or returns the deferral if the circuit is open.
    fn begin(&self, task: Task<C>, calls: &mut Calls<C, E::Outcome>) -> Option<PutOff> {
        match self.dependency.begin() {
            Ok(permit) => {
                calls.spawn(self.call(task, permit));
                None
            }
            Err(wait) => Some(PutOff { step: task.step, wait }),
        }
    }

    fn call(
        &self,
        task: Task<C>,
        permit: Call,
    ) -> impl Future<Output = Ended<C, E::Outcome>> + Send + use<C, E> {
        let handler = Arc::clone(&self.handler);
        async move {
            let key = task.step.idempotency_key();
            let said = tokio::time::timeout(E::TIMEOUT, handler.call(&key, &task)).await;
            let why = match said {
                Ok(Ok(outcome)) => {
                    permit.end(true);
                    return Ended::Answered(task, outcome);
                }
                Ok(Err(error)) if error.is::<sqlx::Error>() || error.is::<LocalError>() => {
                    drop(permit);
                    return Ended::Unanswered(Unanswered { task, why: error.to_string() });
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {:?}", E::TIMEOUT),
            };
            permit.end(false);
            Ended::Unanswered(Unanswered { task, why })
        }
    }

    /// Claims open calls. It does nothing while no call could be made, so that an outage does not load the database.
    async fn take_up(&self, released: &mut bool, limit: usize) -> Result<Vec<Task<C>>, Fault> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut uow = self.db.write(&[]).await?;
        if !*released {
            // Calls that were running when this instance ended belong to no process now.
            store::release(uow.db(), C::TYPE, self.db.instance()).await?;
        }
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let open = store::claim_open(uow.db(), C::TYPE, self.db.instance(), claim::<C, E>(), limit).await?;
        uow.commit().await?;
        *released = true;
        let mut tasks = Vec::with_capacity(open.len());
        for row in open {
            debug!(saga = %row.saga_id, step = row.step, "an open call is resumed");
            match task(&row) {
                Ok(task) => tasks.push(task),
                Err(_) => error!(saga = %row.saga_id, step = row.step, "an open call can no longer be read"),
            }
        }
        Ok(tasks)
    }

    /// Returns steps that were not called. If that fails, they are resumed when their claims expire.
    async fn put_off(&self, put_off: &[PutOff]) {
        if put_off.is_empty() {
            return;
        }
        debug!(command = C::TYPE, steps = put_off.len(), "the circuit is open; steps are deferred");
        metric::EXTERNAL_CALLS_DEFERRED.counter(&[C::TYPE]).increment(put_off.len() as u64);
        let steps: Vec<&StepKey> = put_off.iter().map(|one| &one.step).collect();
        let waits: Vec<f64> = put_off.iter().map(|one| one.wait.as_secs_f64()).collect();
        let write = async {
            let mut uow = self.db.write(&[]).await?;
            store::put_off(uow.db(), &steps, &waits).await?;
            uow.commit().await
        };
        if let Err(error) = write.await {
            warn!(%error, command = C::TYPE, "steps could not be deferred");
        }
    }

    /// Records ended calls. Returns whether that happened before a stop.
    async fn write_down(&self, ended: Vec<Ended<C, E::Outcome>>, stop: &CancellationToken) -> bool {
        let (mut settled, mut later) = (Vec::new(), Vec::new());
        for one in ended {
            match one {
                Ended::Answered(task, outcome) => settled.push((task, outcome)),
                Ended::Unanswered(unanswered) => {
                    metric::EXTERNAL_CALLS_UNANSWERED.counter(&[C::TYPE]).increment(1);
                    warn!(
                        order = unanswered.task.subject,
                        step = unanswered.task.step.step,
                        why = unanswered.why,
                        "the dependency did not answer; it is called again"
                    );
                    later.push(unanswered);
                }
            }
        }
        let mut backoff = Duration::from_millis(50);
        while !stop.is_cancelled() {
            let fault = match self.write(&settled, &later).await {
                Ok(()) => return true,
                Err(fault) => fault,
            };
            warn!(%fault, command = C::TYPE, "outcomes could not be recorded");
            if fault.class() == Class::Permanent {
                if settled.is_empty() {
                    // Nothing is left to try. The steps stay open until their claims expire.
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

    /// Records each outcome on its own, because one of them fails the whole batch. The failing one is called again
    /// later, and an operator must look for the cause.
    async fn one_by_one(&self, settled: Vec<(Task<C>, E::Outcome)>, later: &mut Vec<Unanswered<C>>) {
        for one in settled {
            let written = match self.is_open(&one.0).await {
                Ok(true) => self.write(std::slice::from_ref(&one), &[]).await,
                // Another process has called too and was faster. Its record is the answer.
                Ok(false) => Ok(()),
                Err(fault) => Err(fault),
            };
            if let Err(fault) = written {
                metric::EXTERNAL_CALLS_FAILED.counter(&[C::TYPE]).increment(1);
                error!(order = one.0.subject, step = one.0.step.step, %fault, "an outcome cannot be recorded");
                let why = format!("the outcome cannot be recorded: {fault}");
                later.push(Unanswered { task: one.0, why });
            }
        }
    }

    async fn is_open(&self, task: &Task<C>) -> Result<bool, Fault> {
        let known = step_outcome::find(&mut *self.db.read().await?, std::slice::from_ref(&task.step)).await?;
        Ok(known.iter().any(|record| record.status == Status::Pending))
    }

    async fn write(&self, settled: &[(Task<C>, E::Outcome)], later: &[Unanswered<C>]) -> Result<(), Fault> {
        let tasks = settled.iter().map(|(task, _)| task).chain(later.iter().map(|one| &one.task));
        let mut keys: Vec<String> = tasks.map(|task| task.subject.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut uow = self.db.write(&keys).await?;
        if !later.is_empty() {
            self.try_later(&mut uow, later).await?;
        }
        if settled.is_empty() {
            return Ok(uow.commit().await?);
        }
        let answers = self.handler.record_outcome(&mut uow, settled).await?;
        let mut records = Vec::with_capacity(answers.len());
        for ((task, _), answer) in settled.iter().zip(&answers) {
            records.push(participant::reply(&mut uow, task, answer)?);
        }
        // If the claim expired, another process may have recorded an outcome already.
        if store::resolve(uow.db(), &records).await? != records.len() as u64 {
            return Err(Fault::permanent("another process has recorded some of the outcomes"));
        }
        Ok(uow.commit().await?)
    }

    /// Schedules unanswered steps for another call, and informs their sagas at the first, second, fourth, eighth ...
    /// attempt.
    async fn try_later(&self, uow: &mut UnitOfWork, later: &[Unanswered<C>]) -> Result<(), Fault> {
        let steps: Vec<&StepKey> = later.iter().map(|one| &one.task.step).collect();
        let least = rest(&self.dependency).as_secs_f64();
        let tried = store::try_later(uow.db(), &steps, CALL_AGAIN.as_secs_f64(), least);
        let tried: HashMap<StepKey, u32> = tried.await?.into_iter().collect();
        for Unanswered { task, why } in later {
            // A step that is no longer open was answered by another process.
            if let Some(&attempts) = tried.get(&task.step)
                && attempts.is_power_of_two()
            {
                participant::failing(uow, task, why, attempts)?;
            }
        }
        Ok(())
    }
}

/// Returns the minimum wait of a step that was already called. While the circuit is open, it is longer than the wait
/// of deferred steps. The next trial is then another step than the one that has just failed.
pub(super) fn rest(dependency: &Dependency) -> Duration {
    let rest = dependency.rest();
    if rest.is_zero() { rest } else { rest + 2 * LOOK_EVERY }
}

/// Restores the task of a row.
fn task<C: Command>(row: &store::Reclaimed) -> Result<Task<C>, serde_json::Error> {
    let envelope: Envelope = cloudevents::envelope(&row.command)?;
    let cause = Cause {
        correlation_id: row.saga_id,
        causation_id: Some(row.message_id),
        traceparent: row.traceparent.clone(),
    };
    let command = serde_json::from_str(envelope.data.get())?;
    Ok(Task { command, subject: envelope.subject, cause, step: row.key() })
}

#[cfg(test)]
mod tests;
