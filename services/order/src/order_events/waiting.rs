//! Who waits for which order.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use crate::domain::Order;

/// The requests that wait for orders.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// They are sorted, so that they can be looked up in turn.
    pub orders: BTreeMap<Uuid, Waiters>,
    /// Orders to look up at once, since they may have settled.
    pub due: Vec<Uuid>,
    /// The last order that was looked up in its turn.
    last: Option<Uuid>,
}

/// The requests that wait for one order.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// They get the order once it has settled.
    pub settlement: Vec<oneshot::Sender<Arc<Order>>>,
    pub watches: Vec<Arc<Watched>>,
}

/// How far an order was seen.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The version of the order.
    pub version: i64,
    /// The position of the last entry of its timeline.
    pub position: i64,
}

/// What a watch has seen of its order, and how it is woken.
#[derive(Debug, Default)]
pub(super) struct Watched {
    seen: Mutex<Seen>,
    pub changed: Notify,
}

impl Watched {
    pub fn saw(&self, seen: Seen) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    /// Wakes the watch if it has not seen so much of the order.
    pub fn show(&self, found: Seen) {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if found.version > seen.version || found.position > seen.position {
            self.changed.notify_one();
        }
    }
}

/// The orders whose turn it is to be looked up.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// Requests wait for their settlement.
    pub awaited: Vec<Uuid>,
    /// Streams watch them.
    pub watched: Vec<Uuid>,
}

impl Waiters {
    pub fn drop_closed(&mut self) {
        self.settlement.retain(|waiter| !waiter.is_closed());
    }

    fn is_empty(&self) -> bool {
        self.settlement.is_empty() && self.watches.is_empty()
    }
}

impl Waiting {
    /// Changes the waiters of an order, and forgets the order if none is left.
    pub fn update(&mut self, order: Uuid, change: impl FnOnce(&mut Waiters)) {
        if let Some(waiters) = self.orders.get_mut(&order) {
            change(waiters);
            if waiters.is_empty() {
                self.orders.remove(&order);
            }
        }
    }

    pub fn notify_changed(&self, orders: &[Uuid]) {
        if self.orders.is_empty() {
            return;
        }
        let changed = orders.iter().filter_map(|order| self.orders.get(order));
        changed.flat_map(|waiters| &waiters.watches).for_each(|watch| watch.changed.notify_one());
    }

    /// Returns the next orders to look up, at most so many, and forgets cancelled requests for them.
    pub fn take_turn(&mut self, most: usize) -> Turn {
        let behind = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.orders.range((behind, Bound::Unbounded)).map(|(order, _)| *order);
        let from_start = self.orders.keys().copied().take_while(|order| Some(*order) <= self.last);
        let orders: Vec<Uuid> = behind.chain(from_start).take(most).collect();
        self.last = orders.last().copied();
        let mut turn = Turn::default();
        for order in orders {
            self.update(order, |waiters| {
                waiters.drop_closed();
                if !waiters.settlement.is_empty() {
                    turn.awaited.push(order);
                }
                if !waiters.watches.is_empty() {
                    turn.watched.push(order);
                }
            });
        }
        turn
    }
}
