//! Finds what other replicas have committed about the orders that somebody waits for.

use std::sync::Arc;
use std::time::Duration;

use shared::db::Db;
use shared::deadline::limited;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::OrderNotifier;
use super::waiting::{Seen, Turn};
use crate::store::{self, ProgressRow};

/// How often to look for changes that other replicas have committed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The most orders that one look includes. With more of them, each has its turn less often.
const MOST_AT_ONCE: usize = 500;

impl OrderNotifier {
    /// Looks up the orders that somebody waits for, until `stop`. It hands those that have settled to the requests that wait
    /// for that, and wakes the watches of those that have changed.
    pub(crate) async fn run(self, db: Db, stop: CancellationToken) -> anyhow::Result<()> {
        let mut look_again = tokio::time::interval(LOOK_AGAIN);
        look_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let turn = tokio::select! {
                () = self.look_up.notified() => {
                    Turn { awaited: std::mem::take(&mut self.lock().due), ..Turn::default() }
                }
                _ = look_again.tick() => self.lock().take_turn(MOST_AT_ONCE),
                () = stop.cancelled() => return Ok(()),
            };
            if let Err(error) = limited(self.look_up(&db, &turn)).await {
                warn!(%error, "awaited orders could not be looked up; a later look includes them");
            }
        }
    }

    async fn look_up(&self, db: &Db, turn: &Turn) -> Result<(), sqlx::Error> {
        if !turn.awaited.is_empty() {
            let settled = store::find_settled(&mut *db.read().await?, &turn.awaited).await?;
            let mut waiting = self.lock();
            for order in settled.into_iter().map(Arc::new) {
                waiting.update(order.id, |waiters| {
                    for waiter in waiters.settlement.drain(..) {
                        // It fails if the request was cancelled, which needs no answer any more.
                        let _ = waiter.send(Arc::clone(&order));
                    }
                });
            }
        }
        if !turn.watched.is_empty() {
            let found = store::find_progress(&mut *db.read().await?, &turn.watched).await?;
            self.show(&found);
        }
        Ok(())
    }

    /// Wakes the watches that have not seen so much of their orders.
    pub(super) fn show(&self, found: &[ProgressRow]) {
        let waiting = self.lock();
        for &ProgressRow { id, version, position } in found {
            for watch in waiting.orders.get(&id).into_iter().flat_map(|waiters| &waiters.watches) {
                watch.show(Seen { version, position });
            }
        }
    }
}
