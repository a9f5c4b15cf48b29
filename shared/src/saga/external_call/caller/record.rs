//! Records how calls have ended: the answers in one transaction with their events, and the unanswered ones with the time of
//! their next attempt.

use std::collections::HashMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Caller, Ended, FIRST_RETRY_WAIT, UnansweredCall, min_wait};
use crate::backoff::jittered;
use crate::deadline::limited;
use crate::envelope::Command;
use crate::fault::{Class, Fault};
use crate::metric;
use crate::saga::external_call::{ExternalCall, store};
use crate::saga::participant::{self, Task};
use crate::step_outcome::{self, Status, StepKey};
use crate::unit_of_work::UnitOfWork;

impl<C: Command, E: ExternalCall<C>> Caller<C, E> {
    /// Records ended calls. Returns whether that happened before a stop.
    pub(super) async fn record(&self, ended: Vec<Ended<C, E::Outcome>>, stop: &CancellationToken) -> bool {
        let (mut answered, mut unanswered, mut withdrawn) = (Vec::new(), Vec::new(), Vec::new());
        for one in ended {
            match one {
                Ended::Answered(task, outcome) => answered.push((task, outcome)),
                Ended::Withdrawn(step) => withdrawn.push(step),
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
        self.record_withdrawn(&withdrawn).await;
        if answered.is_empty() && unanswered.is_empty() {
            return true;
        }
        let mut backoff = Duration::from_millis(50);
        while !stop.is_cancelled() {
            let fault = match limited(self.write(&answered, &unanswered)).await {
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
            let written = match limited(self.is_pending(&one.0)).await {
                Ok(true) => limited(self.write(std::slice::from_ref(&one), &[])).await,
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
