//! Tells requests in this process what happens to orders.
//!
//! What this process commits, waiting requests learn at once. What other replicas commit, they learn by looking again
//! twice a second: a watch reads its order again, and `OrderNotifier::run` looks up all awaited orders in one statement.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use shared::db::Db;
use time::OffsetDateTime;
use tokio::sync::{Notify, broadcast, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::domain::{Order, Status};
use crate::store;

/// How often to look for changes that other replicas have committed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

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

#[derive(Debug, Default)]
struct Waiting {
    orders: HashMap<Uuid, Waiters>,
    /// Orders to look up at once, since they may have settled.
    due: Vec<Uuid>,
}

/// The requests that wait for one order.
#[derive(Debug, Default)]
struct Waiters {
    /// They get the order once it has settled.
    settlement: Vec<oneshot::Sender<Arc<Order>>>,
    /// The number of watches that hold `changed`.
    watches: usize,
    changed: Arc<Notify>,
}

impl Waiters {
    fn drop_closed(&mut self) {
        self.settlement.retain(|waiter| !waiter.is_closed());
    }

    fn is_empty(&self) -> bool {
        self.settlement.is_empty() && self.watches == 0
    }
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
        let mut waiting = self.lock();
        let waiters = waiting.orders.entry(order).or_default();
        waiters.watches += 1;
        OrderWatch { notifier: self.clone(), order, changed: Arc::clone(&waiters.changed) }
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

    /// Looks awaited orders up, and hands those that have settled to the requests that wait for them, until `stop`.
    pub(crate) async fn run(self, db: Db, stop: CancellationToken) -> anyhow::Result<()> {
        let mut look_again = tokio::time::interval(LOOK_AGAIN);
        look_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = tokio::select! {
                () = self.look_up.notified() => std::mem::take(&mut self.lock().due),
                _ = look_again.tick() => self.lock().take_all(),
                () = stop.cancelled() => return Ok(()),
            };
            if !due.is_empty()
                && let Err(error) = self.hand_out_settled(&db, &due).await
            {
                warn!(%error, "settled orders could not be looked up; the next look includes them");
            }
        }
    }

    async fn hand_out_settled(&self, db: &Db, due: &[Uuid]) -> Result<(), sqlx::Error> {
        let settled = store::find_settled(&mut *db.read().await?, due).await?;
        let mut waiting = self.lock();
        for order in settled.into_iter().map(Arc::new) {
            waiting.update(order.id, |waiters| {
                for waiter in waiters.settlement.drain(..) {
                    // It fails if the request was cancelled, which needs no answer any more.
                    let _ = waiter.send(Arc::clone(&order));
                }
            });
        }
        Ok(())
    }
}

impl Waiting {
    /// Changes the waiters of an order, and forgets the order if none is left.
    fn update(&mut self, order: Uuid, change: impl FnOnce(&mut Waiters)) {
        if let Some(waiters) = self.orders.get_mut(&order) {
            change(waiters);
            if waiters.is_empty() {
                self.orders.remove(&order);
            }
        }
    }

    fn notify_changed(&self, orders: &[Uuid]) {
        if self.orders.is_empty() {
            return;
        }
        for waiters in orders.iter().filter_map(|order| self.orders.get(order)) {
            waiters.changed.notify_waiters();
            // Kept for a watch that is between reading and waiting.
            waiters.changed.notify_one();
        }
    }

    /// Returns all orders whose settlement is awaited, and forgets cancelled requests.
    fn take_all(&mut self) -> Vec<Uuid> {
        self.due.clear();
        self.orders.retain(|_, waiters| {
            waiters.drop_closed();
            !waiters.is_empty()
        });
        self.orders
            .iter()
            .filter(|(_, waiters)| !waiters.settlement.is_empty())
            .map(|(order, _)| *order)
            .collect()
    }
}

/// A watch of one order. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct OrderWatch {
    notifier: OrderNotifier,
    order: Uuid,
    changed: Arc<Notify>,
}

impl OrderWatch {
    /// Waits until the order changed, or until it is time to look again.
    pub(crate) async fn changed(&self) {
        let _ = tokio::time::timeout(LOOK_AGAIN, self.changed.notified()).await;
    }
}

impl Drop for OrderWatch {
    fn drop(&mut self) {
        self.notifier.lock().update(self.order, |waiters| waiters.watches -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: Uuid = Uuid::from_u128(1);
    const AT: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    #[tokio::test]
    async fn a_change_between_reading_and_waiting_is_not_missed() {
        let notifier = OrderNotifier::default();
        let watch = notifier.watch(ORDER);
        notifier.notify_changed(&[Uuid::from_u128(2), ORDER]);
        let soon = LOOK_AGAIN / 2;
        assert!(tokio::time::timeout(soon, watch.changed()).await.is_ok());
        assert!(tokio::time::timeout(soon, watch.changed()).await.is_err(), "nothing more has happened");
    }

    #[tokio::test]
    async fn orders_that_nobody_waits_for_are_forgotten() {
        let notifier = OrderNotifier::default();
        let (first, second) = (notifier.watch(ORDER), notifier.watch(ORDER));
        assert!(notifier.wait_until_settled(ORDER, Duration::from_millis(1), false).await.is_none());
        drop(first);
        assert_eq!(notifier.lock().orders.len(), 1);
        drop(second);
        assert!(notifier.lock().orders.is_empty());
        assert!(notifier.wait_until_settled(ORDER, Duration::from_millis(1), false).await.is_none());
        assert!(notifier.lock().orders.is_empty());
    }

    #[tokio::test]
    async fn only_orders_whose_settlement_is_awaited_are_looked_up() {
        let notifier = OrderNotifier::default();
        let _watch = notifier.watch(ORDER);
        notifier.notify_settled(&[ORDER], Status::Confirmed, AT);
        assert!(notifier.lock().due.is_empty());
        assert!(notifier.lock().take_all().is_empty());
        let (send, _settled) = oneshot::channel();
        notifier.lock().orders.entry(ORDER).or_default().settlement.push(send);
        notifier.notify_settled(&[Uuid::from_u128(2), ORDER], Status::Confirmed, AT);
        assert_eq!(notifier.lock().due, [ORDER]);
        assert_eq!(notifier.lock().take_all(), [ORDER]);
        assert!(notifier.lock().due.is_empty(), "they are among all");
    }

    #[tokio::test]
    async fn the_feed_has_every_settlement_from_the_subscription_on() {
        let notifier = OrderNotifier::default();
        notifier.notify_settled(&[ORDER], Status::Confirmed, AT);
        let mut feed = notifier.subscribe();
        notifier.notify_changed(&[ORDER]);
        notifier.notify_settled(&[ORDER], Status::Rejected, AT);
        let settlement = feed.recv().await.expect("a settlement");
        assert_eq!((&*settlement.orders, settlement.status), (&[ORDER][..], Status::Rejected));
        assert!(feed.try_recv().is_err());
    }
}
