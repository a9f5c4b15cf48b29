//! The counts and latencies of one part of a run: the warm-up, or a phase.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;

/// Latencies are kept in microseconds, exact to three digits, up to ten minutes. A longer latency counts as ten minutes.
const LONGEST_MICROS: u64 = 600_000_000;

/// A distribution of latencies.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> anyhow::Result<Self> {
        Histogram::new_with_bounds(1, LONGEST_MICROS, 3).map(Self).context("no room for latencies")
    }

    pub fn note(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST_MICROS).max(1));
    }

    /// Returns a percentile in milliseconds, or `None` if there are no latencies.
    pub fn percentile_ms(&self, percent: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| rounded(self.0.value_at_percentile(percent) as f64 / 1000.0))
    }

    /// Returns the longest latency in milliseconds, exact to three digits.
    pub fn max_ms(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| rounded(self.0.max() as f64 / 1000.0))
    }
}

/// Rounds to two decimal places.
pub fn rounded(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

/// The counts of one part.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Orders that the order service has accepted.
    pub placed: u64,
    pub confirmed: u64,
    pub rejected: u64,
    /// Orders that were accepted, and that the order service does not know later.
    pub lost: u64,
    /// Requests that were not accepted, by failure.
    pub errors: BTreeMap<String, u64>,
    pub accept: Latencies,
    pub settle: Latencies,
    pub last_settled: Option<Instant>,
}

impl Tally {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            placed: 0,
            confirmed: 0,
            rejected: 0,
            lost: 0,
            errors: BTreeMap::new(),
            accept: Latencies::new()?,
            settle: Latencies::new()?,
            last_settled: None,
        })
    }

    /// Returns the number of accepted orders that are neither settled nor lost.
    pub fn unsettled(&self) -> u64 {
        self.placed - self.confirmed - self.rejected - self.lost
    }

    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Adds another part to this one.
    pub fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.placed += other.placed;
        self.confirmed += other.confirmed;
        self.rejected += other.rejected;
        self.lost += other.lost;
        for (what, count) in &other.errors {
            *self.errors.entry(what.clone()).or_default() += count;
        }
        self.accept.0.add(&other.accept.0)?;
        self.settle.0.add(&other.settle.0)?;
        self.last_settled = self.last_settled.max(other.last_settled);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_noted() {
        let mut latencies = Latencies::new().expect("room");
        assert_eq!((latencies.percentile_ms(50.0), latencies.max_ms()), (None, None));
        for ms in 1..=1000 {
            latencies.note(Duration::from_millis(ms));
        }
        let near = |percent, ms: f64| {
            let found = latencies.percentile_ms(percent).expect("a figure");
            assert!((found - ms).abs() <= ms / 500.0, "p{percent} is {found}, not {ms}");
        };
        near(50.0, 500.0);
        near(95.0, 950.0);
        near(99.0, 990.0);
        assert!(latencies.max_ms().is_some_and(|max| (1000.0..1002.0).contains(&max)));
    }

    #[test]
    fn a_latency_beyond_all_bounds_is_the_longest_one() {
        let mut latencies = Latencies::new().expect("room");
        latencies.note(Duration::from_secs(3600));
        assert!(latencies.max_ms().is_some_and(|max| max >= 600_000.0));
    }

    #[test]
    fn parts_add_up() {
        let mut all = Tally::new().expect("room");
        for (placed, ms) in [(3, 10), (5, 20)] {
            let mut part = Tally::new().expect("room");
            (part.placed, part.confirmed) = (placed, 1);
            part.errors.insert("503".to_owned(), 2);
            part.settle.note(Duration::from_millis(ms));
            all.add(&part).expect("same bounds");
        }
        assert_eq!((all.placed, all.unsettled(), all.error_count()), (8, 6, 4));
        assert!(all.settle.max_ms() > Some(19.0));
    }
}
