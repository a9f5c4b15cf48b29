//! `amends audit`: judges the nine invariants of a running suite, or prints the receipt of one order.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::json;
use shared::service::config::duration;
use uuid::Uuid;

use super::receipt::Receipt;
use super::{Scope, Topics, Verdict, wait_until_quiescent};
use crate::api::Api;
use crate::output::{indented, print_json, say};
use crate::suite::{SERVICES, SUITE, Suite, http};

/// The limits of the audit, or the one order.
#[derive(Debug, Args)]
#[command(
    after_help = "The nine invariants are: 1 money, 2 stock, 3 orphans, 4 ends, 5 once, 6 order, 7 outbox, 8 accepted, \
                  9 undoing. The output says what each of them means.\n\n\
                  The exit code is 1 if an invariant does not hold, or if that can't be said yet."
)]
pub struct Audit {
    /// Print what was done for this order instead: its events, each move of money and stock, its parcel and its notices,
    /// sorted by time, with the sums of money and pieces.
    #[arg(long, value_name = "ORDER_ID")]
    order: Option<Uuid>,
    /// How long to wait for orders that are under way. Money and stock can be compared only when none is.
    #[arg(long, default_value = "10s", value_parser = duration)]
    wait: Duration,
    /// How long an order may take to reach its final state, unless its saga is stuck or a message about it is parked.
    #[arg(long, default_value = "300s", value_parser = duration)]
    deadline: Duration,
    /// How far back the topics are compared with the outboxes: whole minutes, at least 1m, at most 14d.
    ///
    /// Every record of that time is read, and takes some 40 bytes of memory. Topics keep records for 7d.
    #[arg(long, default_value = "5m", value_parser = lookback, value_name = "DURATION")]
    lookback: Lookback,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    suite: Suite,
    /// The URL of one service that `amends up` did not start, for example order=http://orders:8081.
    #[arg(long, help_heading = SUITE, value_name = "SERVICE=URL", value_parser = service_url, hide_env_values = true)]
    service_url: Vec<(String, String)>,
    #[command(flatten)]
    topics: Topics,
}

/// A time span of whole minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lookback {
    minutes: u16,
}

/// The longest time span: so much a service can say of its outbox.
const LONGEST_LOOKBACK_MINUTES: u64 = 14 * 24 * 60;

fn lookback(text: &str) -> Result<Lookback, String> {
    let span = duration(text)?;
    let minutes = span.as_secs() / 60;
    if span != Duration::from_secs(minutes * 60) {
        return Err(format!("`{text}` is not a whole number of minutes; write for example 5m"));
    }
    if !(1..=LONGEST_LOOKBACK_MINUTES).contains(&minutes) {
        return Err(format!("`{text}` is out of range: at least 1m, at most 14d"));
    }
    let minutes = u16::try_from(minutes).map_err(|_| format!("`{text}` is too long"))?;
    Ok(Lookback { minutes })
}

fn service_url(text: &str) -> Result<(String, String), String> {
    let (service, url) = text.split_once('=').ok_or("must be like order=http://127.0.0.1:8081")?;
    if !SERVICES.contains(&service) {
        return Err(format!("there is no such service; there are {}", SERVICES.join(", ")));
    }
    Ok((service.to_owned(), http(url)?.trim_end_matches('/').to_owned()))
}

impl Audit {
    pub fn run(self) -> anyhow::Result<()> {
        crate::runtime::block_on(async {
            let urls: BTreeMap<String, String> = self.service_url.iter().cloned().collect();
            let api = Api::new(&self.suite).with_urls(urls);
            match self.order {
                Some(order) => receipt(&api, order).await,
                None => self.all(&api).await,
            }
        })
    }

    fn scope(&self) -> anyhow::Result<Scope> {
        let usual = Scope::of(&self.suite, &self.topics)?;
        Ok(Scope {
            patience: self.wait,
            deadline: self.deadline,
            lookback_minutes: self.lookback.minutes,
            ..usual
        })
    }

    async fn all(&self, api: &Api) -> anyhow::Result<()> {
        let verdict = wait_until_quiescent(api, &self.scope()?).await;
        if self.json {
            let invariants = serde_json::to_value(&verdict.invariants)?;
            let said =
                json!({"holds": verdict.holds(), "statements": invariants, "findings": verdict.findings});
            print_json(&said)?;
        } else {
            print(&verdict);
        }
        if verdict.holds() {
            return Ok(());
        }
        match verdict.invariants.iter().filter(|one| one.holds == Some(false)).count() {
            0 => bail!("not all nine invariants can be judged yet{}", indented(&verdict.findings)),
            1 => bail!("one of the nine invariants does not hold"),
            many => bail!("{many} of the nine invariants do not hold"),
        }
    }
}

fn print(verdict: &Verdict) {
    for one in &verdict.invariants {
        let holds = match one.holds {
            Some(true) => "holds ",
            Some(false) => "BROKEN",
            None => "open  ",
        };
        say!("{}  {:<9} {holds}  {}", one.number, one.name, one.says);
        for finding in &one.findings {
            say!("                     {finding}");
        }
    }
    if verdict.holds() {
        say!("all nine hold");
    }
}

async fn receipt(api: &Api, id: Uuid) -> anyhow::Result<()> {
    let receipt = Receipt::read(api, id).await?;
    for line in receipt.lines() {
        say!("{line}");
    }
    let wrong = receipt.wrong();
    if !wrong.is_empty() {
        let wrong = indented(&wrong);
        bail!("what was done for the order {id} does not match its status, or is still under way{wrong}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lookback_is_whole_minutes_of_at_most_two_weeks() {
        for (text, minutes) in [("1m", 1), ("300s", 5), ("2h", 120), ("14d", 20_160)] {
            assert_eq!(lookback(text), Ok(Lookback { minutes }), "{text}");
        }
        for (text, said) in [
            ("5", "no unit"),
            ("90s", "whole number of minutes"),
            ("60500ms", "whole number of minutes"),
            ("0m", "at least 1m"),
            ("15d", "at most 14d"),
            ("20161m", "at most 14d"),
        ] {
            assert!(lookback(text).is_err_and(|error| error.contains(said)), "{text}");
        }
    }
}
