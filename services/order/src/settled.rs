//! Answers requests that wait for an order to settle. What this process settles it is told of at once; what other
//! replicas settle is looked up twice a second, for all that wait in one statement.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::db::Db;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::domain::Order;
use crate::store;

/// How often all that are waited for are looked up.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Who waits for which order, and which of these are due to be looked up.
#[derive(Debug, Default)]
struct Waiting {
    orders: HashMap<Uuid, Vec<oneshot::Sender<Arc<Order>>>>,
    due: Vec<Uuid>,
}

/// Where requests wait for orders to settle.
#[derive(Debug, Clone, Default)]
pub struct OrderSettlements {
    waiting: Arc<Mutex<Waiting>>,
    told: Arc<Notify>,
}

impl OrderSettlements {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The order, once it has settled; `None` if it does not in time. `maybe_settled` says that it is worth a look at
    /// once, since the order was placed by an earlier request.
    pub(crate) async fn wait(
        &self,
        order: Uuid,
        longest: Duration,
        maybe_settled: bool,
    ) -> Option<Arc<Order>> {
        let (tell, told) = oneshot::channel();
        {
            let mut waiting = self.lock();
            waiting.orders.entry(order).or_default().push(tell);
            if maybe_settled {
                waiting.due.push(order);
                self.told.notify_one();
            }
        }
        let settled = tokio::time::timeout(longest, told).await;
        if settled.is_err() {
            let mut waiting = self.lock();
            if let Some(waiters) = waiting.orders.get_mut(&order) {
                waiters.retain(|waiter| !waiter.is_closed());
                if waiters.is_empty() {
                    waiting.orders.remove(&order);
                }
            }
        }
        settled.ok()?.ok()
    }

    /// These orders have settled, in a transaction that is committed.
    pub(crate) fn tell(&self, orders: &[Uuid]) {
        let mut waiting = self.lock();
        let awaited: Vec<Uuid> = orders.iter().copied().filter(|o| waiting.orders.contains_key(o)).collect();
        if !awaited.is_empty() {
            waiting.due.extend(awaited);
            self.told.notify_one();
        }
    }

    /// Looks orders up and answers those who wait for them, until `stop`.
    pub(crate) async fn run(self, db: Db, stop: CancellationToken) -> anyhow::Result<()> {
        let mut look = tokio::time::interval(LOOK_AGAIN);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = tokio::select! {
                () = self.told.notified() => std::mem::take(&mut self.lock().due),
                _ = look.tick() => self.all(),
                () = stop.cancelled() => return Ok(()),
            };
            if !due.is_empty()
                && let Err(error) = self.answer(&db, &due).await
            {
                warn!(%error, "settled orders could not be looked up; they are with the next look");
            }
        }
    }

    /// All that are waited for; who has hung up is forgotten.
    fn all(&self) -> Vec<Uuid> {
        let mut waiting = self.lock();
        waiting.due.clear();
        waiting.orders.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
        waiting.orders.keys().copied().collect()
    }

    async fn answer(&self, db: &Db, due: &[Uuid]) -> Result<(), sqlx::Error> {
        let settled = store::find_settled(&mut *db.read().await?, due).await?;
        let mut waiting = self.lock();
        for order in settled.into_iter().map(Arc::new) {
            for waiter in waiting.orders.remove(&order.id).unwrap_or_default() {
                // Whoever has hung up does not need the answer.
                let _ = waiter.send(Arc::clone(&order));
            }
        }
        Ok(())
    }
}
