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

mod against;
pub mod baseline;
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

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use shared::service::config::duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::against::{Comparison, Round};
use self::per_order::PerOrder;
pub use self::plan::{Parts, positive, rate};
use self::plan::{Rates, rates, share};
use self::report::{Phase, Report, Settings};
use self::run::{Readings, Run};
use self::tally::{Tally, rounded};
use crate::api::Api;
use crate::audit::{self, Verdict};
use crate::output::complain;
use crate::run::Where;

const USUAL_DURATION: Duration = Duration::from_secs(60);
/// The share of orders that the yardstick declines, so that of a comparison too.
const USUALLY_DECLINED: f64 = 0.05;

/// Places orders at a rate or from clients.
#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("loop").required(true).args(["rate", "clients"])),
    after_help = "Examples:\n  \
        amends load --rate 300                              a constant rate for a minute\n  \
        amends load --rate 100:60s,1000:30s,100:60s         a burst\n  \
        amends load --clients 500 --duration 60s --json run.json\n  \
        amends load --clients 2000 --against-baseline       in turn with a yardstick, three times\n\n\
        The yardstick of --against-baseline does the same business by plain SQL on the suite's PostgreSQL, without saga and\n\
        broker. Machines differ by a factor of three from day to day, so quote the ratios. Nothing else may use the suite\n\
        meanwhile, or the figures mean nothing. `amends bench baseline --help` says more.\n\n\
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
    /// Measure a yardstick and the suite in turn, each with the warm-up and the duration, and print the ratios. With
    /// --clients the yardstick has 128 clients, with --rate the same rate.
    #[arg(long)]
    against_baseline: bool,
    /// With --against-baseline, how often both are measured.
    #[arg(long, value_name = "N", default_value_t = 3, requires = "against_baseline", value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Write the report to this file too, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    topics: audit::Topics,
}

/// Returns the runtime of a load generator. It has two workers only, because what is measured shares the machine.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// Writes figures to a file as one JSON object, if there is a file.
pub fn write_json(figures: &impl Serialize, file: Option<&Path>) -> anyhow::Result<()> {
    let Some(file) = file else { return Ok(()) };
    let text = serde_json::to_string_pretty(figures)? + "\n";
    std::fs::write(file, text).with_context(|| format!("can't write {}", file.display()))
}

/// Ends with an error that names the failures, if there are any.
pub fn succeed(failures: &[String]) -> anyhow::Result<()> {
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
}

impl Load {
    pub fn run(self) -> anyhow::Result<()> {
        runtime()?.block_on(self.measure())
    }

    /// Returns the plan of the run, or an error if the flags contradict each other.
    fn parts(&self) -> anyhow::Result<Parts> {
        if self.declined + self.out_of_stock > 1.0 {
            bail!("--declined and --out-of-stock are together more than 100%");
        }
        if self.against_baseline && (self.declined != USUALLY_DECLINED || self.out_of_stock != 0.0) {
            bail!(
                "the yardstick declines 5% and is never out of stock, so leave --declined and --out-of-stock out"
            );
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
        Ok(Parts::new(rates, self.warmup, &durations))
    }

    async fn measure(self) -> anyhow::Result<()> {
        let parts = self.parts()?;
        if self.against_baseline {
            return self.compare(&parts).await;
        }
        let report = self.measure_suite(&parts).await?;
        report.print();
        write_json(&report, self.json.as_deref())?;
        succeed(&report.failures())
    }

    /// Measures the suite once, and audits it.
    async fn measure_suite(&self, parts: &Parts) -> anyhow::Result<Report> {
        let usual = audit::Scope::of(&self.place.suite, &self.topics)?;
        let api = Arc::new(Api::new(&self.place.suite));
        let mix = stock::fill(&api, parts.orders(), self.declined, self.out_of_stock).await?;
        let mut run = Run::begin(&api, mix, parts).await?;
        let readings = run.measure(&self.place, parts, self.clients, self.settle_timeout).await?;
        run.end().await?;
        let accepted = run.board.all_accepted();
        let scope = audit::Scope { patience: self.settle_timeout, accepted, ..usual };
        let verdict = audit::wait_until_quiescent(&api, &scope).await;
        self.report(parts, &run, &readings, verdict)
    }

    /// Measures the yardstick and the suite in turn. Ctrl-C ends the comparison; a round that is not complete does not count.
    async fn compare(&self, parts: &Parts) -> anyhow::Result<()> {
        let clients = self.clients.map(|_| baseline::CLIENTS);
        let setting =
            clients.map_or_else(|| "the same rate".to_owned(), |clients| format!("{clients} clients"));
        let stopped = CancellationToken::new();
        let mut listening = JoinSet::new();
        listening.spawn({
            let stopped = stopped.clone();
            async move {
                if tokio::signal::ctrl_c().await.is_ok() {
                    stopped.cancel();
                }
            }
        });
        let mut rounds = Vec::new();
        for number in 1..=self.rounds {
            complain!("round {number} of {}: the yardstick, with {setting}", self.rounds);
            let yardstick = baseline::measure(&self.place, parts, clients).await?;
            if stopped.is_cancelled() {
                break;
            }
            complain!("round {number} of {}: the suite", self.rounds);
            let suite = self.measure_suite(parts).await?;
            if stopped.is_cancelled() {
                break;
            }
            let round = Round::new(yardstick, suite);
            round.print(number);
            rounds.push(round);
        }
        if rounds.is_empty() {
            bail!("stopped before the first round was complete");
        }
        let comparison = Comparison::new(self.settings(parts), setting, rounds, stopped.is_cancelled());
        comparison.print();
        write_json(&comparison, self.json.as_deref())?;
        succeed(&comparison.failures())
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
        assert!(
            refused("--rate 5 --declined 10% --against-baseline")
                .is_some_and(|said| said.contains("yardstick"))
        );
        assert!(refused("--rate 5 --rounds 2").is_some_and(|said| said.contains("--against-baseline")));
        assert_eq!(refused("--rate 5 --against-baseline --rounds 2"), None);
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
