//! The plan of a run: rates in phases, and the shares of orders that are to be refused.

use std::time::Duration;

use shared::service::config::duration;

/// The highest rate.
const HIGHEST: f64 = 100_000.0;

/// A constant rate for some time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase {
    /// Orders a second.
    pub rate: f64,
    /// The duration that was given with the rate.
    pub lasts: Option<Duration>,
}

/// One rate, or several in turn, as `100` or `100:60s,1000:30s,100:60s`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates(pub Vec<Phase>);

/// Reads [`Rates`].
pub fn rates(text: &str) -> Result<Rates, String> {
    let phases = text.split(',').map(phase).collect::<Result<Vec<_>, _>>()?;
    if phases.len() > 1 && phases.iter().any(|phase| phase.lasts.is_none()) {
        return Err("each of several rates needs its duration, for example 100:60s,1000:30s".to_owned());
    }
    Ok(Rates(phases))
}

fn phase(text: &str) -> Result<Phase, String> {
    let (rate, lasts) = match text.trim().split_once(':') {
        Some((rate, lasts)) => (rate, Some(positive(lasts)?)),
        None => (text.trim(), None),
    };
    Ok(Phase { rate: self::rate(rate)?, lasts })
}

/// Reads a number of orders a second.
pub fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of orders a second"))?;
    if !(rate > 0.0 && rate <= HIGHEST) {
        return Err(format!("a rate is more than 0 and at most {HIGHEST} orders a second"));
    }
    Ok(rate)
}

/// Reads a duration that is longer than nothing.
pub fn positive(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than 0".to_owned()),
        lasts => Ok(lasts),
    }
}

/// Reads a share such as `5%` or `2.5%`, as a part of one.
pub fn share(text: &str) -> Result<f64, String> {
    let number =
        text.trim().strip_suffix('%').ok_or_else(|| format!("`{text}` has no `%`; write it as 5%"))?;
    let percent: f64 = number.trim().parse().map_err(|_| format!("`{number}` is not a number"))?;
    if !(0.0..=100.0).contains(&percent) {
        return Err("a share is from 0% to 100%".to_owned());
    }
    Ok(percent / 100.0)
}

/// The stock of a closed loop is filled for this many orders a second.
const CLOSED_LOOP_AT_MOST: f64 = 5000.0;

/// The rate and the time of each part of a run.
pub struct Parts {
    /// The rate of each phase; empty in a closed loop.
    pub rates: Vec<f64>,
    /// The begin and the end of each part, since the beginning of the run. The warm-up is the first part.
    pub bounds: Vec<(Duration, Duration)>,
}

impl Parts {
    /// Returns the plan of a warm-up and of phases with these rates and durations.
    pub fn new(rates: Vec<f64>, warmup: Duration, durations: &[Duration]) -> Self {
        Self { rates, bounds: bounds(warmup, durations) }
    }

    /// Returns how long the warm-up lasts.
    pub fn warmup(&self) -> Duration {
        self.bounds.first().map_or(Duration::ZERO, |(_, end)| *end)
    }

    /// Returns how long the run lasts.
    pub fn end(&self) -> Duration {
        self.bounds.last().map_or(Duration::ZERO, |(_, end)| *end)
    }

    /// Returns the most orders that are to be expected.
    pub fn orders(&self) -> u64 {
        let first = self.rates.first().copied().unwrap_or(CLOSED_LOOP_AT_MOST);
        let rates = std::iter::once(first).chain(self.rates.iter().copied()).chain(std::iter::repeat(first));
        rates
            .zip(&self.bounds)
            .map(|(rate, (begin, end))| (rate * (*end - *begin).as_secs_f64()).ceil() as u64)
            .sum()
    }
}

/// When an order is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Due {
    /// Since the beginning.
    pub at: Duration,
    /// 0 is the warm-up, 1 the first phase.
    pub part: usize,
}

/// Returns the begin and the end of the warm-up and of each phase, since the beginning of the run.
fn bounds(warmup: Duration, phases: &[Duration]) -> Vec<(Duration, Duration)> {
    let mut end = Duration::ZERO;
    std::iter::once(&warmup)
        .chain(phases)
        .map(|lasts| {
            let begin = end;
            end = begin + *lasts;
            (begin, end)
        })
        .collect()
}

/// Returns the schedule of an open loop: the time of every order, which does not depend on earlier orders. The warm-up has
/// the rate of the first phase.
pub fn schedule(rates: &[f64], bounds: &[(Duration, Duration)]) -> impl Iterator<Item = Due> + use<> {
    let first = rates.first().copied();
    let parts: Vec<_> = first.into_iter().chain(rates.iter().copied()).zip(bounds.to_vec()).collect();
    parts.into_iter().enumerate().flat_map(|(part, (rate, (begin, end)))| {
        let due = move |n: u32| begin + Duration::from_secs_f64(f64::from(n) / rate);
        (0..).map(due).take_while(move |at| *at < end).map(move |at| Due { at, part })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_rate_may_come_in_phases() {
        assert_eq!(rates("25"), Ok(Rates(vec![Phase { rate: 25.0, lasts: None }])));
        let burst = rates("100:60s, 1000:30s").expect("two phases");
        assert_eq!(burst.0[1], Phase { rate: 1000.0, lasts: Some(SECOND * 30) });
        for wrong in ["0", "-1", "nan", "1e9", "fast", "", "100:", "100:60", "100:0s", "100:60s,200", "100,"]
        {
            assert!(rates(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_share_is_a_percentage() {
        assert_eq!(share("5%"), Ok(0.05));
        assert_eq!(share("100 %"), Ok(1.0));
        for wrong in ["5", "120%", "-1%", "%", "nan%", "some%"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_schedule_has_the_warm_up_and_then_each_phase_at_its_rate() {
        let bounds = bounds(SECOND * 2, &[SECOND, SECOND * 3]);
        assert_eq!(bounds[2], (SECOND * 3, SECOND * 6));
        let dues: Vec<Due> = schedule(&[10.0, 100.0], &bounds).collect();
        let count = |part| dues.iter().filter(|due| due.part == part).count();
        assert_eq!((count(0), count(1), count(2)), (20, 10, 300));
        assert_eq!(dues[20], Due { at: SECOND * 2, part: 1 });
        assert!(dues.is_sorted_by_key(|due| due.at));
        assert!(schedule(&[10.0], &super::bounds(Duration::ZERO, &[SECOND])).all(|due| due.part == 1));
    }
}
