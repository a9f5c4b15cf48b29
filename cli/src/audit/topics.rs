//! What is on the topics, held against what the services have committed to their outboxes: nothing is missing, nothing is
//! there that nobody has committed, and what is about one key is there in its order.
//!
//! A service says minute by minute and topic by topic how many messages it has committed, and which positions they have,
//! combined to one number; the same is made of the records, which carry their positions. So what is compared stays small,
//! also of rows that have long been truncated. The services are asked before the topics are read and after it: a minute of
//! which both say the same was not written to meanwhile, and must be equal to the last; of another one the records must be
//! between the two.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use shared::kafka::Kafka;
use time::OffsetDateTime;

pub use self::read::Records;
use crate::api::Api;
use crate::suite::SERVICES;

/// How long a message may wait to be acknowledged.
const LONGEST_UNSENT: Duration = Duration::from_secs(60);

/// What was committed, or found, in one minute for one topic: service, minute, topic.
pub type Place = (String, String, String);

/// How many messages, and which.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    pub rows: i64,
    /// The positions, combined by exclusive or.
    pub positions: i64,
    /// How many of them are not acknowledged.
    pub unsent: i64,
}

/// What services have committed.
#[derive(Debug, Default)]
pub struct Ledger {
    pub sums: BTreeMap<Place, Sum>,
    /// From which minute on all of it is here, and the moment at which that minute began.
    pub since: String,
    pub began: Option<OffsetDateTime>,
    /// How many messages are not acknowledged, and how many seconds the oldest has been waiting.
    pub unsent: i64,
    pub oldest: f64,
    /// Why messages stand still.
    pub stopped: Vec<String>,
}

/// What was found wrong.
#[derive(Debug, Default)]
pub struct Topics {
    /// What is missing or too much.
    pub wrong: Vec<String>,
    /// Keys whose records are not in order, with their topic.
    pub disorder: Vec<String>,
    /// How many messages were compared.
    pub compared: i64,
    /// How many are on their way.
    pub unsent: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    #[serde(with = "time::serde::rfc3339")]
    now: OffsetDateTime,
    lines: Vec<Line>,
    stopped: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    minute: String,
    topic: String,
    rows: i64,
    unsent: i64,
    oldest_unsent_seconds: Option<f64>,
    positions: String,
}

impl Ledger {
    /// Asks all services for the last so many minutes.
    pub async fn read(api: &Api, minutes: u16) -> anyhow::Result<Self> {
        let mut ledger = Self::default();
        for service in SERVICES.map(|service| service.name) {
            let path = format!("/audit/outbox?minutes={minutes}");
            let said = api.get(service, &path).await.with_context(|| format!("the outbox of {service}"))?;
            let said: Said =
                serde_json::from_value(said).with_context(|| format!("the outbox of {service}"))?;
            // The first minute that is whole.
            let began = said.now - Duration::from_secs(60 * (u64::from(minutes) - 1));
            let began = began.replace_second(0).and_then(|time| time.replace_nanosecond(0))?;
            ledger.began = ledger.began.max(Some(began));
            ledger.stopped.extend(said.stopped);
            for line in said.lines {
                ledger.unsent += line.unsent;
                ledger.oldest = ledger.oldest.max(line.oldest_unsent_seconds.unwrap_or_default());
                let positions = line.positions.parse().context("positions are a number")?;
                let sum = Sum { rows: line.rows, positions, unsent: line.unsent };
                ledger.sums.insert((service.to_owned(), line.minute, line.topic), sum);
            }
        }
        ledger.since = ledger.began.map(minute).unwrap_or_default();
        Ok(ledger)
    }

    /// What is wrong with it by itself.
    fn wrong(&self) -> Vec<String> {
        let mut wrong = self.stopped.clone();
        if self.oldest > LONGEST_UNSENT.as_secs_f64() {
            wrong.push(format!(
                "{} messages are not acknowledged, the oldest for {:.0} s",
                self.unsent, self.oldest
            ));
        }
        wrong
    }
}

/// A time's minute, as envelopes begin.
fn minute(time: OffsetDateTime) -> String {
    let (date, clock) = (time.date(), time.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute()
    )
}

/// Reads the topics of the last so many minutes, and compares.
pub async fn compare(api: &Api, kafka: &Kafka, minutes: u16) -> anyhow::Result<Topics> {
    let before = Ledger::read(api, minutes).await?;
    let Some(began) = before.began else { return Ok(Topics::default()) };
    let records = read::read(kafka, began).await.context("the topics can't be read")?;
    let after = Ledger::read(api, minutes).await?;
    Ok(held_against(&before, &records, &after))
}

/// What of the records is not what was committed before and after they were read.
fn held_against(before: &Ledger, records: &Records, after: &Ledger) -> Topics {
    let since = before.since.as_str().max(after.since.as_str()).max(records.since.as_str());
    let mut places: BTreeSet<&Place> = before.sums.keys().chain(after.sums.keys()).collect();
    places.extend(records.sums.keys());
    let mut found = Topics { wrong: after.wrong(), disorder: records.disorder.clone(), ..Topics::default() };
    found.unsent = after.unsent;
    for place in places {
        let (service, minute, topic) = place;
        // Records of a release that did not write positions can't be told apart.
        if minute.as_str() < since || records.unmarked.contains(place) {
            continue;
        }
        let [before, there, after] = [&before.sums, &records.sums, &after.sums]
            .map(|sums| sums.get(place).copied().unwrap_or_default());
        found.compared += there.rows;
        let least = before.rows - before.unsent;
        let at = format!("{topic}, of what {service} wrote in {minute}");
        if there.rows < least {
            found.wrong.push(format!("{at}: {} of {least} messages are missing", least - there.rows));
        } else if there.rows > after.rows {
            found.wrong.push(format!("{at}: {} messages were never committed", there.rows - after.rows));
        } else if before == after && after.unsent == 0 && there.positions != after.positions {
            found.wrong.push(format!("{at}: a message is missing, and another was never committed"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: [&str; 3] = ["order", "2026-11-21T10:07", "order.events"];

    fn place() -> Place {
        (ON[0].to_owned(), ON[1].to_owned(), ON[2].to_owned())
    }

    fn sum(positions: &[i64], unsent: i64) -> Sum {
        let rows = i64::try_from(positions.len()).expect("few");
        Sum { rows, positions: positions.iter().fold(0, |all, one| all ^ one), unsent }
    }

    fn ledger(positions: &[i64], unsent: i64) -> Ledger {
        let sums = BTreeMap::from([(place(), sum(positions, unsent))]);
        Ledger { sums, since: "2026-11-21T10:00".to_owned(), ..Ledger::default() }
    }

    fn records(positions: &[i64]) -> Records {
        Records { sums: BTreeMap::from([(place(), sum(positions, 0))]), ..Records::default() }
    }

    fn wrong(before: &Ledger, there: &[i64], after: &Ledger) -> String {
        held_against(before, &records(there), after).wrong.join("; ")
    }

    #[test]
    fn at_rest_the_topics_have_what_was_committed_and_nothing_else() {
        let whole = ledger(&[1, 2, 3], 0);
        assert_eq!(wrong(&whole, &[1, 2, 3], &whole), "");
        assert!(wrong(&whole, &[1, 3], &whole).contains("1 of 3 messages are missing"));
        assert!(wrong(&whole, &[1, 2, 3, 4], &whole).contains("1 messages were never committed"));
        assert!(wrong(&whole, &[1, 2, 4], &whole).contains("another was never committed"));
        assert!(wrong(&whole, &[], &whole).contains("3 of 3"));
    }

    #[test]
    fn while_it_is_written_the_topics_are_between_before_and_after() {
        let (before, after) = (ledger(&[1, 2, 3], 1), ledger(&[1, 2, 3, 4], 0));
        for there in [&[1, 2][..], &[1, 2, 3], &[1, 2, 3, 4]] {
            assert_eq!(wrong(&before, there, &after), "", "{there:?}");
        }
        assert!(wrong(&before, &[1], &after).contains("1 of 2"));
        assert!(wrong(&before, &[1, 2, 3, 4, 5], &after).contains("1 messages"));
    }

    #[test]
    fn what_is_older_than_the_window_and_what_has_no_position_is_not_judged() {
        let mut whole = ledger(&[1, 2], 0);
        whole.since = "2026-11-21T10:08".to_owned();
        assert_eq!(wrong(&whole, &[1], &whole), "");
        let whole = ledger(&[1, 2], 0);
        let unmarked = Records { unmarked: BTreeSet::from([place()]), ..Records::default() };
        assert!(held_against(&whole, &unmarked, &whole).wrong.is_empty());
    }

    #[test]
    fn what_is_not_acknowledged_for_long_is_wrong_by_itself() {
        let mut late = ledger(&[1], 1);
        (late.unsent, late.oldest) = (1, 61.0);
        assert!(wrong(&late, &[], &late).contains("the oldest for 61 s"));
    }

    #[test]
    fn a_minute_is_how_an_envelope_begins() {
        let time = time::macros::datetime!(2026-11-21 10:07:42.5 UTC);
        assert_eq!(minute(time), ON[1]);
    }
}
