//! The comparison of the suite and the yardstick: both in turn, several times.

use serde::Serialize;

use super::baseline::Baseline;
use super::report::{Latencies, Report, Settings, show};
use super::tally::rounded;
use crate::output::say;

/// The comparison. An unknown figure is null.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The settings of the suite's runs. Those of the yardstick's are in each of its reports.
    pub settings: Settings,
    pub yardstick: String,
    pub rounds: Vec<Round>,
    pub medians: Option<Medians>,
    /// The medians of the rounds' ratios.
    pub ratios: Option<Figures>,
    /// Whether it was stopped before the last round.
    pub ended_early: bool,
}

/// One run of each.
#[derive(Debug, Serialize)]
pub struct Round {
    pub yardstick: Baseline,
    pub suite: Report,
    /// The suite's figures divided by the yardstick's.
    pub ratios: Figures,
}

#[derive(Debug, Serialize)]
pub struct Medians {
    pub yardstick: Figures,
    pub suite: Figures,
}

/// What is compared: of one run, or the ratios of two.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    pub settled_per_s: Option<f64>,
    pub settle_p50_ms: Option<f64>,
    pub settle_p99_ms: Option<f64>,
    pub cpu_ms_per_order: Option<f64>,
}

impl From<&Report> for Figures {
    fn from(report: &Report) -> Self {
        Self::new(report.settled_per_s, &report.latencies, report.cpu_ms_per_order.total)
    }
}

impl From<&Baseline> for Figures {
    fn from(report: &Baseline) -> Self {
        Self::new(report.settled_per_s, &report.latencies, report.cpu_ms_per_order.total)
    }
}

impl Figures {
    fn new(settled_per_s: f64, latencies: &Latencies, cpu_ms_per_order: Option<f64>) -> Self {
        Self {
            settled_per_s: Some(settled_per_s),
            settle_p50_ms: latencies.settle_p50_ms,
            settle_p99_ms: latencies.settle_p99_ms,
            cpu_ms_per_order,
        }
    }

    /// Divides each figure by the other's. A figure that one of them lacks has no ratio.
    fn over(self, other: Self) -> Self {
        let divide = |this: Option<f64>, other: Option<f64>| {
            let other = other.filter(|other| *other > 0.0)?;
            Some(rounded(this? / other))
        };
        Self {
            settled_per_s: divide(self.settled_per_s, other.settled_per_s),
            settle_p50_ms: divide(self.settle_p50_ms, other.settle_p50_ms),
            settle_p99_ms: divide(self.settle_p99_ms, other.settle_p99_ms),
            cpu_ms_per_order: divide(self.cpu_ms_per_order, other.cpu_ms_per_order),
        }
    }

    /// Returns the median of each figure.
    fn medians(all: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> Option<f64>| median(all.iter().map(figure).collect());
        Self {
            settled_per_s: of(|one| one.settled_per_s),
            settle_p50_ms: of(|one| one.settle_p50_ms),
            settle_p99_ms: of(|one| one.settle_p99_ms),
            cpu_ms_per_order: of(|one| one.cpu_ms_per_order),
        }
    }

    fn line(self) -> String {
        format!(
            "{} orders/s, p50 {} ms, p99 {} ms, CPU {} ms an order",
            show(self.settled_per_s),
            show(self.settle_p50_ms),
            show(self.settle_p99_ms),
            show(self.cpu_ms_per_order)
        )
    }

    fn ratio_line(self) -> String {
        format!(
            "{} of the orders/s, {} times the p50, {} times the p99, {} times the CPU of an order",
            show(self.settled_per_s),
            show(self.settle_p50_ms),
            show(self.settle_p99_ms),
            show(self.cpu_ms_per_order)
        )
    }
}

/// Returns the median, or `None` if a figure is missing or there is none. Of two in the middle it is their mean.
fn median(figures: Vec<Option<f64>>) -> Option<f64> {
    let mut figures = figures.into_iter().collect::<Option<Vec<f64>>>()?;
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    let upper = figures.get(middle)?;
    let odd = figures.len() % 2 == 1;
    let lower = if odd { upper } else { figures.get(middle.checked_sub(1)?)? };
    Some(rounded((lower + upper) / 2.0))
}

impl Round {
    pub fn new(yardstick: Baseline, suite: Report) -> Self {
        let ratios = Figures::from(&suite).over(Figures::from(&yardstick));
        Self { yardstick, suite, ratios }
    }

    /// Prints both sides.
    pub fn print(&self, number: u16) {
        say!("round {number:<8}yardstick  {}", Figures::from(&self.yardstick).line());
        say!("              suite      {}", Figures::from(&self.suite).line());
    }

    /// Returns the reasons why a run has failed; empty if none has.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = self.yardstick.failures();
        failures.extend(self.suite.failures());
        failures
    }
}

impl Comparison {
    pub fn new(settings: Settings, yardstick: String, rounds: Vec<Round>, ended_early: bool) -> Self {
        let mut comparison = Self { settings, yardstick, rounds, medians: None, ratios: None, ended_early };
        if !comparison.rounds.is_empty() {
            let all = |of: fn(&Round) -> Figures| {
                Figures::medians(&comparison.rounds.iter().map(of).collect::<Vec<_>>())
            };
            comparison.medians = Some(Medians {
                yardstick: all(|round| (&round.yardstick).into()),
                suite: all(|round| (&round.suite).into()),
            });
            comparison.ratios = Some(all(|round| round.ratios));
        }
        comparison
    }

    /// Prints the medians and the ratios.
    pub fn print(&self) {
        let (Some(medians), Some(ratios)) = (&self.medians, self.ratios) else { return };
        if self.ended_early {
            say!("stopped early, after {} rounds", self.rounds.len());
        }
        say!("medians       yardstick  {}", medians.yardstick.line());
        say!("              suite      {}", medians.suite.line());
        say!("ratios        {}", ratios.ratio_line());
        say!("              They are the medians of the rounds' ratios. Yardstick: {}.", self.yardstick);
    }

    /// Returns the reasons why a run has failed, with the number of its round; empty if none has.
    pub fn failures(&self) -> Vec<String> {
        let numbered = self.rounds.iter().zip(1..);
        let of = |(round, number): (&Round, u16)| {
            round.failures().into_iter().map(move |failure| format!("round {number}: {failure}"))
        };
        numbered.flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(rate: f64, p50: f64, cpu: Option<f64>) -> Figures {
        Figures {
            settled_per_s: Some(rate),
            settle_p50_ms: Some(p50),
            settle_p99_ms: Some(p50 * 10.0),
            cpu_ms_per_order: cpu,
        }
    }

    #[test]
    fn a_ratio_is_the_suite_over_the_yardstick() {
        let ratios = figures(400.0, 30.0, Some(4.0)).over(figures(500.0, 6.0, Some(2.0)));
        assert_eq!(ratios, Figures { settle_p99_ms: Some(5.0), ..figures(0.8, 5.0, Some(2.0)) });
        let unknown = figures(400.0, 30.0, None).over(figures(0.0, 6.0, Some(2.0)));
        assert_eq!((unknown.settled_per_s, unknown.cpu_ms_per_order), (None, None));
    }

    #[test]
    fn a_median_is_the_figure_in_the_middle() {
        let of = |figures: &[f64]| median(figures.iter().copied().map(Some).collect());
        assert_eq!((of(&[]), of(&[3.0])), (None, Some(3.0)));
        assert_eq!(of(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(of(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
        assert_eq!(median(vec![Some(1.0), None, Some(2.0)]), None, "one is unknown");
        let all = [figures(1.0, 5.0, Some(1.0)), figures(3.0, 1.0, Some(2.0)), figures(2.0, 9.0, Some(9.0))];
        assert_eq!(
            Figures::medians(&all),
            Figures { settle_p99_ms: Some(50.0), ..figures(2.0, 5.0, Some(2.0)) }
        );
    }
}
