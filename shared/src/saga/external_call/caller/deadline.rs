//! The deadline of a call that its dependency never answers. The step is then resolved as refused, as an operator would do.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{BATCH, Caller};
use crate::deadline::{self, limited};
use crate::envelope::Command;
use crate::metric;
use crate::saga::external_call::ExternalCall;
use crate::saga::external_call::resolution::{Resolution, TIMED_OUT, Unresolved, record, store};
use crate::saga::external_call::store::Reclaimed;

/// The longest time between two checks. A deadline is mostly a day, so a minute more does not matter.
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// The shortest time between two checks.
const MIN_INTERVAL: Duration = Duration::from_millis(500);

/// The time of the next check for overdue calls.
pub(super) struct Overdue {
    interval: Duration,
    next: Instant,
}

impl Overdue {
    pub fn new(deadline: Duration) -> Self {
        let interval = (deadline / 10).clamp(MIN_INTERVAL, MAX_INTERVAL);
        Self { interval, next: Instant::now() + interval }
    }

    /// Returns whether it is time for a check, and sets the time of the next one.
    pub fn is_to_be_checked(&mut self) -> bool {
        let now = Instant::now();
        if now < self.next {
            return false;
        }
        self.next = now + self.interval;
        true
    }

    /// Has the next poll check again, because more calls are overdue than one check gives up.
    pub fn check_at_once(&mut self) {
        self.next = Instant::now();
    }
}

impl<C: Command, E: ExternalCall<C>> Caller<C, E> {
    /// Gives up the calls whose deadline has passed, each in a transaction of its own. Any replica may do it, whoever has
    /// the claim. It does so during an outage too, when nothing is called. Returns whether there may be more of them.
    pub(super) async fn give_up_overdue(&self, stop: &CancellationToken) -> bool {
        let seconds = self.db.call_deadline().as_secs_f64();
        let overdue = async {
            let mut db = self.db.read().await?;
            store::find_overdue(&mut db, C::TYPE, seconds, BATCH as i64).await
        };
        let overdue = match limited(overdue).await {
            Ok(overdue) => overdue,
            Err(error) => {
                warn!(%error, command = C::TYPE, "overdue calls could not be found");
                return false;
            }
        };
        let mut given_up = 0;
        for open in overdue {
            if stop.is_cancelled() {
                return false;
            }
            let (saga, step) = (open.saga_id, &open.step);
            let ended = tokio::time::timeout(deadline::LIMIT, self.give_up(&open)).await;
            let Ok(ended) = ended else {
                warn!(%saga, step, "the database did not answer; the call is given up later");
                return false;
            };
            match ended {
                Ok(()) => {
                    given_up += 1;
                    metric::EXTERNAL_CALLS_GIVEN_UP.counter(&[C::TYPE]).increment(1);
                    warn!(%saga, step, "the dependency has not answered in time; the call is given up and withdrawn");
                }
                Err(Unresolved::Unknown | Unresolved::NotOpen(_)) => {
                    debug!(%saga, step, "it was answered meanwhile")
                }
                Err(Unresolved::Unfit(reason)) => {
                    error!(%saga, step, reason, "an overdue call cannot be given up")
                }
                Err(Unresolved::Fault(fault)) => {
                    warn!(%saga, step, %fault, "an overdue call could not be given up")
                }
            }
        }
        // Those that could not be given up wait for the next check.
        given_up == BATCH
    }

    async fn give_up(&self, open: &Reclaimed) -> Result<(), Unresolved> {
        let task = open.task::<C>()?;
        let mut uow = self.db.write(std::slice::from_ref(&task.subject)).await?;
        if store::find_pending(uow.db(), &task.step).await?.is_none() {
            return Err(Unresolved::Unknown);
        }
        let refused = Resolution::Refused { code: TIMED_OUT.to_owned() };
        record(&*self.handler, &mut uow, task, &refused).await?;
        Ok(uow.commit().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overdue_calls_are_looked_for_seldom_unless_the_deadline_is_short() {
        let interval = |seconds| Overdue::new(Duration::from_secs(seconds)).interval;
        assert_eq!(interval(86_400), MAX_INTERVAL);
        assert_eq!(interval(100), Duration::from_secs(10));
        assert_eq!(interval(0), MIN_INTERVAL);
        let mut overdue = Overdue::new(Duration::from_secs(86_400));
        assert!(!overdue.is_to_be_checked());
        overdue.check_at_once();
        assert!(overdue.is_to_be_checked() && !overdue.is_to_be_checked());
    }
}
