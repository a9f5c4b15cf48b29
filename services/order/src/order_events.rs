//! Tells requests in this process what happens to orders.
//!
//! What this process commits, waiting requests learn at once. What other replicas commit, `OrderNotifier::run` finds for
//! all of them together. So the load of the database does not grow with the number of requests that wait.

mod look_up;
mod waiting;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::{Notify, broadcast, oneshot};
use uuid::Uuid;

pub(crate) use self::waiting::Seen;
use self::waiting::{Waiters, Waiting, Watched};
use crate::domain::{Order, Status};

/// Most settlements that a listener of the feed may lag behind before it misses some. It bounds the feed's memory.
const FEED_CAPACITY: usize = 1024;

/// The requests that wait for orders, and the listeners of the feed.
#[derive(Debug, Clone)]
pub struct OrderNotifier {
    waiting: Arc<Mutex<Waiting>>,
    /// Wakes `OrderNotifier::run` when orders are due.
    look_up: Arc<Notify>,
    feed: broadcast::Sender<Settlement>,
}

/// Orders that one transaction settled with the same status.
#[derive(Debug, Clone)]
pub struct Settlement {
    pub orders: Arc<[Uuid]>,
    pub status: Status,
    /// When they settled, by the database's clock.
    pub at: OffsetDateTime,
}

/// How one order settled, as the feed shows it.
#[derive(Debug, Serialize)]
pub struct Outcome<'o> {
    id: &'o Uuid,
    status: Status,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

impl Settlement {
    /// Returns the outcome of one of its orders.
    pub fn outcome<'o>(&self, id: &'o Uuid) -> Outcome<'o> {
        Outcome { id, status: self.status, at: self.at }
    }
}

impl Default for OrderNotifier {
    fn default() -> Self {
        Self { waiting: Arc::default(), look_up: Arc::default(), feed: broadcast::channel(FEED_CAPACITY).0 }
    }
}

impl OrderNotifier {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an order to settle, and returns it; `None` if it does not settle within `longest`.
    ///
    /// `may_have_settled` has the order looked up at once: an earlier request placed it.
    pub(crate) async fn wait_until_settled(
        &self,
        order: Uuid,
        longest: Duration,
        may_have_settled: bool,
    ) -> Option<Arc<Order>> {
        let (send, settled) = oneshot::channel();
        {
            let mut waiting = self.lock();
            waiting.orders.entry(order).or_default().settlement.push(send);
            if may_have_settled {
                waiting.due.push(order);
                self.look_up.notify_one();
            }
        }
        let settled = tokio::time::timeout(longest, settled).await;
        if settled.is_err() {
            self.lock().update(order, Waiters::drop_closed);
        }
        settled.ok()?.ok()
    }

    /// Begins to watch an order. Begin before you read the order, so that no change in between is missed.
    pub(crate) fn watch(&self, order: Uuid) -> OrderWatch {
        let watched = Arc::new(Watched::default());
        self.lock().orders.entry(order).or_default().watches.push(Arc::clone(&watched));
        OrderWatch { notifier: self.clone(), order, watched }
    }

    /// Subscribes to the settlements that this process commits from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Settlement> {
        self.feed.subscribe()
    }

    /// Notifies of settled orders. Call it after their transaction's commit.
    pub(crate) fn notify_settled(&self, orders: &[Uuid], status: Status, at: OffsetDateTime) {
        let mut waiting = self.lock();
        waiting.notify_changed(orders);
        let awaits = |order: &Uuid| waiting.orders.get(order).is_some_and(|one| !one.settlement.is_empty());
        let awaited: Vec<Uuid> = orders.iter().copied().filter(awaits).collect();
        if !awaited.is_empty() {
            waiting.due.extend(awaited);
            self.look_up.notify_one();
        }
        drop(waiting);
        if self.feed.receiver_count() > 0 {
            // It fails if the last listener has left meanwhile.
            let _ = self.feed.send(Settlement { orders: orders.into(), status, at });
        }
    }

    /// Notifies of orders that changed. Call it after their transaction's commit.
    pub(crate) fn notify_changed(&self, orders: &[Uuid]) {
        self.lock().notify_changed(orders);
    }
}

/// A watch of one order. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct OrderWatch {
    notifier: OrderNotifier,
    order: Uuid,
    watched: Arc<Watched>,
}

impl OrderWatch {
    /// Notes what was read of the order. Only something newer counts as a change from then on.
    pub(crate) fn saw(&self, seen: Seen) {
        self.watched.saw(seen);
    }

    /// Waits until the order changes. A change since the last wait counts too.
    pub(crate) async fn changed(&self) {
        self.watched.changed.notified().await;
    }
}

impl Drop for OrderWatch {
    fn drop(&mut self) {
        let watched = &self.watched;
        self.notifier.lock().update(self.order, |waiters| {
            waiters.watches.retain(|one| !Arc::ptr_eq(one, watched));
        });
    }
}

#[cfg(test)]
mod tests;
