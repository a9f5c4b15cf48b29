//! Tells requests that wait for an order when something happened to it in this process. What other replicas do is
//! found by looking again, twice a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

/// How long a waiter relies on being told.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How many wait for an order, and how they are told.
type Waiting = HashMap<Uuid, (usize, Arc<Notify>)>;

/// Who waits for which order.
#[derive(Debug, Clone, Default)]
pub struct Watchers {
    orders: Arc<Mutex<Waiting>>,
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
