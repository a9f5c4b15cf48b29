//! The figures of the yardstick, as JSON and as a table. What the suite's report has too has the same name.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Serialize;

use super::super::board::Board;
use super::super::meter::Marks;
use super::super::per_order::PerOrder;
use super::super::plan::Parts;
use super::super::report::{self, Counts, Latencies, Settings, show};
use super::super::tally::{Tally, rounded};
use super::sums::Sums;
use crate::output::say;

/// The share of accounts without credit.
const DECLINED: f64 = 0.05;

/// A suite without orders uses less than this many processors.
const IDLE_CORES: f64 = 0.25;

/// The figures. An unknown one is null.
#[derive(Debug, Serialize)]
pub struct Baseline {
    pub settings: Settings,
    pub ended_early: bool,
    #[serde(flatten)]
    pub counts: Counts,
    pub errors_by: BTreeMap<String, u64>,
    pub settled_per_s: f64,
    #[serde(flatten)]
    pub latencies: Latencies,
    pub drained_s: Option<f64>,
    pub cpu_ms_per_order: Cpu,
    pub commits_per_order: Option<f64>,
    /// The few of the suite at rest count too.
    pub writing_commits_per_order: Option<f64>,
    /// How many processors the suite's services and Kafka have used meanwhile.
    pub suite_cores: Option<f64>,
    pub sums: Sums,
    pub warmup: Counts,
    /// What the program has complained about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub complaints: String,
}

/// The CPU time of an order. The total does not include the generator, which is this process.
#[derive(Debug, Serialize)]
pub struct Cpu {
    pub total: Option<f64>,
    pub program: Option<f64>,
    pub postgres: Option<f64>,
    pub generator: Option<f64>,
}

impl Baseline {
    pub fn new(
        parts: &Parts,
        clients: Option<u16>,
        ended_early: bool,
        board: &Board,
        marks: &Marks,
        per_order: PerOrder,
        sums: Sums,
    ) -> anyhow::Result<Self> {
        let tallies = board.parts();
        let mut measured = Tally::new()?;
        for tally in tallies.iter().skip(1) {
            measured.add(tally)?;
        }
        let lasted = marks.end.saturating_duration_since(marks.at).as_secs_f64();
        let settled = marks.settled.saturating_sub(marks.first.settled) as f64;
        let cpu = per_order.cpu_ms;
        Ok(Self {
            settings: Settings {
                clients: clients.map(usize::from),
                rates_per_s: clients.is_none().then(|| parts.rates.clone()),
                duration_s: rounded((parts.end() - parts.warmup()).as_secs_f64()),
                warmup_s: rounded(parts.warmup().as_secs_f64()),
                declined: DECLINED,
                out_of_stock: 0.0,
            },
            ended_early,
            counts: (&measured).into(),
            errors_by: measured.errors.clone(),
            settled_per_s: if lasted > 0.0 { rounded(settled / lasted) } else { 0.0 },
            latencies: (&measured).into(),
            drained_s: report::drained(&measured, marks.end),
            // The program has the place of the services.
            cpu_ms_per_order: Cpu {
                total: cpu.total,
                program: cpu.services,
                postgres: cpu.postgres,
                generator: cpu.generator,
            },
            commits_per_order: per_order.commits,
            writing_commits_per_order: per_order.writing_commits,
            suite_cores: None,
            sums,
            warmup: tallies.first().context("a run has parts")?.into(),
            complaints: String::new(),
        })
    }

    /// Returns the reasons why the run has failed; empty if it has not.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = self.sums.failures();
        if !self.complaints.is_empty() && !failures.is_empty() {
            failures.push(format!("its program said: {}", self.complaints));
        }
        failures
    }

    /// Prints the figures.
    pub fn print(&self) {
        report::outcomes(self.ended_early, &self.counts, &self.errors_by);
        report::settled(self.settled_per_s, self.drained_s);
        report::latencies("", &self.latencies);
        let Cpu { total, program, postgres, generator } = &self.cpu_ms_per_order;
        say!(
            "cpu ms/order  {} (program {}, postgres {}), without the generator's {}",
            show(*total),
            show(*program),
            show(*postgres),
            show(*generator)
        );
        if total.is_none() {
            say!("              -: the processes of PostgreSQL were not found on this machine");
        }
        say!(
            "per order     {} commits, {} of them writing",
            show(self.commits_per_order),
            show(self.writing_commits_per_order)
        );
        if let Some(cores) = self.suite_cores {
            let busy = if cores > IDLE_CORES { ": it was busy, so these figures mean little" } else { "" };
            say!("beside it     the suite used {cores} processors{busy}");
        }
        let word = |holds| if holds { "adds up" } else { "DOES NOT ADD UP" };
        let Sums { completed, rejected, unfinished, .. } = &self.sums;
        say!(
            "check         money {}, stock {}; with the warm-up {completed} orders completed, {rejected} rejected, \
             {unfinished} unfinished",
            word(self.sums.money()),
            word(self.sums.stock())
        );
    }
}
