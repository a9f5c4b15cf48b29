//! `amends load`: places orders, measures what becomes of them, and audits the suite at the end.
//!
//! With `--rate` the loop is open: each order has its time on a schedule, and its latencies count from that time, so a
//! suite that falls behind shows in them (there is no coordinated omission). With `--clients` it is closed: each client
//! places an order, waits until it has settled, and goes on; latencies count from sending.
//!
//! *Accepted* is the order service's 202. *Settled* is when this program hears of the outcome: from the order service's
//! feed, which tells after the commit, or, for what the feed did not tell, by asking for the order.
//!
//! Latencies are those of the orders placed between the end of the warm-up and the end of placing. The rate is what
//! settled in that time, divided by it. CPU, commits and messages are counted from the end of the warm-up until the
//! last order has settled, and divided by the orders that settled in that time: at its beginning some orders of the
//! warm-up are under way, at its end some of the last ones' closing steps, and the two make up for each other.

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
mod stock;
mod tally;
mod terminal;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::board::Board;
use self::counters::Database;
use self::feed::Feed;
use self::meter::{Meter, mark};
use self::per_order::PerOrder;
use self::place::{MOST_AT_ONCE, Placing};
use self::plan::{Rates, positive, rates, share};
use self::processes::Processes;
use self::report::{Phase, Report, Settings};
use self::tally::{Tally, rounded};
use crate::api::{self, Api};
use crate::audit;
use crate::run::Where;
use shared::service::config::duration;

/// For how many orders a second of a closed loop there is to be stock.
const CLOSED_LOOP_AT_MOST: f64 = 5000.0;
const USUAL_DURATION: Duration = Duration::from_secs(60);

/// Places orders at a rate or from clients.
#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("loop").required(true).args(["rate", "clients"])),
    after_help = "Examples:\n  \
        amends load --rate 300                              a constant rate for a minute\n  \
        amends load --rate 100:60s,1000:30s,100:60s         a burst\n  \
        amends load --clients 500 --duration 60s --json run.json\n\n\
        The exit code is 1 if an order is lost or has not settled, or if a statement of the audit does not hold."
)]
pub struct Load {
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    topics: audit::Topics,
    /// Place so many orders a second, whatever becomes of them (open loop): `100`, or in phases
    /// `100:60s,1000:30s,100:60s`. Latencies count from the time that an order was due.
    #[arg(long, value_name = "ORDERS/S", value_parser = rates)]
    rate: Option<Rates>,
    /// Place orders from so many clients, each of which waits for its order to settle (closed loop).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    clients: Option<u16>,
    /// How long to place orders after the warm-up; 60s unless given. Phases of --rate bring their own.
    #[arg(long, value_parser = positive)]
    duration: Option<Duration>,
    /// How long to place orders before that, which are not measured.
    #[arg(long, default_value = "10s", value_parser = duration)]
    warmup: Duration,
    /// Of how many orders the card is declined.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = share)]
    declined: f64,
    /// How many orders are for a product that is sold out.
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = share)]
    out_of_stock: f64,
    /// How long to wait for the last orders to settle.
    #[arg(long, default_value = "60s", value_parser = duration)]
    settle_timeout: Duration,
    /// Write the report to this file too, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How long each part lasts, and at which rate.
struct Parts {
    /// Empty in a closed loop.
    rates: Vec<f64>,
    /// The warm-up first, since the beginning of the run.
    bounds: Vec<(Duration, Duration)>,
}

impl Parts {
    fn end(&self) -> Duration {
        self.bounds.last().map_or(Duration::ZERO, |(_, end)| *end)
    }

    /// The most orders that are to be expected.
    fn orders(&self) -> u64 {
        let first = self.rates.first().copied().unwrap_or(CLOSED_LOOP_AT_MOST);
        let rates = std::iter::once(first).chain(self.rates.iter().copied()).chain(std::iter::repeat(first));
        rates
            .zip(&self.bounds)
            .map(|(rate, (begin, end))| (rate * (*end - *begin).as_secs_f64()).ceil() as u64)
            .sum()
    }
}

impl Load {
    pub fn run(self) -> anyhow::Result<()> {
        // Two workers: the suite that is measured shares the machine.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(self.measure())
    }

    /// What is asked for, once it is clear that it makes sense.
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
        let board = Arc::new(Board::new(parts.bounds.len())?);
        let client = api::client();
        let feed = Arc::new(Feed::new(&api, &client, &board));
        let first = feed.open().await?;
        let meter = Meter {
            api: Arc::clone(&api),
            board: Arc::clone(&board),
            processes: Processes::find(&self.place),
            database: Database::open(&self.place.suite).await,
        };
        let (stop, over) = (CancellationToken::new(), CancellationToken::new());
        let mut helpers = JoinSet::new();
        helpers.spawn({
            let (feed, over) = (Arc::clone(&feed), over.clone());
            async move { feed.follow(first, over).await }
        });
        helpers.spawn({
            let (feed, over) = (Arc::clone(&feed), over.clone());
            async move { feed.ask(over).await }
        });
        helpers.spawn(terminal::show_progress(Arc::clone(&board), over.clone()));
        helpers.spawn(terminal::end_on_signal(stop.clone(), over.clone()));

        let placing = Arc::new(Placing {
            client,
            url: api.url("order", "/orders"),
            mix,
            board: Arc::clone(&board),
            turns: Semaphore::new(MOST_AT_ONCE),
            number: AtomicU64::new(0),
            stop: stop.clone(),
        });
        let began = Instant::now();
        let mut marking = JoinSet::new();
        marking.spawn(mark(meter, began + self.warmup, began + parts.end(), stop.clone()));
        match self.clients {
            Some(clients) => {
                let (measured, end) = (began + self.warmup, began + parts.end());
                placing.closed_loop(usize::from(clients), measured, end).await?;
            }
            None => placing.open_loop(began, plan::schedule(&parts.rates, &parts.bounds)).await?,
        }
        let marks = marking.join_next().await.context("the readings were not taken")??;
        feed.drain(self.settle_timeout).await;
        let mut meter = marks.meter;
        let last = meter.read().await;
        // Evidence for anew: what was started again in the run uses memory too.
        let memory = Processes::find(&self.place).memory_mb();
        over.cancel();
        while let Some(ended) = helpers.join_next().await {
            ended?;
        }
        let usual = audit::Scope::of(&self.place.suite, &self.topics);
        let scope = audit::Scope { patience: self.settle_timeout, accepted: board.all_accepted(), ..usual };
        let verdict = audit::wait_until_quiescent(&api, &scope).await;

        let tallies = board.parts();
        let (warmup, measured) = tallies.split_first().context("a run has parts")?;
        let mut all = Tally::new()?;
        for tally in measured {
            all.add(tally)?;
        }
        let phase = |(index, tally): (usize, &Tally)| {
            let (begin, end) = parts.bounds[index + 1];
            let (begin, end) = ((began + begin).min(marks.end), (began + end).min(marks.end));
            Phase::new(tally, parts.rates.get(index).copied(), end - begin, end)
        };
        let per_order = PerOrder::between(&marks.first, &last);
        let lasted = marks.end.saturating_duration_since(marks.at).as_secs_f64();
        let settled = marks.settled.saturating_sub(marks.first.settled);
        let report = Report {
            settings: self.settings(&parts),
            ended_early: stop.is_cancelled(),
            counts: (&all).into(),
            errors_by: all.errors.clone(),
            settled_per_s: if lasted > 0.0 { rounded(settled as f64 / lasted) } else { 0.0 },
            latencies: (&all).into(),
            drained_s: report::drained(&all, marks.end),
            cpu_ms_per_order: per_order.cpu_ms,
            rss_mb: memory.into(),
            commits_per_order: per_order.commits,
            writing_commits_per_order: per_order.writing_commits,
            messages_per_order: per_order.messages,
            audit: verdict.into(),
            phases: measured.iter().enumerate().map(phase).collect(),
            warmup: warmup.into(),
            asked: board.asked(),
            feed_gaps: feed.gaps.load(Ordering::Relaxed),
        };
        report.print();
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&report)? + "\n";
            std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))?;
        }
        let failures = report.failures();
        if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
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
    fn what_contradicts_itself_is_refused_with_the_reason() {
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
