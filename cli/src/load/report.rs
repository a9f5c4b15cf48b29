//! The report of a run, as JSON and as a table.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::processes::Usage;
use super::tally::{Tally, rounded};
use crate::audit::{Invariant, Verdict};
use crate::output::say;

/// The report. An unknown figure is null.
#[derive(Debug, Serialize)]
pub struct Report {
    pub settings: Settings,
    /// Whether the placing was stopped early.
    pub ended_early: bool,
    #[serde(flatten)]
    pub counts: Counts,
    /// Requests that were not accepted, by HTTP status or by the failure of the connection.
    pub errors_by: BTreeMap<String, u64>,
    pub settled_per_s: f64,
    #[serde(flatten)]
    pub latencies: Latencies,
    /// The time from the end of placing until the last order had settled.
    pub drained_s: Option<f64>,
    pub cpu_ms_per_order: Figures,
    pub rss_mb: Figures,
    /// All transactions of PostgreSQL in the services' databases, including those that only read.
    pub commits_per_order: Option<f64>,
    /// The transactions that wrote something.
    pub writing_commits_per_order: Option<f64>,
    pub messages_per_order: Option<f64>,
    pub audit: Audit,
    /// Each phase of `--rate`; a single one if there are no phases.
    pub phases: Vec<Phase>,
    pub warmup: Counts,
    /// How many outcomes were learned by a request for the order. Their latencies are upper bounds.
    pub asked: u64,
    /// How often the feed of settled orders broke off or skipped outcomes.
    pub feed_gaps: u64,
}

/// The settings of the run.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    pub clients: Option<usize>,
    pub rates_per_s: Option<Vec<f64>>,
    pub duration_s: f64,
    pub warmup_s: f64,
    pub declined: f64,
    pub out_of_stock: f64,
}

/// The number of orders by outcome.
#[derive(Debug, Serialize)]
pub struct Counts {
    pub placed: u64,
    pub confirmed: u64,
    pub rejected: u64,
    pub unsettled: u64,
    pub lost: u64,
    pub errors: u64,
}

impl From<&Tally> for Counts {
    fn from(tally: &Tally) -> Self {
        Self {
            placed: tally.placed,
            confirmed: tally.confirmed,
            rejected: tally.rejected,
            unsettled: tally.unsettled(),
            lost: tally.lost,
            errors: tally.error_count(),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Latencies {
    pub accept_p50_ms: Option<f64>,
    pub accept_p99_ms: Option<f64>,
    pub settle_p50_ms: Option<f64>,
    pub settle_p95_ms: Option<f64>,
    pub settle_p99_ms: Option<f64>,
    pub settle_max_ms: Option<f64>,
}

impl From<&Tally> for Latencies {
    fn from(tally: &Tally) -> Self {
        Self {
            accept_p50_ms: tally.accept.percentile_ms(50.0),
            accept_p99_ms: tally.accept.percentile_ms(99.0),
            settle_p50_ms: tally.settle.percentile_ms(50.0),
            settle_p95_ms: tally.settle.percentile_ms(95.0),
            settle_p99_ms: tally.settle.percentile_ms(99.0),
            settle_max_ms: tally.settle.max_ms(),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Phase {
    pub rate_per_s: Option<f64>,
    pub duration_s: f64,
    #[serde(flatten)]
    pub counts: Counts,
    #[serde(flatten)]
    pub latencies: Latencies,
    /// The time from the end of the phase until the last of its orders had settled.
    pub drained_s: Option<f64>,
}

impl Phase {
    pub fn new(tally: &Tally, rate: Option<f64>, lasted: Duration, end: Instant) -> Self {
        Self {
            rate_per_s: rate,
            duration_s: rounded(lasted.as_secs_f64()),
            counts: tally.into(),
            latencies: tally.into(),
            drained_s: drained(tally, end),
        }
    }
}

/// Returns how long after `end` the last order settled, or `None` if an order has not settled.
pub fn drained(tally: &Tally, end: Instant) -> Option<f64> {
    let last = tally.last_settled.filter(|_| tally.unsettled() == 0)?;
    Some(rounded(last.saturating_duration_since(end).as_secs_f64()))
}

/// A figure for each part of the suite, and for this program. The total does not include this program.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub total: Option<f64>,
    pub services: Option<f64>,
    pub kafka: Option<f64>,
    pub postgres: Option<f64>,
    pub generator: Option<f64>,
}

impl From<Usage<f64>> for Figures {
    fn from(usage: Usage<f64>) -> Self {
        let total = || Some(usage.services? + usage.kafka? + usage.postgres?);
        let total = total().map(three);
        Self {
            total,
            services: usage.services.map(three),
            kafka: usage.kafka.map(three),
            postgres: usage.postgres.map(three),
            generator: usage.generator.map(three),
        }
    }
}

pub fn three(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

#[derive(Debug, Serialize)]
pub struct Audit {
    pub money: Option<bool>,
    pub stock: Option<bool>,
    /// All nine invariants. Money and stock are the first two.
    pub statements: Vec<Invariant>,
    pub findings: Vec<String>,
}

impl From<Verdict> for Audit {
    fn from(verdict: Verdict) -> Self {
        let (money, stock) = (verdict.of_number(1), verdict.of_number(2));
        Self { money, stock, statements: verdict.invariants, findings: verdict.findings }
    }
}

impl Report {
    /// Returns the reasons why the run has failed; empty if it has not.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let both = [&self.counts, &self.warmup];
        let unsettled: u64 = both.iter().map(|counts| counts.unsettled).sum();
        if unsettled > 0 {
            failures.push(format!("{unsettled} orders have not settled"));
        }
        let lost: u64 = both.iter().map(|counts| counts.lost).sum();
        if lost > 0 {
            failures.push(format!("{lost} orders were accepted and are lost"));
        }
        for (what, holds) in [("money", self.audit.money), ("stock", self.audit.stock)] {
            match holds {
                Some(true) => {}
                Some(false) => failures.push(format!("{what} does not add up")),
                None => {
                    failures.push(format!("{what} could not be audited, because orders were still under way"))
                }
            }
        }
        // An invariant that can't be judged yet is in the findings, and is not a failure.
        for broken in self.audit.statements.iter().filter(|one| one.number > 2 && one.holds == Some(false)) {
            failures.push(format!("invariant {} of the audit does not hold: {}", broken.number, broken.says));
        }
        failures
    }

    /// Prints the report.
    pub fn print(&self) {
        outcomes(self.ended_early, &self.counts, &self.errors_by);
        settled(self.settled_per_s, self.drained_s);
        latencies("", &self.latencies);
        if self.phases.len() > 1 {
            for phase in &self.phases {
                let Counts { placed, unsettled, errors, .. } = &phase.counts;
                say!(
                    "phase         {} a second for {} s: {placed} placed, {unsettled} unsettled, {errors} errors; drained {} s after it",
                    show(phase.rate_per_s),
                    phase.duration_s,
                    show(phase.drained_s)
                );
                latencies("  ", &phase.latencies);
            }
        }
        figures("cpu ms/order", &self.cpu_ms_per_order);
        figures("rss MB", &self.rss_mb);
        say!(
            "per order     {} commits, {} of them writing; {} messages",
            show(self.commits_per_order),
            show(self.writing_commits_per_order),
            show(self.messages_per_order)
        );
        if self.cpu_ms_per_order.total.is_none() {
            say!(
                "              -: the processes were not found on this machine, or were restarted during the run"
            );
        }
        if self.asked > 0 || self.feed_gaps > 0 {
            say!(
                "feed          {} gaps; {} outcomes were learned late, by a request for the order",
                self.feed_gaps,
                self.asked
            );
        }
        let word = |holds| match holds {
            Some(true) => "adds up",
            Some(false) => "DOES NOT ADD UP",
            None => "not compared",
        };
        let others = self.audit.statements.iter().filter(|one| one.number > 2);
        let holding = others.filter(|one| one.holds == Some(true)).count();
        say!(
            "audit         money {}, stock {}; {holding} of the seven other invariants hold",
            word(self.audit.money),
            word(self.audit.stock)
        );
        for finding in &self.audit.findings {
            say!("              {finding}");
        }
    }
}

/// Prints what became of the orders.
pub fn outcomes(ended_early: bool, counts: &Counts, errors_by: &BTreeMap<String, u64>) {
    let Counts { placed, confirmed, rejected, unsettled, lost, errors } = counts;
    if ended_early {
        say!("stopped early; these are the figures up to then");
    }
    say!(
        "orders        {placed} placed: {confirmed} confirmed, {rejected} rejected, {unsettled} unsettled, {lost} lost"
    );
    let by: Vec<String> = errors_by.iter().map(|(what, count)| format!("{what}: {count}")).collect();
    say!(
        "errors        {errors}{}",
        if by.is_empty() { String::new() } else { format!(" ({})", by.join(", ")) }
    );
}

pub fn settled(per_s: f64, drained_s: Option<f64>) {
    say!("settled       {per_s} a second; the last {} s after the end of placing", show(drained_s));
}

pub fn latencies(indent: &str, of: &Latencies) {
    say!("{indent}accept ms     p50 {}, p99 {}", show(of.accept_p50_ms), show(of.accept_p99_ms));
    say!(
        "{indent}settle ms     p50 {}, p95 {}, p99 {}, max {}",
        show(of.settle_p50_ms),
        show(of.settle_p95_ms),
        show(of.settle_p99_ms),
        show(of.settle_max_ms)
    );
}

fn figures(what: &str, of: &Figures) {
    say!(
        "{what:<13} {} (services {}, kafka {}, postgres {}), without the generator's {}",
        show(of.total),
        show(of.services),
        show(of.kafka),
        show(of.postgres),
        show(of.generator)
    );
}

/// Returns a figure as text; one that is not known is a dash.
pub fn show(figure: Option<f64>) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| figure.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_drained_when_its_last_order_has_settled() {
        let end = Instant::now();
        let mut tally = Tally::new().expect("room");
        (tally.placed, tally.confirmed) = (2, 2);
        tally.last_settled = Some(end + Duration::from_millis(1500));
        assert_eq!(drained(&tally, end), Some(1.5));
        assert_eq!(drained(&tally, end + Duration::from_secs(9)), Some(0.0));
        tally.placed = 3;
        assert_eq!(drained(&tally, end), None, "one is still under way");
    }
}
