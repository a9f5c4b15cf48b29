//! Counts the connections and requests that were refused because they broke a bound, and logs them in moderation: a flood of
//! them must not flood the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::metric::HTTP_REFUSED;

/// The log has at most one entry in this time.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// The bound that a connection or a request broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The head of a request did not come in time.
    HeadTimeout,
    /// The body of a request did not come in time.
    BodyTimeout,
    /// The body of a request is too large.
    BodyTooLarge,
    /// The client did not take the answer in time.
    WriteTimeout,
    /// The connection made room for a new one.
    Displaced,
    /// A new connection came while all others had a request.
    TooManyConnections,
    /// The process may open no further file.
    NoFile,
    /// The request was still running some time after the stop.
    Stopping,
}

impl Refusal {
    const ALL: [Self; 8] = [
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::BodyTooLarge,
        Self::WriteTimeout,
        Self::Displaced,
        Self::TooManyConnections,
        Self::NoFile,
        Self::Stopping,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::WriteTimeout => "write_timeout",
            Self::Displaced => "displaced",
            Self::TooManyConnections => "too_many_connections",
            Self::NoFile => "no_file",
            Self::Stopping => "stopping",
        }
    }
}

static SINCE_REPORT: Mutex<Tally> = Mutex::new(Tally { counts: [0; Refusal::ALL.len()], reported: None });

/// What was refused since the last entry of the log.
struct Tally {
    counts: [u64; Refusal::ALL.len()],
    reported: Option<Instant>,
}

impl Tally {
    /// Returns the text of the next entry, if it is time for one and something was refused.
    fn take_report(&mut self, now: Instant) -> Option<String> {
        let early = self.reported.is_some_and(|last| now.duration_since(last) < REPORT_EVERY);
        if early || self.counts.iter().all(|count| *count == 0) {
            return None;
        }
        self.reported = Some(now);
        let counts = std::mem::take(&mut self.counts);
        let refused = Refusal::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
        let refused: Vec<String> =
            refused.map(|(refusal, count)| format!("{} {count}", refusal.as_str())).collect();
        Some(refused.join(", "))
    }
}

/// Counts refusals of a kind.
pub(super) fn refused(refusal: Refusal, count: u64) {
    if count == 0 {
        return;
    }
    HTTP_REFUSED.counter(&[refusal.as_str()]).increment(count);
    SINCE_REPORT.lock().unwrap_or_else(PoisonError::into_inner).counts[refusal as usize] += count;
    report();
}

/// Logs what was refused since the last entry, unless that is only a moment ago.
pub(super) fn report() {
    let report = SINCE_REPORT.lock().unwrap_or_else(PoisonError::into_inner).take_report(Instant::now());
    if let Some(refused) = report {
        warn!(%refused, "HTTP connections or requests were refused; docs/http.md#limits explains each word");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_entry_in_ten_seconds_that_counts_everything() {
        let mut tally = Tally { counts: [0; Refusal::ALL.len()], reported: None };
        let begin = Instant::now();
        assert_eq!(tally.take_report(begin), None, "nothing was refused");
        tally.counts[Refusal::HeadTimeout as usize] += 1;
        assert_eq!(tally.take_report(begin).as_deref(), Some("head_timeout 1"));
        tally.counts[Refusal::HeadTimeout as usize] += 1000;
        tally.counts[Refusal::Displaced as usize] += 7;
        assert_eq!(tally.take_report(begin + REPORT_EVERY / 2), None);
        let later = begin + REPORT_EVERY;
        assert_eq!(tally.take_report(later).as_deref(), Some("head_timeout 1000, displaced 7"));
        assert_eq!(tally.take_report(later + REPORT_EVERY), None);
    }

    #[test]
    fn each_refusal_has_the_place_of_its_count() {
        for (index, refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(*refusal as usize, index);
        }
    }
}
