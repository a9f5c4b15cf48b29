//! Admission control. While a backlog is too long, the service refuses new orders before it writes anything, because every
//! accepted order must settle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shared::db::Db;
use shared::deadline::limited;
use shared::outbox::{count_unsent, read_by_index};
use shared::service::problem::Problem;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::intake::overloaded;
use crate::{metrics, store};

/// How often the backlogs are counted.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// The same while no backlog is longer than a quarter of its limit, in [`SAMPLE_EVERY`].
const CALM: u32 = 4;
/// The longest `Retry-After`, in seconds.
const LONGEST: u32 = 30;
/// The weight of a new measurement of the speed, beside the measurements before.
const WEIGHT: f64 = 0.2;
/// The bit of [`Admission`] that says which backlog is too long: the pending orders, not the messages of the outbox.
const PENDING: u64 = 1 << 32;

/// Whether orders are accepted now. Reading it costs nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Admission {
    /// 0 while orders are accepted. Else the seconds to wait, and the bit [`PENDING`].
    refused: Arc<AtomicU64>,
}

impl Admission {
    /// Accepts an order.
    ///
    /// # Errors
    /// 503 with `Retry-After` while a backlog is too long. Nothing was written then.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let refused = self.refused.load(Ordering::Relaxed);
        let Ok(seconds) = u32::try_from(refused & u64::from(u32::MAX)) else { return Ok(()) };
        if seconds == 0 {
            return Ok(());
        }
        let (backlog, what) = if refused & PENDING == 0 {
            ("outbox", "messages wait to be sent")
        } else {
            ("pending", "orders wait to be settled")
        };
        metrics::ORDERS_REFUSED.counter(&[backlog]).increment(1);
        Err(overloaded(format!("too many {what}; nothing was changed, try again"), seconds))
    }

    fn set(&self, outbox: &Backlog, pending: &Backlog) {
        let refused = match (outbox.wait(), pending.wait()) {
            (None, None) => 0,
            (Some(outbox), pending) if pending.is_none_or(|pending| pending <= outbox) => u64::from(outbox),
            (_, pending) => PENDING | u64::from(pending.unwrap_or(LONGEST)),
        };
        self.refused.store(refused, Ordering::Relaxed);
    }
}

/// A backlog, and how fast it falls.
#[derive(Debug)]
struct Backlog {
    limit: i64,
    count: i64,
    full: bool,
    /// How many items it loses a second while no order is accepted. It is not known at first.
    falls: Option<f64>,
}

impl Backlog {
    fn new(limit: u32) -> Self {
        Self { limit: i64::from(limit), count: 0, full: false, falls: None }
    }

    /// Returns the count at which orders are accepted again. It is well below the limit, so that admission does not flap.
    fn opens_at(&self) -> i64 {
        self.limit - self.limit / 5
    }

    fn is_calm(&self) -> bool {
        !self.full && self.count <= self.limit / 4
    }

    /// Returns how far it is counted. That is beyond the limit, so that its fall shows early.
    fn most(&self) -> i64 {
        2 * self.limit + 1
    }

    /// Takes in a count, and the time since the count before.
    fn counted(&mut self, count: i64, after: Duration) {
        let fallen = self.count - count;
        self.count = count;
        if self.full {
            let falls = fallen as f64 / after.as_secs_f64().max(0.001);
            self.falls = Some(self.falls.map_or(falls, |before| before + WEIGHT * (falls - before)));
            self.full = count > self.opens_at();
        } else {
            self.full = count > self.limit;
            self.falls = None;
        }
    }

    /// Returns the seconds until orders will be accepted again; `None` if they are accepted now.
    fn wait(&self) -> Option<u32> {
        if !self.full {
            return None;
        }
        let seconds = match self.falls {
            None => 1.0,
            Some(falls) if falls > 0.0 => (self.count - self.opens_at()) as f64 / falls,
            Some(_) => f64::from(LONGEST),
        };
        Some((seconds.ceil() as u32).clamp(1, LONGEST))
    }
}

/// Counts the backlogs, and switches admission on and off.
pub(crate) struct Sampler {
    db: Db,
    admission: Admission,
    outbox: Backlog,
    pending: Backlog,
}

/// Returns the admission, and the sampler that switches it on and off.
pub(crate) fn admission(db: Db, outbox_limit: u32, pending_limit: u32) -> (Admission, Sampler) {
    let admission = Admission::default();
    let (outbox, pending) = (Backlog::new(outbox_limit), Backlog::new(pending_limit));
    (admission.clone(), Sampler { db, admission, outbox, pending })
}

impl Sampler {
    /// Counts until `stop`. While the database does not answer, admission stays as it is: no order could be written anyway.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(SAMPLE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut before, mut ticks) = (Instant::now(), 0_u32);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            ticks = ticks.wrapping_add(1);
            if self.outbox.is_calm() && self.pending.is_calm() && !ticks.is_multiple_of(CALM) {
                continue;
            }
            match limited(self.count()).await {
                Ok((outbox, pending)) => {
                    self.take_in(outbox, pending, before.elapsed());
                    before = Instant::now();
                }
                Err(error) => warn!(%error, "the backlogs could not be counted"),
            }
        }
        Ok(())
    }

    async fn count(&self) -> Result<(i64, i64), sqlx::Error> {
        // The transaction is for the settings alone. Nothing is written.
        let mut uow = self.db.write(&[]).await?;
        read_by_index(uow.db()).await?;
        let outbox = count_unsent(uow.db(), self.outbox.most()).await?;
        let pending = store::count_pending(uow.db(), self.pending.most()).await?;
        uow.commit().await?;
        Ok((outbox, pending))
    }

    fn take_in(&mut self, outbox: i64, pending: i64, after: Duration) {
        metrics::OUTBOX_BACKLOG.gauge(&[]).set(outbox as f64);
        metrics::ORDERS_PENDING.gauge(&[]).set(pending as f64);
        let refused = self.outbox.full || self.pending.full;
        self.outbox.counted(outbox, after);
        self.pending.counted(pending, after);
        self.admission.set(&self.outbox, &self.pending);
        match (refused, self.outbox.full || self.pending.full) {
            (false, true) => warn!(outbox, pending, "orders are refused: too much is on its way"),
            (true, false) => info!(outbox, pending, "orders are taken again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_door_closes_above_the_limit_and_opens_well_below_it() {
        let mut backlog = Backlog::new(100);
        let mut refused_at = |count| {
            backlog.counted(count, SECOND);
            backlog.wait().is_some()
        };
        assert!(!refused_at(100), "the limit itself is not too much");
        assert!(refused_at(101));
        assert!(refused_at(81), "below the limit, but not well below");
        assert!(!refused_at(80));
        assert!(!refused_at(100), "it does not flap");
    }

    #[test]
    fn the_wait_is_what_the_backlog_needs_at_its_speed() {
        let mut backlog = Backlog::new(1000);
        backlog.counted(1900, SECOND);
        assert_eq!(backlog.wait(), Some(1), "nothing is known of the speed");
        backlog.counted(1800, SECOND);
        assert_eq!(backlog.wait(), Some(10), "a thousand too many, a hundred a second");
        let mut stuck = Backlog::new(1000);
        stuck.counted(1900, SECOND);
        stuck.counted(1900, SECOND);
        assert_eq!(stuck.wait(), Some(LONGEST));
    }

    #[test]
    fn the_door_names_the_backlog_that_needs_longer() {
        let (mut outbox, mut pending) = (Backlog::new(10), Backlog::new(10));
        let admission = Admission::default();
        assert!(admission.check().is_ok());
        outbox.counted(11, SECOND);
        admission.set(&outbox, &pending);
        let said = |admission: &Admission| admission.check().expect_err("refused").detail.unwrap_or_default();
        assert!(said(&admission).contains("messages"), "{}", said(&admission));
        pending.counted(20, SECOND);
        pending.counted(20, SECOND);
        admission.set(&outbox, &pending);
        assert!(said(&admission).contains("orders"), "{}", said(&admission));
        outbox.counted(0, SECOND);
        pending.counted(0, SECOND);
        admission.set(&outbox, &pending);
        assert!(admission.check().is_ok());
    }
}
