//! Compares the records on the topics with the messages that the services have committed to their outboxes. No message may
//! be missing, no record may be there without a committed message, and the records of one key must be in order.
//!
//! A service returns, for each minute and topic, the number of messages that it has committed and the exclusive or of their
//! positions in the outbox. Records carry their positions, so the same two numbers are computed from them. They stay small,
//! and they still exist when the rows have long been truncated.
//!
//! The services are asked before the topics are read, and again afterwards. If both answers agree about a minute, nothing
//! was written in between, and the records must match exactly. Otherwise the records must lie between the two answers.

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

/// How long a message may wait until the broker acknowledges it.
const LONGEST_UNSENT: Duration = Duration::from_secs(60);

/// A service, a minute and a topic.
pub type Place = (String, String, String);

/// The number of messages, and a checksum of their identities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    pub rows: i64,
    /// The exclusive or of their positions in the outbox.
    pub positions_xor: i64,
    /// How many of them the broker has not acknowledged.
    pub unsent: i64,
}

/// The messages that the services have committed.
#[derive(Debug, Default)]
pub struct Ledger {
    pub sums: BTreeMap<Place, Sum>,
    /// The first minute that is complete here, and the moment at which it began.
    pub since: String,
    pub began: Option<OffsetDateTime>,
    /// How many messages the broker has not acknowledged, and for how many seconds the oldest has been waiting.
    pub unsent: i64,
    pub oldest: f64,
    /// Why relays have stopped, one sentence each.
    pub stopped: Vec<String>,
}

/// The result of the comparison.
#[derive(Debug, Default)]
pub struct Topics {
    /// One sentence for each difference.
    pub wrong: Vec<String>,
    /// Keys whose records are out of order, with their topic.
    pub disorder: Vec<String>,
    /// How many messages were compared.
    pub compared: i64,
    /// How many messages the broker has not acknowledged yet.
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
    /// Asks all services for the last minutes.
    pub async fn read(api: &Api, minutes: u16) -> anyhow::Result<Self> {
        let mut ledger = Self::default();
        for service in SERVICES {
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
                let positions_xor = line.positions.parse().context("`positions` is not a number")?;
                let sum = Sum { rows: line.rows, positions_xor, unsent: line.unsent };
                ledger.sums.insert((service.to_owned(), line.minute, line.topic), sum);
            }
        }
        ledger.since = ledger.began.map(minute).unwrap_or_default();
        Ok(ledger)
    }

    /// Returns a sentence for each fault that needs no comparison.
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

/// The minute of a time, in the form in which the time of an envelope begins.
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

/// Reads the last minutes of the topics, and compares them.
pub async fn compare(api: &Api, kafka: &Kafka, minutes: u16) -> anyhow::Result<Topics> {
    let before = Ledger::read(api, minutes).await?;
    let Some(began) = before.began else { return Ok(Topics::default()) };
    let records = read::read(kafka, began).await.context("the topics can't be read")?;
    let after = Ledger::read(api, minutes).await?;
    Ok(differences(&before, &records, &after))
}

/// Compares the records with what was committed before and after they were read.
fn differences(before: &Ledger, records: &Records, after: &Ledger) -> Topics {
    let since = before.since.as_str().max(after.since.as_str()).max(records.since.as_str());
    let mut places: BTreeSet<&Place> = before.sums.keys().chain(after.sums.keys()).collect();
    places.extend(records.sums.keys());
    let mut found = Topics { wrong: after.wrong(), disorder: records.disorder.clone(), ..Topics::default() };
    found.unsent = after.unsent;
    for place in places {
        let (service, minute, topic) = place;
        // Records of a release that did not write positions can't be distinguished.
        if minute.as_str() < since || records.unmarked.contains(place) {
            continue;
        }
        let [before, there, after] = [&before.sums, &records.sums, &after.sums]
            .map(|sums| sums.get(place).copied().unwrap_or_default());
        found.compared += there.rows;
        let least = before.rows - before.unsent;
        let at = format!("{topic}, messages of {service} in {minute}");
        if there.rows < least {
            found.wrong.push(format!("{at}: {} of {least} messages are missing", least - there.rows));
        } else if there.rows > after.rows {
            found.wrong.push(format!("{at}: {} messages were never committed", there.rows - after.rows));
        } else if before == after && after.unsent == 0 && there.positions_xor != after.positions_xor {
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
        Sum { rows, positions_xor: positions.iter().fold(0, |all, one| all ^ one), unsent }
    }

    fn ledger(positions: &[i64], unsent: i64) -> Ledger {
        let sums = BTreeMap::from([(place(), sum(positions, unsent))]);
        Ledger { sums, since: "2026-11-21T10:00".to_owned(), ..Ledger::default() }
    }

    fn records(positions: &[i64]) -> Records {
        Records { sums: BTreeMap::from([(place(), sum(positions, 0))]), ..Records::default() }
    }

    fn wrong(before: &Ledger, there: &[i64], after: &Ledger) -> String {
        differences(before, &records(there), after).wrong.join("; ")
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
    fn while_messages_are_written_the_topics_are_between_before_and_after() {
        let (before, after) = (ledger(&[1, 2, 3], 1), ledger(&[1, 2, 3, 4], 0));
        for there in [&[1, 2][..], &[1, 2, 3], &[1, 2, 3, 4]] {
            assert_eq!(wrong(&before, there, &after), "", "{there:?}");
        }
        assert!(wrong(&before, &[1], &after).contains("1 of 2"));
        assert!(wrong(&before, &[1, 2, 3, 4, 5], &after).contains("1 messages"));
    }

    #[test]
    fn records_before_the_window_or_without_a_position_are_not_judged() {
        let mut whole = ledger(&[1, 2], 0);
        whole.since = "2026-11-21T10:08".to_owned();
        assert_eq!(wrong(&whole, &[1], &whole), "");
        let whole = ledger(&[1, 2], 0);
        let unmarked = Records { unmarked: BTreeSet::from([place()]), ..Records::default() };
        assert!(differences(&whole, &unmarked, &whole).wrong.is_empty());
    }

    #[test]
    fn a_message_that_is_not_acknowledged_for_long_is_wrong() {
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
