//! Tells requests that wait for an order when something happened to it in this process. What other replicas do is
//! found by looking again, twice a second. Beside them, a feed tells whoever listens of every order that settled here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

use crate::domain::Status;

/// How long a waiter relies on being told.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How many commits a listener of the feed may be behind before it misses some: what bounds the feed's memory.
const FEED: usize = 1024;

/// How many wait for an order, and how they are told.
type Waiting = HashMap<Uuid, (usize, Arc<Notify>)>;

/// Who waits for which order, and who listens to all.
#[derive(Debug, Clone)]
pub struct Watchers {
    orders: Arc<Mutex<Waiting>>,
    feed: broadcast::Sender<Settled>,
}

impl Default for Watchers {
    fn default() -> Self {
        Self { orders: Arc::default(), feed: broadcast::channel(FEED).0 }
    }
}

/// Orders that one transaction settled, with one outcome.
#[derive(Debug, Clone)]
pub struct Settled {
    pub orders: Arc<[Uuid]>,
    pub status: Status,
    /// By the database's clock.
    pub at: OffsetDateTime,
}

/// The outcome of an order, as the feed tells it.
#[derive(Debug, Serialize)]
pub struct Outcome<'o> {
    id: &'o Uuid,
    status: Status,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

impl Settled {
    /// The outcome of one of its orders.
    pub fn outcome<'o>(&self, id: &'o Uuid) -> Outcome<'o> {
        Outcome { id, status: self.status, at: self.at }
    }
}

/// A waiter. Dropped, it waits no more.
#[derive(Debug)]
pub struct Watch {
    watchers: Watchers,
    order: Uuid,
    notify: Arc<Notify>,
}

impl Watchers {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.orders.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Begins to wait. Call it before looking, so that nothing that happens in between is missed.
    pub fn watch(&self, order: Uuid) -> Watch {
        let mut orders = self.lock();
        let (count, notify) = orders.entry(order).or_default();
        *count += 1;
        Watch { watchers: self.clone(), order, notify: Arc::clone(notify) }
    }

    /// Hears of every order that settles in this process from now on.
    pub fn listen(&self) -> broadcast::Receiver<Settled> {
        self.feed.subscribe()
    }

    /// These orders have settled, and their transaction is committed.
    pub fn settled(&self, orders: &[Uuid], status: Status, at: OffsetDateTime) {
        self.tell(orders);
        if self.feed.receiver_count() > 0 {
            // It fails if the last listener has left meanwhile.
            let _ = self.feed.send(Settled { orders: orders.into(), status, at });
        }
    }

    /// Something happened to these orders.
    pub fn tell(&self, changed: &[Uuid]) {
        let orders = self.lock();
        if orders.is_empty() {
            return;
        }
        for order in changed {
            if let Some((_, notify)) = orders.get(order) {
                notify.notify_waiters();
                // Kept for a waiter that is between looking and waiting.
                notify.notify_one();
            }
        }
    }
}

impl Watch {
    /// Waits until something happened, or until it is time to look again.
    pub async fn changed(&self) {
        let _ = tokio::time::timeout(LOOK_AGAIN, self.notify.notified()).await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut orders = self.watchers.lock();
        if let Some((count, _)) = orders.get_mut(&self.order) {
            *count -= 1;
            if *count == 0 {
                orders.remove(&self.order);
            }
        }
    }
}
