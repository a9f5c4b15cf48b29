//! The second half of an external call: calls the dependency, and records its answer or its silence.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
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
const FIRST_RETRY_WAIT: Duration = Duration::from_millis(500);
/// How often the database is checked for open intents.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// After this many checks without an open intent or a call, only every fourth check is made.
const QUIET_AFTER: u32 = 20;
/// The largest number of outcomes in one transaction.
const BATCH: usize = 256;

/// Calls the dependency and records its answers.
pub(crate) struct Caller<C: Command, E: ExternalCall<C>> {
    pub(super) db: Db,
    pub(super) handler: Arc<E>,
    pub(super) dependency: Arc<Dependency>,
    pub(super) tasks: mpsc::Receiver<HandedOver<C, E::Outcome>>,
    /// One permit for each call that this process may make at once.
    pub(super) slots: Arc<Semaphore>,
}

/// A step whose intent this process has recorded.
pub(super) enum HandedOver<C, O> {
    /// It is to be called.
    Open(Task<C>),
    /// It is already being called.
    Running(JoinHandle<Ended<C, O>>),
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

/// A call that has ended.
pub(super) enum Ended<C, O> {
    Answered(Task<C>, O),
    Unanswered(UnansweredCall<C>),
}

/// A step whose call got no answer, and the reason.
pub(super) struct UnansweredCall<C> {
    task: Task<C>,
    reason: String,
}

/// A step that was not called, and the wait before its next attempt.
struct Deferred {
    step: StepKey,
    wait: Duration,
}

impl<C: Command, E: ExternalCall<C>> Caller<C, E> {
    /// Runs until `stop`. Running calls are resumed after the next start. If the dependency is not idempotent, they
    /// are awaited instead.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut calls = JoinSet::new();
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut released, mut more) = (false, false);
        let mut quiet = 0_u32;
        loop {
            if more && calls.len() <= E::MAX_CONCURRENCY / 2 {
                poll.reset_immediately();
                more = false;
            }
            let (mut answered, mut deferred) = (Vec::new(), Vec::new());
            tokio::select! {
                () = stop.cancelled() => {
                    if !E::IDEMPOTENT {
                        self.finish(calls).await;
                    }
                    return;
                }
                Some(next) = self.tasks.recv(), if calls.len() < E::MAX_CONCURRENCY => deferred.extend(self.take(next, &mut calls)),
                Some(ended) = calls.join_next(), if !calls.is_empty() => {
                    quiet = 0;
                    answered.extend(ended);
                }
                _ = poll.tick() => {
                    quiet = if calls.is_empty() { quiet.saturating_add(1) } else { 0 };
                    if quiet > QUIET_AFTER && !quiet.is_multiple_of(4) {
                        continue;
                    }
                    let room = self.room(&calls);
                    match self.claim_open(&mut released, room).await {
                        Ok(tasks) => {
                            more = room > 0 && tasks.len() == room;
                            for task in tasks {
                                deferred.extend(self.begin(task, &mut calls));
                            }
                        }
                        Err(fault) => warn!(%fault, "open calls could not be claimed"),
                    }
                }
            }
            // Everything that is ready now is called, deferred and recorded together.
            while calls.len() < E::MAX_CONCURRENCY
                && deferred.len() < BATCH
                && let Ok(next) = self.tasks.try_recv()
            {
                deferred.extend(self.take(next, &mut calls));
            }
            ready(&mut calls, &mut answered);
            self.defer(&deferred).await;
            if !answered.is_empty() && !self.record(answered, &stop).await {
                return;
            }
        }
    }

    /// Waits for the running calls and records their outcomes. The service's grace period limits the wait.
    async fn finish(&self, mut calls: Calls<C, E::Outcome>) {
        while let Some(ended) = calls.join_next().await {
            let mut answered: Vec<_> = ended.into_iter().collect();
            ready(&mut calls, &mut answered);
            self.record(answered, &CancellationToken::new()).await;
        }
    }

    /// Returns how many calls may begin now.
    fn room(&self, calls: &Calls<C, E::Outcome>) -> usize {
        let own = E::MAX_CONCURRENCY.saturating_sub(calls.len());
        self.dependency.room().min(own).min(self.slots.available_permits())
    }

    fn take(&self, next: HandedOver<C, E::Outcome>, calls: &mut Calls<C, E::Outcome>) -> Option<Deferred> {
        match next {
            HandedOver::Open(task) => self.begin(task, calls),
            HandedOver::Running(call) => {
                calls.spawn(async {
                    match call.await {
                        Ok(ended) => ended,
                        Err(error) => match error.try_into_panic() {
                            Ok(panic) => resume_unwind(panic),
                            // The runtime is ending.
                            Err(_) => std::future::pending().await,
                        },
                    }
                });
                None
            }
        }
    }

    /// Begins a call, or returns the deferral if the circuit is open.
    fn begin(&self, task: Task<C>, calls: &mut Calls<C, E::Outcome>) -> Option<Deferred> {
        match self.dependency.begin() {
            Ok(permit) => {
                let (handler, slots) = (Arc::clone(&self.handler), Arc::clone(&self.slots));
                // Calls that were made ahead may have all slots for the moment.
                calls.spawn(async move {
                    let slot = slots.acquire_owned().await.ok();
                    call(handler, task, permit, slot).await
                });
                None
            }
            Err(wait) => Some(Deferred { step: task.step, wait }),
        }
    }

    /// Claims open calls. It does nothing while no call could be made, so that an outage does not load the database.
    async fn claim_open(&self, released: &mut bool, limit: usize) -> Result<Vec<Task<C>>, Fault> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // Mostly nothing is open. Finding that out needs no transaction.
        if *released && !store::is_any_due(&mut *self.db.read().await?, C::TYPE).await? {
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
    async fn defer(&self, deferred: &[Deferred]) {
        if deferred.is_empty() {
            return;
        }
        debug!(command = C::TYPE, steps = deferred.len(), "the circuit is open; steps are deferred");
        metric::EXTERNAL_CALLS_DEFERRED.counter(&[C::TYPE]).increment(deferred.len() as u64);
        let steps: Vec<&StepKey> = deferred.iter().map(|one| &one.step).collect();
        let waits: Vec<f64> = deferred.iter().map(|one| one.wait.as_secs_f64()).collect();
        let write = async {
            let mut uow = self.db.write(&[]).await?;
            store::defer(uow.db(), &steps, &waits).await?;
            uow.commit().await
        };
        if let Err(error) = write.await {
            warn!(%error, command = C::TYPE, "steps could not be deferred");
        }
    }

    /// Records ended calls. Returns whether that happened before a stop.
    async fn record(&self, ended: Vec<Ended<C, E::Outcome>>, stop: &CancellationToken) -> bool {
        let (mut answered, mut unanswered) = (Vec::new(), Vec::new());
        for one in ended {
            match one {
                Ended::Answered(task, outcome) => answered.push((task, outcome)),
                Ended::Unanswered(call) => {
                    metric::EXTERNAL_CALLS_UNANSWERED.counter(&[C::TYPE]).increment(1);
                    warn!(
                        subject = call.task.subject,
                        step = call.task.step.step,
                        reason = call.reason,
                        "the dependency did not answer; it is called again"
                    );
                    unanswered.push(call);
                }
            }
        }
        let mut backoff = Duration::from_millis(50);
        while !stop.is_cancelled() {
            let fault = match self.write(&answered, &unanswered).await {
                Ok(()) => return true,
                Err(fault) => fault,
            };
            warn!(%fault, command = C::TYPE, "outcomes could not be recorded");
            if fault.class() == Class::Permanent {
                if answered.is_empty() {
                    // Nothing is left to try. The steps stay open until their claims expire.
                    return true;
                }
                self.record_one_by_one(std::mem::take(&mut answered), &mut unanswered).await;
                continue;
            }
            tokio::time::sleep(jittered(backoff)).await;
            backoff = (backoff * 2).min(Duration::from_secs(2));
        }
        false
    }

    /// Records each outcome on its own, because one of them fails the whole batch. The failing one is called again
    /// later, and an operator must look for the cause.
    async fn record_one_by_one(
        &self,
        answered: Vec<(Task<C>, E::Outcome)>,
        unanswered: &mut Vec<UnansweredCall<C>>,
    ) {
        for one in answered {
            let written = match self.is_pending(&one.0).await {
                Ok(true) => self.write(std::slice::from_ref(&one), &[]).await,
                // Another process has called too and was faster. Its record is the answer.
                Ok(false) => Ok(()),
                Err(fault) => Err(fault),
            };
            if let Err(fault) = written {
                metric::EXTERNAL_CALLS_FAILED.counter(&[C::TYPE]).increment(1);
                error!(subject = one.0.subject, step = one.0.step.step, %fault, "an outcome cannot be recorded");
                let reason = format!("the outcome cannot be recorded: {fault}");
                unanswered.push(UnansweredCall { task: one.0, reason });
            }
        }
    }

    async fn is_pending(&self, task: &Task<C>) -> Result<bool, Fault> {
        let known = step_outcome::find(&mut *self.db.read().await?, std::slice::from_ref(&task.step)).await?;
        Ok(known.iter().any(|record| record.status == Status::Pending))
    }

    async fn write(
        &self,
        answered: &[(Task<C>, E::Outcome)],
        unanswered: &[UnansweredCall<C>],
    ) -> Result<(), Fault> {
        let tasks = answered.iter().map(|(task, _)| task).chain(unanswered.iter().map(|one| &one.task));
        let mut keys: Vec<String> = tasks.map(|task| task.subject.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut uow = self.db.write(&keys).await?;
        if !unanswered.is_empty() {
            self.reschedule(&mut uow, unanswered).await?;
        }
        if answered.is_empty() {
            return Ok(uow.commit().await?);
        }
        let answers = self.handler.record_outcome(&mut uow, answered).await?;
        let mut records = Vec::with_capacity(answers.len());
        for ((task, _), answer) in answered.iter().zip(answers) {
            records.push(participant::answered(&mut uow, task, answer)?);
        }
        // If the claim expired, another process may have recorded an outcome already.
        if store::resolve(uow.db(), &records).await? != records.len() as u64 {
            return Err(Fault::permanent("another process has recorded some of the outcomes"));
        }
        Ok(uow.commit().await?)
    }

    /// Schedules unanswered steps for another call, and informs their sagas at the first, second, fourth, eighth ...
    /// attempt.
    async fn reschedule(&self, uow: &mut UnitOfWork, unanswered: &[UnansweredCall<C>]) -> Result<(), Fault> {
        let steps: Vec<&StepKey> = unanswered.iter().map(|one| &one.task.step).collect();
        let min_seconds = min_wait(&self.dependency).as_secs_f64();
        let tried = store::reschedule(uow.db(), &steps, FIRST_RETRY_WAIT.as_secs_f64(), min_seconds);
        let tried: HashMap<StepKey, u32> = tried.await?.into_iter().collect();
        for UnansweredCall { task, reason } in unanswered {
            // A step that is no longer open was answered by another process.
            if let Some(&attempts) = tried.get(&task.step)
                && attempts.is_power_of_two()
            {
                participant::failing(uow, task, reason, attempts)?;
            }
        }
        Ok(())
    }
}

/// Calls the dependency for a task. The call holds its slot until it ends.
pub(super) async fn call<C: Command, E: ExternalCall<C>>(
    handler: Arc<E>,
    task: Task<C>,
    permit: Call,
    _slot: Option<OwnedSemaphorePermit>,
) -> Ended<C, E::Outcome> {
    let key = task.step.idempotency_key();
    let answer = tokio::time::timeout(E::TIMEOUT, handler.call(&key, &task)).await;
    let reason = match answer {
        Ok(Ok(outcome)) => {
            permit.end(true);
            return Ended::Answered(task, outcome);
        }
        Ok(Err(error)) if error.is::<sqlx::Error>() || error.is::<LocalError>() => {
            drop(permit);
            return Ended::Unanswered(UnansweredCall { task, reason: error.to_string() });
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {:?}", E::TIMEOUT),
    };
    permit.end(false);
    Ended::Unanswered(UnansweredCall { task, reason })
}

/// Returns the minimum wait of a step that was already called. While the circuit is open, it is longer than the wait
/// of deferred steps. The next trial is then another step than the one that has just failed.
pub(super) fn min_wait(dependency: &Dependency) -> Duration {
    let wait = dependency.open_for();
    if wait.is_zero() { wait } else { wait + 2 * POLL_INTERVAL }
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
