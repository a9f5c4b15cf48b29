//! How long message ids and step outcomes are remembered, and which ids are older. A UUIDv7 begins with its time of
//! creation, so its age needs no look-up.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

/// The reason for parking a message that is older than the inbox's retention.
pub(crate) const STALE: &str =
    "stale: the message is older than the inbox remembers, so nobody can know whether it was handled";

/// How long a service remembers message ids and step outcomes.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// How long the inbox remembers message ids.
    pub inbox: Duration,
    /// How long the outcomes of saga steps are kept. It must exceed the duration of the longest saga.
    pub steps: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        const TWO_WEEKS: Duration = Duration::from_secs(14 * 24 * 3600);
        Self { inbox: TWO_WEEKS, steps: TWO_WEEKS }
    }
}

impl Retention {
    /// Checks that the retention is longer than the topics keep messages. A message that is read again after its id
    /// was forgotten would take effect twice.
    ///
    /// # Errors
    /// Returns the setting that is too short, and the minimum.
    pub fn check(&self, topics: Duration) -> Result<(), String> {
        for (setting, value) in [("INBOX_RETENTION", self.inbox), ("STEP_RETENTION", self.steps)] {
            if value <= topics {
                let (days, needed) = (value.as_secs_f64() / 86_400.0, topics.as_secs_f64() / 86_400.0);
                return Err(format!(
                    "{setting} is {days:.1} days, but the topics keep messages for {needed:.1} days: \
                     a message that is read again after it was forgotten would take effect twice. Set {setting} to more"
                ));
            }
        }
        Ok(())
    }
}

/// Returns the milliseconds since 1970 in an id, if the id is a UUIDv7.
pub(crate) fn created_at(id: Uuid) -> Option<i128> {
    (id.get_version_num() == 7).then(|| i128::from((id.as_u128() >> 80) as u64))
}

/// Returns whether an id is older than `retention`. An id without a time is never stale; the inbox keeps it from its
/// arrival on.
pub(crate) fn stale(id: Uuid, now: OffsetDateTime, retention: Duration) -> bool {
    let now = now.unix_timestamp_nanos() / 1_000_000;
    created_at(id).is_some_and(|made| now - made > retention.as_millis().cast_signed())
}

/// Returns the smallest UUIDv7 that is not older than `retention`.
pub(crate) fn floor(now: OffsetDateTime, retention: Duration) -> Uuid {
    let made = now.unix_timestamp_nanos() / 1_000_000 - retention.as_millis().cast_signed();
    Uuid::from_u128(u128::try_from(made).unwrap_or(0) << 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).expect("a time")
    }

    /// Makes an id of this time.
    fn made(seconds: u64) -> Uuid {
        uuid::Builder::from_unix_timestamp_millis(seconds * 1000, &[0xff; 10]).into_uuid()
    }

    #[test]
    fn an_id_is_stale_when_its_time_is_older_than_the_memory() {
        let now = at(1_800_000_000);
        let retention = 14 * DAY;
        let oldest = 1_800_000_000 - retention.as_secs();
        assert!(!stale(made(oldest), now, retention));
        assert!(stale(made(oldest - 1), now, retention));
        assert!(
            !stale(made(1_800_000_000 + 3600), now, retention),
            "a clock that is ahead makes nothing stale"
        );
        let random = uuid::Builder::from_random_bytes([0; 16]).into_uuid();
        assert!(!stale(random, now, retention), "an id of another kind says no time");
    }

    #[test]
    fn the_floor_is_below_every_id_that_is_not_stale_and_above_the_others() {
        let now = at(1_800_000_000);
        let floor = floor(now, DAY);
        assert!(floor < made(1_800_000_000 - DAY.as_secs()));
        assert!(floor > made(1_800_000_000 - DAY.as_secs() - 1));
    }

    #[test]
    fn a_memory_that_is_shorter_than_the_topics_is_refused() {
        let topics = 7 * DAY;
        assert_eq!(Retention::default().check(topics), Ok(()));
        let short = Retention { inbox: topics, ..Retention::default() };
        let error = short.check(topics).expect_err("too short");
        assert!(
            error.starts_with("INBOX_RETENTION is 7.0 days, but the topics keep messages for 7.0 days"),
            "{error}"
        );
        let short = Retention { steps: DAY, ..Retention::default() };
        assert!(short.check(topics).expect_err("too short").starts_with("STEP_RETENTION is 1.0 days"));
    }
}
