//! All open connections, and which of them have to go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Limits;
use super::connection::{Phase, Watched};
use crate::service::http::refusals::{self, Refusal, refused};

/// How long a client may take to close the connection after its last answer.
const CLOSING: Duration = Duration::from_secs(2);

/// Of so many connections the one that has waited longest makes room. The longest waiting of all would need a look at all of
/// them for each new connection.
const LOOK_AT: usize = 32;

/// All open connections. Some may have ended since the last look.
pub(super) struct Registry {
    connections: Vec<Arc<Watched>>,
    limits: Limits,
    zero: Instant,
    /// Where the next look for a connection that makes room begins.
    next: usize,
}

impl Registry {
    pub fn new(limits: Limits, zero: Instant) -> Self {
        Self { connections: Vec::new(), limits, zero, next: 0 }
    }

    /// Adds a new connection.
    pub fn add(&mut self) -> Arc<Watched> {
        if self.connections.len() > 2 * self.limits.connections {
            self.forget_ended();
        }
        let watched = Arc::new(Watched::new(self.zero));
        self.connections.push(Arc::clone(&watched));
        watched
    }

    fn forget_ended(&mut self) {
        self.connections.retain(|connection| connection.phase().0 != Phase::Ended);
    }

    /// Cuts off the connections whose time is over.
    pub fn look(&mut self) {
        self.forget_ended();
        let now = self.zero.elapsed();
        let over = |since: u64, limit: Duration| now.saturating_sub(Duration::from_millis(since)) > limit;
        let (mut heads, mut writes) = (0, 0);
        for connection in &self.connections {
            let (phase, since) = connection.phase();
            let late = match phase {
                Phase::New | Phase::Head => over(since, self.limits.head),
                Phase::Idle => over(since, self.limits.idle),
                Phase::Closing => over(since, CLOSING),
                Phase::Busy | Phase::Cut | Phase::Ended => false,
            };
            if connection.stalled_since().is_some_and(|since| over(since, self.limits.write)) {
                connection.cut();
                writes += 1;
            } else if phase == Phase::Closing && late {
                connection.cut();
            } else if late && connection.displace() && phase != Phase::Idle {
                heads += 1;
            }
        }
        refused(Refusal::HeadTimeout, heads);
        refused(Refusal::WriteTimeout, writes);
        refusals::report();
    }

    /// Closes a connection that waits for a request, to make room. Returns whether there was one. Connections without any
    /// request yet go first.
    pub fn displace(&mut self) -> bool {
        let length = self.connections.len();
        let mut looked_at = 0;
        while looked_at < length {
            let window = LOOK_AT.min(length - looked_at);
            let window = (0..window).map(|offset| &self.connections[(self.next + offset) % length]);
            let waiting = window.clone().filter_map(|connection| {
                let (phase, since) = connection.phase();
                phase.is_waiting().then_some(((phase != Phase::New, since), connection))
            });
            let displaced = waiting.min_by_key(|(rank, _)| *rank).is_some_and(|(_, one)| one.displace());
            looked_at += LOOK_AT;
            self.next = (self.next + LOOK_AT) % length;
            if displaced {
                return true;
            }
        }
        false
    }

    /// Asks all connections to end with the request that is being answered.
    pub fn stop(&self) {
        self.connections.iter().for_each(|connection| connection.stop());
    }
}
