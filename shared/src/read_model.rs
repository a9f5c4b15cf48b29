//! The rule by which a copy of another service's data takes news: the owner's truth wins.
//!
//! Events of an aggregate have its version. Usually a higher version is newer, and everything else is a repetition. That is
//! not so when the owner's database was set back, for example to a backup: the owner then uses versions again, with other
//! contents. A copy that only compared versions would silently keep what the owner has lost, and drop what the owner says.
//!
//! So a copy also knows which message it is from. Ids of messages are ordered by time and are drawn under the aggregate's
//! lock, and the message has the time of its transaction. Both must say the same before a copy goes back.

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use tracing::warn;
use uuid::Uuid;

use crate::fault::Fault;
use crate::incoming::Incoming;
use crate::metric;
use crate::retention::created_at;
use crate::unit_of_work::UnitOfWork;

/// Up to this difference, a message with a higher version is newer although it seems to be older. Clocks of the owner's
/// replicas may differ, and a transaction may have waited for the aggregate's lock.
const TOLERANCE_MS: i128 = 1000;

/// What the copy of an aggregate is from.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// The version of the aggregate.
    pub version: i64,
    /// The message; `None` if the copy was written by a release that did not record it.
    pub message_id: Option<Uuid>,
    /// The time of the message. Without a message, a time at which the copy was known to be right.
    pub at: OffsetDateTime,
}

/// An aggregate's state, as its owner published it.
#[derive(Debug)]
pub struct Heard<T> {
    /// The state.
    pub data: T,
    /// The version of the aggregate.
    pub version: i64,
    /// The message.
    pub message_id: Uuid,
    /// The time of the message.
    pub at: OffsetDateTime,
}

/// What a message is to the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is newer. So many versions in between were never heard.
    Newer { missed: i64 },
    /// It is newer although its version is not: the owner was set back.
    SetBack,
    /// It is the message that the copy is from.
    Repeated,
    /// It is older.
    Older,
    /// Its version is not higher, and its id and its time disagree about whether it is older.
    Unclear,
}

/// Reads messages of one type, in their order.
///
/// # Errors
/// Fails permanently if a message has no version, or if its data does not match the type.
pub fn read<T: DeserializeOwned>(messages: &[&Incoming]) -> Result<Vec<Heard<T>>, Fault> {
    let read = |message: &&Incoming| {
        let envelope = message.envelope()?;
        let version = envelope.sequence.ok_or_else(|| {
            Fault::permanent("the event has no sequence, so it can't be told whether it is newer")
        })?;
        Ok(Heard { data: message.data()?, version, message_id: envelope.id, at: envelope.timestamp })
    };
    messages.iter().map(read).collect()
}

/// Returns the states to write: of each aggregate the newest, if it is newer than the copy. `known` has the copies by the
/// aggregates' ids. The caller holds the aggregates' locks, and writes the returned states in this transaction.
///
/// What was not taken as usual is counted when the transaction commits. An owner that was set back is also logged.
pub fn newest<T>(
    uow: &mut UnitOfWork,
    model: &'static str,
    heard: Vec<Heard<T>>,
    id: impl Fn(&T) -> &str,
    mut known: HashMap<String, Known>,
) -> Vec<Heard<T>> {
    let mut newest: HashMap<String, Heard<T>> = HashMap::new();
    let mut verdicts = Vec::new();
    for heard in heard {
        let id = id(&heard.data).to_owned();
        let before = known.get(&id).copied();
        let verdict = before.map_or(Verdict::Newer { missed: 0 }, |before| judge(&before, &heard));
        verdicts.push((heard.message_id, heard.version, before.map(|before| before.version), verdict));
        if matches!(verdict, Verdict::Newer { .. } | Verdict::SetBack) {
            let now = Known { version: heard.version, message_id: Some(heard.message_id), at: heard.at };
            known.insert(id.clone(), now);
            newest.insert(id, heard);
        }
    }
    uow.after_commit(move || {
        for (message, version, before, verdict) in verdicts {
            report(model, message, version, before, verdict);
        }
    });
    newest.into_values().collect()
}

fn judge<T>(known: &Known, heard: &Heard<T>) -> Verdict {
    if known.message_id == Some(heard.message_id) {
        return Verdict::Repeated;
    }
    let later_by_time = heard.at > known.at;
    if heard.version > known.version {
        // A version that the owner has lost, delivered again.
        return if milliseconds_before(known, heard).is_some_and(|before| before > TOLERANCE_MS) {
            Verdict::Older
        } else {
            Verdict::Newer { missed: heard.version - known.version - 1 }
        };
    }
    match (later_by_id(known, heard).unwrap_or(later_by_time), later_by_time) {
        (true, true) => Verdict::SetBack,
        (false, false) => Verdict::Older,
        // It is a repetition, and the known message's transaction had waited for the lock of the aggregate. This happens
        // without any fault when two changes come at once.
        (false, true) => Verdict::Older,
        (true, false) => Verdict::Unclear,
    }
}

/// Returns whether the message's id is later than what the copy is from. An id of another kind says no time.
fn later_by_id<T>(known: &Known, heard: &Heard<T>) -> Option<bool> {
    let made = created_at(heard.message_id)?;
    match known.message_id {
        Some(before) => created_at(before).map(|_| heard.message_id > before),
        None => Some(made > milliseconds(known.at)),
    }
}

/// Returns by how many milliseconds the message is older than the one that the copy is from, by its id and by its time:
/// the smaller difference of the two. Returns nothing if the copy's message is not known.
fn milliseconds_before<T>(known: &Known, heard: &Heard<T>) -> Option<i128> {
    let by_time = milliseconds(known.at) - milliseconds(heard.at);
    let by_id = created_at(known.message_id?)
        .zip(created_at(heard.message_id))
        .map_or(by_time, |(known, heard)| known - heard);
    Some(by_time.min(by_id))
}

fn milliseconds(at: OffsetDateTime) -> i128 {
    at.unix_timestamp_nanos() / 1_000_000
}

fn report(model: &'static str, message: Uuid, version: i64, before: Option<i64>, verdict: Verdict) {
    let ignored = |reason| metric::READ_MODEL_IGNORED.counter(&[model, reason]).increment(1);
    match verdict {
        Verdict::Newer { missed: 0 } => {}
        Verdict::Newer { missed } => {
            warn!(model, message_id = %message, version, before, missed, "versions of an aggregate were never heard");
            metric::READ_MODEL_MISSED.counter(&[model]).increment(missed.unsigned_abs());
        }
        Verdict::SetBack => {
            warn!(
                model, message_id = %message, version, before,
                "the owner of an aggregate has gone back to an older version; its later message was taken"
            );
            metric::READ_MODEL_SET_BACK.counter(&[model]).increment(1);
        }
        Verdict::Repeated => ignored("repeated"),
        Verdict::Older => ignored("older"),
        Verdict::Unclear => {
            warn!(
                model, message_id = %message, version, before,
                "a message with an older version was ignored, although its id is later; if the owner's database was \
                 set back, change the aggregate there once more"
            );
            ignored("unclear");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const START: i64 = 1_800_000_000;

    /// A message of this version, made so many milliseconds after the start. Its transaction began `waited` milliseconds
    /// before.
    fn heard(version: i64, made: u64, waited: u64) -> Heard<()> {
        let at = OffsetDateTime::from_unix_timestamp(START).expect("a time");
        let bytes = [u8::try_from(version).expect("small"); 10];
        let made_ms = START.unsigned_abs() * 1000 + made;
        Heard {
            data: (),
            version,
            message_id: uuid::Builder::from_unix_timestamp_millis(made_ms, &bytes).into_uuid(),
            at: at + Duration::from_millis(made) - Duration::from_millis(waited),
        }
    }

    fn known(from: &Heard<()>) -> Known {
        Known { version: from.version, message_id: Some(from.message_id), at: from.at }
    }

    fn verdict(before: &Heard<()>, then: &Heard<()>) -> Verdict {
        judge(&known(before), then)
    }

    #[test]
    fn versions_are_taken_one_after_the_other_and_gaps_are_seen() {
        assert_eq!(verdict(&heard(1, 0, 0), &heard(2, 10, 0)), Verdict::Newer { missed: 0 });
        assert_eq!(verdict(&heard(1, 0, 0), &heard(5, 10, 0)), Verdict::Newer { missed: 3 });
    }

    #[test]
    fn a_repetition_changes_nothing_however_late_it_comes() {
        let (first, second) = (heard(1, 0, 0), heard(2, 10, 0));
        assert_eq!(verdict(&second, &second), Verdict::Repeated);
        assert_eq!(verdict(&second, &first), Verdict::Older);
        // The second transaction began before the first one, and waited for the lock.
        let second = heard(2, 10, 500);
        assert_eq!(verdict(&second, &first), Verdict::Older);
        assert_eq!(verdict(&first, &second), Verdict::Newer { missed: 0 });
    }

    #[test]
    fn the_owner_may_go_back() {
        let lost = heard(5, 0, 0);
        let again = heard(3, 60_000, 0);
        assert_eq!(verdict(&lost, &again), Verdict::SetBack);
        assert_eq!(verdict(&lost, &heard(5, 60_000, 0)), Verdict::SetBack, "a version was used twice");
        assert_eq!(verdict(&again, &heard(4, 61_000, 0)), Verdict::Newer { missed: 0 });
    }

    #[test]
    fn what_the_owner_has_lost_does_not_come_back_when_it_is_delivered_again() {
        let again = heard(3, 60_000, 0);
        for (version, made) in [(2, 0), (3, 1), (4, 2), (5, 3)] {
            assert_eq!(verdict(&again, &heard(version, made, 0)), Verdict::Older, "version {version}");
        }
    }

    #[test]
    fn clocks_that_differ_a_little_lose_no_change() {
        // The replica with the second change has a clock that is 300 ms behind.
        let second = heard(2, 9_700, 0);
        assert_eq!(verdict(&heard(1, 10_000, 0), &second), Verdict::Newer { missed: 0 });
        // The first change is repeated. Its id is later, and only its time tells.
        let first = Heard { at: second.at - Duration::from_millis(10), ..heard(1, 10_000, 0) };
        assert_eq!(verdict(&second, &first), Verdict::Unclear);
    }

    #[test]
    fn a_copy_of_an_earlier_release_takes_what_is_made_after_it() {
        let at = OffsetDateTime::from_unix_timestamp(START + 10).expect("a time");
        let known = Known { version: 5, message_id: None, at };
        assert_eq!(judge(&known, &heard(5, 1000, 0)), Verdict::Older);
        assert_eq!(judge(&known, &heard(3, 1000, 0)), Verdict::Older);
        assert_eq!(judge(&known, &heard(3, 20_000, 0)), Verdict::SetBack);
        // It was under way when the release was installed.
        assert_eq!(judge(&known, &heard(6, 1000, 0)), Verdict::Newer { missed: 0 });
    }

    #[test]
    fn ids_of_another_kind_leave_it_to_the_time() {
        let random = |heard: Heard<()>| Heard {
            message_id: uuid::Builder::from_random_bytes([u8::try_from(heard.version).expect("small"); 16])
                .into_uuid(),
            ..heard
        };
        let (lost, again) = (random(heard(5, 0, 0)), random(heard(3, 60_000, 0)));
        assert_eq!(verdict(&lost, &again), Verdict::SetBack);
        assert_eq!(verdict(&again, &lost), Verdict::Older);
    }
}
