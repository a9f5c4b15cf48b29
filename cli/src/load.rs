//! `amends load`: places orders, measures how they settle, and audits the suite at the end.
//!
//! With `--rate` the loop is open: each order is due at a time of a schedule, and its latencies count from that time. So a
//! suite that falls behind shows in the latencies, without coordinated omission. With `--clients` the loop is closed: each
//! client places an order, waits until it has settled, and places the next one. Its latencies count from sending.
//!
//! An order is *accepted* when the order service answers 202. It is *settled* when this program learns its outcome. It
//! learns most outcomes from the order service's feed, which sends them after the commit. If the feed says nothing about
//! an order, the program asks for the order.
//!
//! Latencies are those of the orders placed between the end of the warm-up and the end of placing. The rate is the number
//! of orders that settled in that time, divided by the time. CPU, commits and messages are counted from the end of the
//! warm-up until the last order has settled, and divided by the orders that settled in that time. At its beginning some
//! orders of the warm-up are under way, and at its end some closing steps of the last orders. The two balance each other.

mod board;
mod counters;
mod feed;
mod meter;
mod mix;
mod per_order;
mod place;
mod plan;
mod processes;
mod report;
mod run;
mod stock;
mod tally;
mod terminal;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};
use shared::service::config::duration;

use self::per_order::PerOrder;
use self::plan::{Parts, Rates, positive, rates, share};
use self::report::{Phase, Report, Settings};
use self::run::{Readings, Run};
use self::tally::{Tally, rounded};
use crate::api::Api;
use crate::audit::{self, Verdict};
use crate::run::Where;

const USUAL_DURATION: Duration = Duration::from_secs(60);

/// Places orders at a rate or from clients.
#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("loop").required(true).args(["rate", "clients"])),
    after_help = "Examples:\n  \
        amends load --rate 300                              a constant rate for a minute\n  \
        amends load --rate 100:60s,1000:30s,100:60s         a burst\n  \
        amends load --clients 500 --duration 60s --json run.json\n\n\
        The exit code is 1 if an order is lost or has not settled, or if an invariant of the audit does not hold."
)]
pub struct Load {
    /// Open loop: place orders at this rate, however slowly they settle. A list changes the rate in phases, for example
    /// 100:60s,1000:30s,100:60s. Latencies count from the time at which an order was due.
    #[arg(long, value_name = "ORDERS/S", value_parser = rates)]
    rate: Option<Rates>,
    /// Closed loop: place orders from this many clients. Each waits until its order has settled before it places the next.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    clients: Option<u16>,
    /// How long to place orders after the warm-up; by default 60s. The phases of --rate have their own durations.
    #[arg(long, value_parser = positive)]
    duration: Option<Duration>,
    /// How long to place orders that are not measured, before the others.
    #[arg(long, default_value = "10s", value_parser = duration)]
    warmup: Duration,
    /// The share of orders whose card is declined.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = share)]
    declined: f64,
    /// The share of orders for a product that is sold out.
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = share)]
    out_of_stock: f64,
    /// How long to wait for the last orders to settle.
    #[arg(long, default_value = "60s", value_parser = duration)]
    settle_timeout: Duration,
    /// Write the report to this file too, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    topics: audit::Topics,
}

impl Load {
    pub fn run(self) -> anyhow::Result<()> {
        // Two workers only, because the suite under test shares the machine.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(self.measure())
    }

    /// Returns the plan of the run, or an error if the flags contradict each other.
    fn parts(&self) -> anyhow::Result<Parts> {
        if self.declined + self.out_of_stock > 1.0 {
            bail!("--declined and --out-of-stock are together more than 100%");
        }
        let usual = self.duration.unwrap_or(USUAL_DURATION);
        let phases = self.rate.as_ref().map_or(&[][..], |rates| &rates.0);
        if self.duration.is_some() && phases.iter().any(|phase| phase.lasts.is_some()) {
            bail!("--rate says how long each phase lasts, so --duration can't be given too");
        }
        let durations: Vec<Duration> = if phases.is_empty() {
            vec![usual]
        } else {
            phases.iter().map(|phase| phase.lasts.unwrap_or(usual)).collect()
        };
        let rates = phases.iter().map(|phase| phase.rate).collect();
        Ok(Parts { rates, bounds: plan::bounds(self.warmup, &durations) })
    }

    async fn measure(self) -> anyhow::Result<()> {
        let parts = self.parts()?;
        let api = Arc::new(Api::new(&self.place.suite));
        let mix = stock::fill(&api, parts.orders(), self.declined, self.out_of_stock).await?;
        let mut run = Run::begin(&api, mix, &parts).await?;
        let readings = run.measure(&self.place, &parts, self.clients, self.settle_timeout).await?;
        run.end().await?;
        let usual = audit::Scope::of(&self.place.suite, &self.topics);
        let accepted = run.board.all_accepted();
        let scope = audit::Scope { patience: self.settle_timeout, accepted, ..usual };
        let verdict = audit::wait_until_quiescent(&api, &scope).await;
        let report = self.report(&parts, &run, &readings, verdict)?;
        report.print();
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&report)? + "\n";
            std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))?;
        }
        let failures = report.failures();
        if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
    }

    /// Computes the figures of a run.
    fn report(
        &self,
        parts: &Parts,
        run: &Run,
        readings: &Readings,
        verdict: Verdict,
    ) -> anyhow::Result<Report> {
        let marks = &readings.marks;
        let tallies = run.board.parts();
        let (warmup, measured) = tallies.split_first().context("a run has parts")?;
        let mut all = Tally::new()?;
        for tally in measured {
            all.add(tally)?;
        }
        let phase = |(index, tally): (usize, &Tally)| {
            let (begin, end) = parts.bounds[index + 1];
            let moment = |since_began: Duration| (readings.began + since_began).min(marks.end);
            let (begin, end) = (moment(begin), moment(end));
            Phase::new(tally, parts.rates.get(index).copied(), end - begin, end)
        };
        let per_order = PerOrder::between(&marks.first, &readings.last);
        let lasted = marks.end.saturating_duration_since(marks.at).as_secs_f64();
        let settled = marks.settled.saturating_sub(marks.first.settled);
        Ok(Report {
            settings: self.settings(parts),
            ended_early: run.stop.is_cancelled(),
            counts: (&all).into(),
            errors_by: all.errors.clone(),
            settled_per_s: if lasted > 0.0 { rounded(settled as f64 / lasted) } else { 0.0 },
            latencies: (&all).into(),
            drained_s: report::drained(&all, marks.end),
            cpu_ms_per_order: per_order.cpu_ms,
            rss_mb: readings.memory.into(),
            commits_per_order: per_order.commits,
            writing_commits_per_order: per_order.writing_commits,
            messages_per_order: per_order.messages,
            audit: verdict.into(),
            phases: measured.iter().enumerate().map(phase).collect(),
            warmup: warmup.into(),
            asked: run.board.asked(),
            feed_gaps: run.feed.gaps.load(Ordering::Relaxed),
        })
    }

    fn settings(&self, parts: &Parts) -> Settings {
        Settings {
            clients: self.clients.map(usize::from),
            rates_per_s: self.rate.is_some().then(|| parts.rates.clone()),
            duration_s: rounded((parts.end() - self.warmup).as_secs_f64()),
            warmup_s: rounded(self.warmup.as_secs_f64()),
            declined: self.declined,
            out_of_stock: self.out_of_stock,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        load: Load,
    }

    fn parse(arguments: &str) -> Result<Load, clap::Error> {
        Line::try_parse_from(std::iter::once("load").chain(arguments.split(' '))).map(|line| line.load)
    }

    #[test]
    fn a_run_is_an_open_or_a_closed_loop() {
        assert!(parse("--warmup 1s").is_err(), "neither");
        assert!(parse("--rate 5 --clients 5").is_err(), "both");
        assert!(parse("--clients 0").is_err());
        let closed = parse("--clients 5").expect("good").parts().expect("good");
        assert!(closed.rates.is_empty());
        assert_eq!(closed.end(), Duration::from_secs(70));
        assert_eq!(closed.orders(), 70 * 5000);
    }

    #[test]
    fn contradicting_flags_are_refused_with_the_reason() {
        let refused = |arguments: &str| match parse(arguments) {
            Ok(load) => load.parts().err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        assert!(refused("--rate 5:1s --duration 2s").is_some_and(|said| said.contains("--duration")));
        assert!(
            refused("--rate 5 --declined 60% --out-of-stock 60%").is_some_and(|said| said.contains("100%"))
        );
        assert!(refused("--rate 0").is_some_and(|said| said.contains("more than 0")));
        assert!(refused("--rate 5 --declined 120%").is_some_and(|said| said.contains("0% to 100%")));
        assert_eq!(refused("--rate 5 --duration 2s"), None);
    }

    #[test]
    fn stock_is_for_the_warm_up_and_every_phase() {
        let load = parse("--rate 10:1s,100:2s --warmup 3s").expect("good");
        assert_eq!(load.parts().expect("good").orders(), 30 + 10 + 200);
    }
}
