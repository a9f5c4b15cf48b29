//! The second half of an external call: calls the dependency, and records its answer or its silence.

mod deadline;
mod record;
mod withdrawal;

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use self::deadline::Overdue;
use self::withdrawal::withdraw;
use super::{ExternalCall, LocalError, claim, store};
use crate::circuit_breaker::{Call, Dependency};
use crate::db::Db;
use crate::deadline::limited;
use crate::envelope::Command;
use crate::fault::Fault;
use crate::metric;
use crate::saga::participant::Task;
use crate::step_outcome::StepKey;

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
    /// The dependency has withdrawn the call of this step.
    Withdrawn(StepKey),
}

/// A step whose claim this process has.
struct Open<C> {
    task: Task<C>,
    is_given_up: bool,
}

/// A step whose call got no answer, and the reason.
pub(super) struct UnansweredCall<C> {
    pub task: Task<C>,
    pub reason: String,
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
        let mut overdue = Overdue::new(self.db.call_deadline());
        loop {
            if more && calls.len() <= E::MAX_CONCURRENCY / 2 {
                poll.reset_immediately();
                more = false;
            }
            let (mut answered, mut deferred) = (Vec::new(), Vec::new());
            let may_call = self.db.calls().allows();
            tokio::select! {
                () = stop.cancelled() => {
                    if !E::IDEMPOTENT {
                        self.finish(calls).await;
                    }
                    return;
                }
                Some(next) = self.tasks.recv(), if may_call && calls.len() < E::MAX_CONCURRENCY => deferred.extend(self.take(next, &mut calls)),
                Some(ended) = calls.join_next(), if !calls.is_empty() => {
                    quiet = 0;
                    answered.extend(ended);
                }
                _ = poll.tick() => {
                    if !self.db.calls().allows() {
                        continue;
                    }
                    if E::GIVES_UP && overdue.is_to_be_checked() && self.give_up_overdue(&stop).await {
                        overdue.check_at_once();
                    }
                    quiet = if calls.is_empty() { quiet.saturating_add(1) } else { 0 };
                    if quiet > QUIET_AFTER && !quiet.is_multiple_of(4) {
                        continue;
                    }
                    let room = self.room(&calls);
                    match limited(self.claim_open(&mut released, room)).await {
                        Ok(open) => {
                            more = room > 0 && open.len() == room;
                            for one in open {
                                deferred.extend(self.begin(one, &mut calls));
                            }
                        }
                        Err(fault) => warn!(%fault, "open calls could not be claimed"),
                    }
                }
            }
            // Everything that is ready now is called, deferred and recorded together.
            while may_call
                && calls.len() < E::MAX_CONCURRENCY
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
            HandedOver::Open(task) => self.begin(Open { task, is_given_up: false }, calls),
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

    /// Begins a call or its withdrawal, or returns the deferral if the circuit is open.
    fn begin(&self, open: Open<C>, calls: &mut Calls<C, E::Outcome>) -> Option<Deferred> {
        let Open { task, is_given_up } = open;
        if !self.db.calls().allows() {
            // Another process may have this one's name and its calls. Otherwise the step is resumed when its claim expires.
            warn!(
                subject = task.subject,
                step = task.step.step,
                "a call was not begun, because this process was frozen"
            );
            return None;
        }
        match self.dependency.begin() {
            Ok(permit) => {
                let (handler, slots) = (Arc::clone(&self.handler), Arc::clone(&self.slots));
                // Calls that were made ahead may have all slots for the moment.
                calls.spawn(async move {
                    let slot = slots.acquire_owned().await.ok();
                    if is_given_up {
                        withdraw(handler, task, permit, slot).await
                    } else {
                        call(handler, task, permit, slot).await
                    }
                });
                None
            }
            Err(wait) => Some(Deferred { step: task.step, wait }),
        }
    }

    /// Claims open calls. It does nothing while no call could be made, so that an outage does not load the database.
    async fn claim_open(&self, released: &mut bool, limit: usize) -> Result<Vec<Open<C>>, Fault> {
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
            match row.task() {
                Ok(task) => tasks.push(Open { task, is_given_up: row.is_given_up() }),
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
        if let Err(error) = limited(write).await {
            warn!(%error, command = C::TYPE, "steps could not be deferred");
        }
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
    match answer(E::TIMEOUT, handler.call(&key, &task), permit).await {
        Ok(outcome) => Ended::Answered(task, outcome),
        Err(reason) => Ended::Unanswered(UnansweredCall { task, reason }),
    }
}

/// Waits for the dependency, and tells its circuit breaker whether it has answered. A failure of this process says nothing
/// about the dependency. Returns the reason if there was no answer.
async fn answer<T>(
    limit: Duration,
    asked: impl Future<Output = Result<T, Box<dyn std::error::Error + Send + Sync>>>,
    permit: Call,
) -> Result<T, String> {
    let reason = match tokio::time::timeout(limit, asked).await {
        Ok(Ok(answer)) => {
            permit.end(true);
            return Ok(answer);
        }
        Ok(Err(error)) if error.is::<sqlx::Error>() || error.is::<LocalError>() => {
            return Err(error.to_string());
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {limit:?}"),
    };
    permit.end(false);
    Err(reason)
}

/// Returns the minimum wait of a step that was already called. While the circuit is open, it is longer than the wait
/// of deferred steps. The next trial is then another step than the one that has just failed.
pub(super) fn min_wait(dependency: &Dependency) -> Duration {
    let wait = dependency.open_for();
    if wait.is_zero() { wait } else { wait + 2 * POLL_INTERVAL }
}

#[cfg(test)]
mod tests;
