//! The orders of a run, from their acceptance to their outcome.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::tally::Tally;

/// How long the feed may say nothing about an order before the order is asked for. The time doubles after each request.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the outcome of an unknown order is kept. Its acceptance may still come, or it may be another client's order.
const KEEP: Duration = Duration::from_secs(60);

/// The status of an order, as far as this program distinguishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pending,
    /// An order that is asked for late may have moved on.
    #[serde(alias = "shipped", alias = "delivered")]
    Confirmed,
    Rejected,
}

/// The source of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The order service's feed, at once.
    Feed,
    /// A request for the order, later than the outcome.
    Asked,
}

/// An order under way.
#[derive(Debug)]
struct Pending {
    part: usize,
    /// The begin of its latencies.
    began: Instant,
    ask_at: Instant,
    patience: Duration,
    waiter: Option<oneshot::Sender<()>>,
}

/// All orders of a run.
#[derive(Debug)]
pub struct Board(Mutex<State>);

#[derive(Debug)]
struct State {
    pending: HashMap<Uuid, Pending>,
    /// Every order that the order service has accepted.
    accepted: Vec<Uuid>,
    /// Outcomes that came before the acceptance, because the feed can be quicker than the answer.
    early: HashMap<Uuid, (Instant, Status)>,
    parts: Vec<Tally>,
    settled: u64,
    asked: u64,
    last_told: Instant,
}

/// The progress of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing {
    pub placed: u64,
    /// Confirmed or rejected orders, including those of the warm-up.
    pub settled: u64,
    pub errors: u64,
    pub pending: usize,
}

impl Board {
    /// Returns a board for a run with this many parts.
    pub fn new(parts: usize) -> anyhow::Result<Self> {
        Ok(Self(Mutex::new(State {
            pending: HashMap::new(),
            accepted: Vec::new(),
            early: HashMap::new(),
            parts: (0..parts).map(|_| Tally::new()).collect::<anyhow::Result<_>>()?,
            settled: 0,
            asked: 0,
            last_told: Instant::now(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an order was accepted. The returned receiver ends when the order has settled.
    pub fn accepted(&self, id: Uuid, part: usize, began: Instant, now: Instant) -> oneshot::Receiver<()> {
        let (waiter, settled) = oneshot::channel();
        let mut state = self.lock();
        state.accepted.push(id);
        state.parts[part].placed += 1;
        state.parts[part].accept.note(now.saturating_duration_since(began));
        let waiter = Some(waiter);
        let pending = Pending { part, began, ask_at: now + PATIENCE, patience: PATIENCE, waiter };
        state.pending.insert(id, pending);
        if let Some((at, status)) = state.early.remove(&id) {
            state.settle(id, status, at);
        }
        settled
    }

    /// Notes that an order was not accepted.
    pub fn failed(&self, part: usize, error: String) {
        *self.lock().parts[part].errors.entry(error).or_default() += 1;
    }

    /// Notes outcomes of orders.
    pub fn settled(&self, outcomes: &[(Uuid, Status)], at: Instant, source: Source) {
        let mut state = self.lock();
        if source == Source::Feed {
            state.last_told = at;
        }
        for (id, status) in outcomes {
            if state.settle(*id, *status, at) {
                state.asked += u64::from(source == Source::Asked);
            } else if source == Source::Feed {
                state.early.insert(*id, (at, *status));
            }
        }
    }

    /// Notes that the order service does not know an order that it had accepted.
    pub fn lost(&self, id: Uuid) {
        let mut state = self.lock();
        if let Some(pending) = state.pending.remove(&id) {
            state.parts[pending.part].lost += 1;
        }
    }

    /// Returns at most `most` orders without news for too long. Each of them waits twice as long before the next time.
    pub fn overdue(&self, now: Instant, most: usize) -> Vec<Uuid> {
        let mut state = self.lock();
        state.early.retain(|_, (at, _)| now.saturating_duration_since(*at) < KEEP);
        let overdue = state.pending.iter_mut().filter(|(_, pending)| pending.ask_at <= now).take(most);
        overdue
            .map(|(id, pending)| {
                pending.patience *= 2;
                pending.ask_at = now + pending.patience;
                *id
            })
            .collect()
    }

    /// Returns every order that was accepted, sorted by id.
    pub fn all_accepted(&self) -> Vec<Uuid> {
        let mut accepted = self.lock().accepted.clone();
        accepted.sort_unstable();
        accepted
    }

    /// Returns every order that is under way.
    pub fn pending(&self) -> Vec<Uuid> {
        self.lock().pending.keys().copied().collect()
    }

    /// Returns when the last outcome came from the feed.
    pub fn last_told(&self) -> Instant {
        self.lock().last_told
    }

    pub fn standing(&self) -> Standing {
        let state = self.lock();
        Standing {
            placed: state.parts.iter().map(|part| part.placed).sum(),
            settled: state.settled,
            errors: state.parts.iter().map(Tally::error_count).sum(),
            pending: state.pending.len(),
        }
    }

    /// Returns how many outcomes were learned by a request.
    pub fn asked(&self) -> u64 {
        self.lock().asked
    }

    /// Returns the counts of each part.
    pub fn parts(&self) -> Vec<Tally> {
        self.lock().parts.clone()
    }
}

impl State {
    /// Notes an order's outcome. Returns false if the order was not under way, or is still pending.
    fn settle(&mut self, id: Uuid, status: Status, at: Instant) -> bool {
        if status == Status::Pending {
            return false;
        }
        let Some(pending) = self.pending.remove(&id) else { return false };
        let tally = &mut self.parts[pending.part];
        match status {
            Status::Rejected => tally.rejected += 1,
            Status::Confirmed | Status::Pending => tally.confirmed += 1,
        }
        tally.settle.note(at.saturating_duration_since(pending.began));
        tally.last_settled = tally.last_settled.max(Some(at));
        self.settled += 1;
        if let Some(waiter) = pending.waiter {
            // The waiting client may have stopped.
            let _ = waiter.send(());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    #[test]
    fn latencies_count_from_the_scheduled_time() {
        let board = Board::new(2).expect("room");
        let scheduled = Instant::now();
        let ms = |ms| scheduled + Duration::from_millis(ms);
        let mut waiter = board.accepted(id(1), 1, scheduled, ms(100));
        assert!(waiter.try_recv().is_err(), "it has not settled");
        board.settled(&[(id(1), Status::Confirmed)], ms(300), Source::Feed);
        assert!(waiter.try_recv().is_ok());
        let part = &board.parts()[1];
        assert_eq!((part.placed, part.confirmed, part.unsettled()), (1, 1, 0));
        assert!(part.accept.max_ms().is_some_and(|ms| (100.0..101.0).contains(&ms)));
        assert!(part.settle.max_ms().is_some_and(|ms| (300.0..301.0).contains(&ms)));
    }

    #[test]
    fn an_outcome_that_is_quicker_than_the_answer_counts_once_and_at_its_time() {
        let board = Board::new(1).expect("room");
        let began = Instant::now();
        board.settled(&[(id(1), Status::Rejected)], began + Duration::from_millis(10), Source::Feed);
        assert_eq!(board.standing().settled, 0, "whose it is is not known yet");
        let mut waiter = board.accepted(id(1), 0, began, began + Duration::from_millis(20));
        assert!(waiter.try_recv().is_ok());
        board.settled(&[(id(1), Status::Rejected)], began + Duration::from_millis(30), Source::Asked);
        let part = &board.parts()[0];
        assert_eq!((part.rejected, board.asked(), board.standing().pending), (1, 0, 0));
        assert!(part.settle.max_ms().is_some_and(|ms| ms < 11.0));
    }

    #[test]
    fn an_order_without_news_is_asked_for_less_and_less_often() {
        let board = Board::new(1).expect("room");
        let began = Instant::now();
        let _waiter = board.accepted(id(1), 0, began, began);
        let asked_at = |seconds| board.overdue(began + Duration::from_secs(seconds), 10).len();
        assert_eq!([4, 5, 14, 15, 34, 35].map(asked_at), [0, 1, 0, 1, 0, 1]);
        board.settled(&[(id(1), Status::Pending)], began, Source::Asked);
        assert_eq!((board.parts()[0].unsettled(), board.all_accepted()), (1, vec![id(1)]));
        board.lost(id(1));
        assert_eq!((board.parts()[0].lost, board.parts()[0].unsettled()), (1, 0));
    }
}
