//! The cost of an order: what was used and done between two readings, divided by the orders that settled in between.

use super::counters::Commits;
use super::processes::{Usage, milliseconds};
use super::report::Figures;
use super::tally::rounded;
use crate::suite::SERVICES;

/// What the suite had used and done up to a moment.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Orders that had settled.
    pub settled: u64,
    pub ticks: Usage<u64>,
    /// The messages that each service has published.
    pub published: Option<[u64; SERVICES.len()]>,
    pub commits: Option<Commits>,
}

/// What was used and done for each order that settled between two readings.
#[derive(Debug)]
pub struct PerOrder {
    pub cpu_ms: Figures,
    pub commits: Option<f64>,
    pub writing_commits: Option<f64>,
    pub messages: Option<f64>,
}

impl PerOrder {
    pub fn between(first: &Reading, last: &Reading) -> Self {
        let orders = last.settled.saturating_sub(first.settled);
        let each = |amount: f64| (orders > 0).then(|| amount / orders as f64);
        // A counter that has gone back belongs to a restarted process, and its former value is lost.
        let grown = |first: Option<u64>, last: Option<u64>| last?.checked_sub(first?);
        let cpu = |first, last| each(milliseconds(grown(first, last)?));
        let since = |field: fn(&Commits) -> i64| {
            let (first, last) = (first.commits.as_ref()?, last.commits.as_ref()?);
            each((field(last) - field(first)) as f64).map(rounded)
        };
        Self {
            cpu_ms: Usage {
                services: cpu(first.ticks.services, last.ticks.services),
                kafka: cpu(first.ticks.kafka, last.ticks.kafka),
                postgres: cpu(first.ticks.postgres, last.ticks.postgres),
                generator: cpu(first.ticks.generator, last.ticks.generator),
            }
            .into(),
            commits: since(|commits| commits.all),
            writing_commits: since(|commits| commits.writing),
            messages: messages(first, last).and_then(|sent| each(sent as f64)).map(rounded),
        }
    }
}

/// Returns how many messages were published between two readings, or `None` if a service was restarted in between.
fn messages(first: &Reading, last: &Reading) -> Option<u64> {
    if first.ticks.services.is_some() && last.ticks.services.is_none() {
        return None;
    }
    first.published?.iter().zip(last.published?).map(|(first, last)| last.checked_sub(*first)).sum()
}

#[cfg(test)]
mod tests {
    use super::super::report::three;
    use super::*;

    fn reading(settled: u64, ticks: u64) -> Reading {
        let ticks = Usage {
            services: Some(ticks),
            kafka: Some(ticks * 2),
            postgres: Some(ticks * 3),
            generator: Some(9),
        };
        let commits = Some(Commits { all: settled as i64 * 10, writing: settled as i64 * 4 });
        Reading { settled, ticks, published: Some([settled * 20, 0, 0, 0, 0, 0]), commits }
    }

    #[test]
    fn usage_is_divided_by_the_orders_that_settled() {
        let per = PerOrder::between(&reading(100, 1000), &reading(300, 1400));
        let services = milliseconds(400) / 200.0;
        assert_eq!(per.cpu_ms.services, Some(three(services)));
        assert_eq!(per.cpu_ms.total, Some(three(services * 6.0)), "the generator is not part of it");
        assert_eq!((per.commits, per.writing_commits, per.messages), (Some(10.0), Some(4.0), Some(20.0)));
    }

    #[test]
    fn unknown_usage_has_no_figure() {
        let none = PerOrder::between(&reading(100, 1000), &reading(100, 1400));
        assert_eq!((none.cpu_ms.total, none.messages), (None, None), "nothing has settled");
        let mut last = reading(300, 1400);
        last.ticks.kafka = None;
        last.published = Some([5, 9_999_999, 0, 0, 0, 0]);
        let per = PerOrder::between(&reading(100, 1000), &last);
        assert_eq!((per.cpu_ms.total, per.cpu_ms.kafka, per.messages), (None, None, None));
        assert!(per.cpu_ms.postgres.is_some());
        let mut last = reading(300, 1400);
        last.ticks.services = None;
        assert_eq!(
            PerOrder::between(&reading(100, 1000), &last).messages,
            None,
            "a service was started again"
        );
    }
}
