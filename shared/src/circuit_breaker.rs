//! A circuit breaker around the calls of an external dependency (card provider, carrier, mail server). A dependency that
//! does not answer is called once in a while instead of once per waiting step, so that an outage costs little here and there, and its end
//! is noticed within half a minute.
//!
//! - **Closed**: every call is made. [`IN_A_ROW`] unanswered calls one after the other open the circuit, and so do more
//!   than half of the last [`WINDOW`]. What the business says, yes or no, is an answer.
//! - **Open**: no call is made, at first for [`FIRST_REST`], each time that a trial fails for twice as long, up to
//!   [`LONGEST_REST`].
//! - **Half-open**: one call at a time is made as a trial. An answer closes the circuit; none opens it again.
//!
//! A call says how it ended for the circuit under which it was begun: what was under way when the circuit opened says
//! nothing of the trial after it.
//!
//! [`Breaker`] is the pure state machine, which is told the time. [`Dependency`] is a breaker by name that several tasks
//! share, with its metrics: the gauge `circuit_breaker_state{dependency}` is 0 while closed, 1 while half-open and 2 while open,
//! and the counter `circuit_breaker_opened_total{dependency}` says how often it has opened. Every process has breakers of
//! its own: replicas need not agree, since each learns within a few calls.
//!
//! It is written here because the crates for it (`failsafe`, `recloser`) keep their state to themselves and let any
//! number of calls through while half-open; a step that rests in the database must know for how long.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::metric;

/// So many unanswered calls one after the other open the circuit.
pub const IN_A_ROW: u32 = 5;
/// Of so many calls, the last ones, more than half unanswered open the circuit too. Fewer calls than these say nothing.
pub const WINDOW: u32 = 20;
/// How long the circuit is open at first.
pub const FIRST_REST: Duration = Duration::from_secs(1);
/// How long the circuit is open at most before the next trial.
pub const LONGEST_REST: Duration = Duration::from_secs(30);

/// Whether calls are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Every call is made.
    Closed,
    /// No call is made.
    Open {
        /// From then on one may be tried.
        until: Instant,
    },
    /// A trial is under way, or the next call is one.
    HalfOpen,
}

/// The state machine of a circuit. It has no clock: `now` is the caller's, and never goes back.
#[derive(Debug)]
pub struct Breaker {
    circuit: Circuit,
    /// Which circuit it is, counted from one change to the next.
    number: u64,
}

#[derive(Debug, Clone, Copy)]
enum Circuit {
    Closed(Window),
    Open { until: Instant, rest: Duration },
    Trial { rest: Duration },
}

/// The last calls, a bit each, the newest the lowest; a call without an answer is a one.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    unanswered: u32,
    calls: u32,
}

impl Window {
    fn add(&mut self, answered: bool) {
        self.unanswered = ((self.unanswered << 1) | u32::from(!answered)) & ((1 << WINDOW) - 1);
        self.calls = (self.calls + 1).min(WINDOW);
    }

    fn is_silent(self) -> bool {
        let most = self.calls == WINDOW && self.unanswered.count_ones() > WINDOW / 2;
        most || self.unanswered.trailing_ones() >= IN_A_ROW
    }
}

/// A call that was begun; see [`Breaker::end`].
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl Default for Breaker {
    fn default() -> Self {
        Self { circuit: Circuit::Closed(Window::default()), number: 0 }
    }
}

impl Breaker {
    /// Whether calls are made.
    pub fn state(&self, now: Instant) -> State {
        match self.circuit {
            Circuit::Closed(_) => State::Closed,
            Circuit::Open { until, .. } if now < until => State::Open { until },
            Circuit::Open { .. } | Circuit::Trial { .. } => State::HalfOpen,
        }
    }

    /// How many calls may be begun now, as far as is known before the first of them ends.
    pub fn room(&self, now: Instant) -> usize {
        match self.circuit {
            Circuit::Closed(_) => usize::MAX,
            Circuit::Open { until, .. } => usize::from(now >= until),
            Circuit::Trial { .. } => 0,
        }
    }

    /// Begins a call.
    ///
    /// # Errors
    /// If it must not be made now: when to ask again.
    pub fn begin(&mut self, now: Instant) -> Result<Ticket, Instant> {
        match self.circuit {
            Circuit::Closed(_) => {}
            Circuit::Open { until, .. } if now < until => return Err(until),
            Circuit::Open { rest, .. } => self.change(Circuit::Trial { rest }),
            Circuit::Trial { .. } => return Err(now + FIRST_REST),
        }
        Ok(Ticket(self.number))
    }

    /// Ends a call, answered or not. The new state, if that changes it.
    pub fn end(&mut self, ticket: Ticket, answered: bool, now: Instant) -> Option<State> {
        if ticket.0 != self.number {
            return None;
        }
        match &mut self.circuit {
            Circuit::Closed(window) => {
                window.add(answered);
                // The answer that makes the window full is no reason to stop calling, whatever was before it.
                if answered || !window.is_silent() {
                    return None;
                }
                self.open(FIRST_REST, now);
            }
            Circuit::Trial { .. } if answered => self.change(Circuit::Closed(Window::default())),
            Circuit::Trial { rest } => {
                let longer = (*rest * 2).min(LONGEST_REST);
                self.open(longer, now);
            }
            // A ticket has the number of a circuit that lets calls through.
            Circuit::Open { .. } => return None,
        }
        Some(self.state(now))
    }

    /// Ends a call of which nobody knows what became of it. After a trial the next call is one.
    pub fn give_up(&mut self, ticket: Ticket, now: Instant) {
        if let Circuit::Trial { rest } = self.circuit
            && ticket.0 == self.number
        {
            self.change(Circuit::Open { until: now, rest });
        }
    }

    fn open(&mut self, rest: Duration, now: Instant) {
        self.change(Circuit::Open { until: now + rest, rest });
    }

    fn change(&mut self, circuit: Circuit) {
        self.circuit = circuit;
        self.number += 1;
    }
}

/// An external dependency by its name, with the breaker that all its callers share.
pub struct Dependency {
    name: &'static str,
    breaker: Mutex<Breaker>,
    circuit: metrics::Gauge,
    opened: metrics::Counter,
}

impl Dependency {
    /// The circuit is closed.
    pub fn new(name: &'static str) -> Self {
        let dependency = Self {
            name,
            breaker: Mutex::default(),
            circuit: metric::CIRCUIT_BREAKER_STATE.gauge(&[name]),
            opened: metric::CIRCUIT_BREAKER_OPENED.counter(&[name]),
        };
        dependency.show(State::Closed);
        // So that it is there before it first opens.
        dependency.opened.increment(0);
        dependency
    }

    /// Begins a call.
    ///
    /// # Errors
    /// If it must not be made now: for how long.
    pub fn begin(self: &Arc<Self>) -> Result<Call, Duration> {
        let now = Instant::now();
        let mut breaker = self.lock();
        let ticket = breaker.begin(now).map_err(|until| until.saturating_duration_since(now))?;
        self.show(breaker.state(now));
        Ok(Call { dependency: Arc::clone(self), ticket: Some(ticket) })
    }

    /// See [`Breaker::room`].
    pub fn room(&self) -> usize {
        self.lock().room(Instant::now())
    }

    /// For how long no call is made from now on; nothing of it while calls are, or may be.
    pub fn rest(&self) -> Duration {
        let now = Instant::now();
        match self.lock().state(now) {
            State::Open { until } => until.saturating_duration_since(now),
            State::Closed | State::HalfOpen => Duration::ZERO,
        }
    }

    /// How it stands, for people.
    pub fn standing(&self) -> String {
        let now = Instant::now();
        let name = self.name;
        match self.lock().state(now) {
            State::Closed => format!("{name} is called: the circuit is closed"),
            State::HalfOpen => format!("{name} is tried: the circuit is half-open"),
            State::Open { until } => {
                let wait = until.saturating_duration_since(now).as_secs() + 1;
                format!("{name} does not answer: the circuit is open, the next call is tried within {wait} s")
            }
        }
    }

    fn end(&self, ticket: Ticket, answered: bool) {
        let now = Instant::now();
        let mut breaker = self.lock();
        let Some(state) = breaker.end(ticket, answered, now) else { return };
        self.show(state);
        let dependency = self.name;
        match state {
            State::Open { until } => {
                self.opened.increment(1);
                let rest = until.saturating_duration_since(now);
                warn!(
                    dependency,
                    ?rest,
                    "the dependency does not answer; the circuit is open, and no call is made"
                );
            }
            State::Closed => info!(dependency, "the dependency answers again; the circuit is closed"),
            State::HalfOpen => {}
        }
    }

    fn give_up(&self, ticket: Ticket) {
        self.lock().give_up(ticket, Instant::now());
    }

    fn show(&self, state: State) {
        self.circuit.set(match state {
            State::Closed => 0.0,
            State::HalfOpen => 1.0,
            State::Open { .. } => 2.0,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that may be made now. Dropped before it is said how it ended, it says nothing about its dependency.
#[must_use = "a call that is dropped says nothing about its dependency"]
pub struct Call {
    dependency: Arc<Dependency>,
    ticket: Option<Ticket>,
}

impl Call {
    /// There was an answer, or there was none.
    pub fn end(mut self, answered: bool) {
        if let Some(ticket) = self.ticket.take() {
            self.dependency.end(ticket, answered);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.dependency.give_up(ticket);
        }
    }
}

#[cfg(test)]
mod tests;
