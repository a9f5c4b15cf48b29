//! A circuit breaker around the calls to an external dependency, for example a card provider, a carrier or a mail
//! server.
//! While a dependency does not answer, it is called once in a while instead of once per waiting step. An outage
//! therefore costs few calls, and its end is noticed within half a minute.
//!
//! - **Closed**: every call is made. [`IN_A_ROW`] unanswered calls one after the other open the circuit. So do more
//!   than half of the last [`WINDOW`] calls. A business refusal counts as an answer.
//! - **Open**: no call is made, at first for [`FIRST_OPEN`]. The period doubles with each trial that fails, up to
//!   [`LONGEST_OPEN`].
//! - **Half-open**: one call at a time is made as a trial. An answer closes the circuit. A trial without an answer
//!   opens it again.
//!
//! The result of a call counts only for the circuit period in which the call began. Calls that were under way when
//! the circuit opened therefore do not affect the trial after it.
//!
//! [`Breaker`] is the pure state machine; its caller passes the time in. [`Dependency`] is a named breaker that
//! several tasks share. It sets the gauge `circuit_breaker_state{dependency}`: 0 is closed, 1 is half-open, 2 is
//! open. It also counts how often the circuit opened in `circuit_breaker_opened_total{dependency}`. Every process has
//! its own breakers. Replicas need not agree, because each of them learns within a few calls.
//!
//! The crates for this purpose (`failsafe`, `recloser`) hide their state and let any number of calls through while
//! half-open. A step that waits in the database must know for how long, so this module is written here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::metric;

/// This many unanswered calls, one after the other, open the circuit.
pub const IN_A_ROW: u32 = 5;
/// The circuit also opens if more than half of this many last calls were unanswered. With fewer calls this rule does
/// not apply.
pub const WINDOW: u32 = 20;
/// How long the circuit stays open at first.
pub const FIRST_OPEN: Duration = Duration::from_secs(1);
/// How long the circuit stays open at most before the next trial.
pub const LONGEST_OPEN: Duration = Duration::from_secs(30);

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Every call is made.
    Closed,
    /// No call is made.
    Open {
        /// The earliest time of the next trial.
        until: Instant,
    },
    /// A trial is under way, or the next call is one.
    HalfOpen,
}

/// The state machine of a circuit. It has no clock: the caller passes `now`, which must never go back.
#[derive(Debug)]
pub struct Breaker {
    circuit: Circuit,
    /// The number of the current circuit period. Every change of the circuit begins a new one.
    number: u64,
}

#[derive(Debug, Clone, Copy)]
enum Circuit {
    Closed(Window),
    Open { until: Instant, open_for: Duration },
    Trial { open_for: Duration },
}

/// The last calls, one bit each; the newest is the lowest bit. An unanswered call is a one.
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

/// A call that has begun. Pass it to [`Breaker::end`] or [`Breaker::give_up`].
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl Default for Breaker {
    fn default() -> Self {
        Self { circuit: Circuit::Closed(Window::default()), number: 0 }
    }
}

impl Breaker {
    /// Returns whether calls are made at `now`.
    pub fn state(&self, now: Instant) -> State {
        match self.circuit {
            Circuit::Closed(_) => State::Closed,
            Circuit::Open { until, .. } if now < until => State::Open { until },
            Circuit::Open { .. } | Circuit::Trial { .. } => State::HalfOpen,
        }
    }

    /// Returns how many calls may begin now, before any of them has ended.
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
    /// Returns the time of the next attempt if no call may be made now.
    pub fn begin(&mut self, now: Instant) -> Result<Ticket, Instant> {
        match self.circuit {
            Circuit::Closed(_) => {}
            Circuit::Open { until, .. } if now < until => return Err(until),
            Circuit::Open { open_for, .. } => self.change(Circuit::Trial { open_for }),
            Circuit::Trial { .. } => return Err(now + FIRST_OPEN),
        }
        Ok(Ticket(self.number))
    }

    /// Ends a call, answered or not. Returns the new state if the call changed it.
    pub fn end(&mut self, ticket: Ticket, answered: bool, now: Instant) -> Option<State> {
        if ticket.0 != self.number {
            return None;
        }
        match &mut self.circuit {
            Circuit::Closed(window) => {
                window.add(answered);
                // An answer never opens the circuit, even if it fills the window with more than half unanswered.
                if answered || !window.is_silent() {
                    return None;
                }
                self.open(FIRST_OPEN, now);
            }
            Circuit::Trial { .. } if answered => self.change(Circuit::Closed(Window::default())),
            Circuit::Trial { open_for } => {
                let longer = (*open_for * 2).min(LONGEST_OPEN);
                self.open(longer, now);
            }
            // This cannot happen: a ticket has the number of a circuit that lets calls through.
            Circuit::Open { .. } => return None,
        }
        Some(self.state(now))
    }

    /// Ends a call whose result is unknown. If it was the trial, the next call becomes the trial.
    pub fn give_up(&mut self, ticket: Ticket, now: Instant) {
        if let Circuit::Trial { open_for } = self.circuit
            && ticket.0 == self.number
        {
            self.change(Circuit::Open { until: now, open_for });
        }
    }

    fn open(&mut self, open_for: Duration, now: Instant) {
        self.change(Circuit::Open { until: now + open_for, open_for });
    }

    fn change(&mut self, circuit: Circuit) {
        self.circuit = circuit;
        self.number += 1;
    }
}

/// A named external dependency, with the circuit breaker that all its callers share.
pub struct Dependency {
    name: &'static str,
    breaker: Mutex<Breaker>,
    circuit: metrics::Gauge,
    opened: metrics::Counter,
}

impl Dependency {
    /// Creates the dependency with a closed circuit.
    pub fn new(name: &'static str) -> Self {
        let dependency = Self {
            name,
            breaker: Mutex::default(),
            circuit: metric::CIRCUIT_BREAKER_STATE.gauge(&[name]),
            opened: metric::CIRCUIT_BREAKER_OPENED.counter(&[name]),
        };
        dependency.set_gauge(State::Closed);
        // The counter must exist before the circuit first opens, so that a rate over it is correct.
        dependency.opened.increment(0);
        dependency
    }

    /// Begins a call.
    ///
    /// # Errors
    /// Returns the wait until the next attempt if no call may be made now.
    pub fn begin(self: &Arc<Self>) -> Result<Call, Duration> {
        let now = Instant::now();
        let mut breaker = self.lock();
        let ticket = breaker.begin(now).map_err(|until| until.saturating_duration_since(now))?;
        self.set_gauge(breaker.state(now));
        Ok(Call { dependency: Arc::clone(self), ticket: Some(ticket) })
    }

    /// Returns how many calls may begin now. See [`Breaker::room`].
    pub fn room(&self) -> usize {
        self.lock().room(Instant::now())
    }

    /// Returns how long no call will be made from now on. It is zero while calls are made or a trial is due.
    pub fn open_for(&self) -> Duration {
        let now = Instant::now();
        match self.lock().state(now) {
            State::Open { until } => until.saturating_duration_since(now),
            State::Closed | State::HalfOpen => Duration::ZERO,
        }
    }

    /// Returns the state in a sentence for operators.
    pub fn describe(&self) -> String {
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
        self.set_gauge(state);
        let dependency = self.name;
        match state {
            State::Open { until } => {
                self.opened.increment(1);
                let open_for = until.saturating_duration_since(now);
                warn!(
                    dependency,
                    ?open_for,
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

    fn set_gauge(&self, state: State) {
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

/// A call that may be made now. If it is dropped before [`Call::end`], its result counts as unknown.
#[must_use = "a call that is dropped says nothing about its dependency"]
pub struct Call {
    dependency: Arc<Dependency>,
    ticket: Option<Ticket>,
}

impl Call {
    /// Records whether the dependency answered.
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
