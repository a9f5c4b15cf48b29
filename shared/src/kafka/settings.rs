//! The settings of a topic that the guarantees depend on, and what is wrong with those that it has.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Topic;

const PARTITIONS: &str = "partitions";
const CLEANUP: &str = "cleanup.policy";
const RETENTION: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";
const IN_SYNC: &str = "min.insync.replicas";
const UNCLEAN: &str = "unclean.leader.election.enable";
const LARGEST: &str = "max.message.bytes";
const REPLICAS: &str = "replicas";

/// A topic that keeps records for less than this does not outlast an ordinary outage of a consumer.
const SHORTEST_RETENTION: Duration = Duration::from_secs(3600);
/// The largest record: the largest message, with its headers and the broker's own bytes.
const LARGEST_RECORD: i64 = 128 * 1024;

/// How a difference is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It is changed without losing anything.
    Apply,
    /// It is changed on request, because that may delete records or refuse writes.
    Alter,
    /// Partitions are added, which moves keys.
    AddPartitions,
    /// An operator does it, as this sentence says.
    ByHand(&'static str),
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apply => f.write_str("`amends topics apply` sets it"),
            Self::Alter => f.write_str("`amends topics apply --alter` sets it"),
            Self::AddPartitions => f.write_str(
                "stop all services when every order has settled, then `amends topics apply --add-partitions` adds them",
            ),
            Self::ByHand(what) => f.write_str(what),
        }
    }
}

/// A setting of a topic on the cluster that differs from what its declaration, or a guarantee, asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The name of the topic, with the installation's prefix.
    pub topic: String,
    /// The name of the setting.
    pub setting: &'static str,
    /// Its value on the cluster.
    pub actual: String,
    /// The value that it should have, as the broker writes it.
    pub right: String,
    /// What follows from the difference.
    pub effect: &'static str,
    /// How it is mended.
    pub remedy: Remedy,
    /// Whether it endangers a guarantee. Otherwise it is worth knowing, and no more.
    pub endangers: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, setting, effect, remedy, .. } = self;
        let (actual, right) = (told(setting, &self.actual), told(setting, &self.right));
        write!(f, "{topic}: {setting} is {actual} and should be {right}: {effect}; {remedy}")
    }
}

/// Returns a value with its meaning, where the broker's form is hard to read.
fn told(setting: &str, value: &str) -> String {
    match (setting, value) {
        (CLEANUP, "") => "empty".to_owned(),
        (RETENTION | RETENTION_BYTES, "-1") => "-1 (unlimited)".to_owned(),
        (RETENTION, millis) => {
            let days = millis.parse::<f64>().map(|millis| millis / 86_400_000.0);
            days.map_or_else(|_| value.to_owned(), |days| format!("{value} ({days:.1} days)"))
        }
        _ => value.to_owned(),
    }
}

/// A topic as it is on the cluster.
pub(super) struct Actual {
    pub name: String,
    pub partitions: i32,
    /// The least number of replicas that a partition has.
    pub replicas: usize,
    pub brokers: usize,
    /// `None` if the client may not read them.
    pub settings: Option<BTreeMap<String, String>>,
}

/// Returns what differs, what endangers a guarantee first. Ids of messages are remembered for `remembered`.
pub(super) fn compare(topic: &Topic, actual: &Actual, remembered: Duration) -> Vec<Difference> {
    let mut found = Found { actual, differences: Vec::new() };
    found.partitions(topic);
    if actual.settings.is_some() {
        found.cleanup();
        found.retention(topic, remembered);
        found.replication();
        found.size();
    }
    found.differences.sort_by_key(|one| !one.endangers);
    found.differences
}

struct Found<'a> {
    actual: &'a Actual,
    differences: Vec<Difference>,
}

impl Found<'_> {
    fn value(&self, setting: &str) -> Option<&str> {
        self.actual.settings.as_ref()?.get(setting).map(String::as_str)
    }

    fn number(&self, setting: &str) -> Option<i64> {
        self.value(setting)?.parse().ok()
    }

    fn add(
        &mut self,
        setting: &'static str,
        (actual, right): (impl ToString, impl ToString),
        effect: &'static str,
        remedy: Remedy,
        endangers: bool,
    ) {
        let (actual, right) = (actual.to_string(), right.to_string());
        let topic = self.actual.name.clone();
        self.differences.push(Difference { topic, setting, actual, right, effect, remedy, endangers });
    }

    fn partitions(&mut self, topic: &Topic) {
        let values = (self.actual.partitions, topic.partitions);
        if values.0 < values.1 {
            let effect = "keys that belong to a missing partition cannot be sent";
            self.add(PARTITIONS, values, effect, Remedy::AddPartitions, true);
        } else if values.0 > values.1 {
            let effect =
                "no key is sent to the partitions beyond that number, so that each key keeps its order";
            let remedy = Remedy::ByHand("nothing must be done; docs/operations.md says how to use them");
            self.add(PARTITIONS, values, effect, remedy, false);
        }
    }

    fn cleanup(&mut self) {
        let Some(policy) = self.value(CLEANUP).map(str::to_owned) else { return };
        let mut policies = policy.split(',').map(str::trim);
        if policies.clone().any(|policy| policy == "compact") {
            let effect = "compaction deletes messages of a key before they are read";
            self.add(CLEANUP, (policy, "delete"), effect, Remedy::Alter, true);
        } else if !policies.any(|policy| policy == "delete") {
            let effect = "old messages come again when the inbox has forgotten them";
            self.add(CLEANUP, (policy, "delete"), effect, Remedy::Alter, true);
        }
    }

    fn retention(&mut self, topic: &Topic, remembered: Duration) {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let declared = millis(topic.retention);
        if let Some(actual) = self.number(RETENTION) {
            let values = (actual, declared);
            if actual < 0 || actual >= millis(remembered) {
                let effect =
                    "the inbox forgets messages earlier, so that an old one would be taken for a new one";
                self.add(RETENTION, values, effect, Remedy::Alter, true);
            } else if actual > declared {
                let effect = "records are kept for longer than declared";
                self.add(RETENTION, values, effect, Remedy::Alter, false);
            } else if actual < declared {
                let effect = "a consumer that is away for longer loses messages";
                let endangers = actual < millis(SHORTEST_RETENTION.min(topic.retention));
                self.add(RETENTION, values, effect, Remedy::Apply, endangers);
            }
        }
        if let Some(bytes) = self.number(RETENTION_BYTES).filter(|bytes| *bytes >= 0) {
            let effect = "under load, records are deleted sooner than declared";
            self.add(RETENTION_BYTES, (bytes, -1), effect, Remedy::Apply, false);
        }
    }

    fn replication(&mut self) {
        let Actual { replicas, brokers, .. } = *self.actual;
        if replicas < 2 {
            if brokers > 1 {
                let effect = "the loss of one broker loses messages";
                let remedy = Remedy::ByHand("`kafka-reassign-partitions.sh` adds replicas");
                self.add(REPLICAS, (replicas, brokers.min(3)), effect, remedy, false);
            }
            return;
        }
        if self.value(UNCLEAN) == Some("true") {
            let effect = "a broker that lacks acknowledged messages may become the leader";
            self.add(UNCLEAN, ("true", "false"), effect, Remedy::Apply, true);
        }
        if let Some(in_sync) = self.number(IN_SYNC) {
            let replicas = i64::try_from(replicas).unwrap_or(i64::MAX);
            if in_sync > replicas {
                let effect = "the broker refuses every message";
                self.add(IN_SYNC, (in_sync, 2), effect, Remedy::Alter, true);
            } else if in_sync < 2 {
                let effect = "a message may be acknowledged that only one broker has";
                self.add(IN_SYNC, (in_sync, 2), effect, Remedy::Alter, false);
            }
        }
    }

    fn size(&mut self) {
        if let Some(largest) = self.number(LARGEST).filter(|largest| *largest < LARGEST_RECORD) {
            let effect = "a large message stops its shard of the outbox";
            self.add(LARGEST, (largest, LARGEST_RECORD), effect, Remedy::Apply, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn declared() -> Topic {
        Topic { name: "order.events".to_owned(), partitions: 4, retention: 7 * DAY }
    }

    /// Compares a topic that is right but for these settings.
    fn compared(partitions: i32, replicas: usize, changed: &[(&str, &str)]) -> Vec<Difference> {
        let mut settings = BTreeMap::from(
            [
                (CLEANUP, "delete"),
                (RETENTION, "604800000"),
                (RETENTION_BYTES, "-1"),
                (IN_SYNC, "2"),
                (UNCLEAN, "false"),
                (LARGEST, "1048588"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        settings.extend(changed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let name = "x.order.events".to_owned();
        let actual = Actual { name, partitions, replicas, brokers: 3, settings: Some(settings) };
        compare(&declared(), &actual, 14 * DAY)
    }

    #[test]
    fn a_topic_as_declared_has_no_difference() {
        assert_eq!(compared(4, 3, &[]), []);
    }

    #[test]
    fn every_setting_that_a_guarantee_depends_on_is_compared() {
        let cases = [
            (CLEANUP, "compact", true, Remedy::Alter),
            (CLEANUP, "compact,delete", true, Remedy::Alter),
            (CLEANUP, "", true, Remedy::Alter),
            (RETENTION, "-1", true, Remedy::Alter),
            (RETENTION, "1209600000", true, Remedy::Alter),
            (RETENTION, "864000000", false, Remedy::Alter),
            (RETENTION, "86400000", false, Remedy::Apply),
            (RETENTION, "60000", true, Remedy::Apply),
            (RETENTION_BYTES, "1000", false, Remedy::Apply),
            (IN_SYNC, "4", true, Remedy::Alter),
            (IN_SYNC, "1", false, Remedy::Alter),
            (UNCLEAN, "true", true, Remedy::Apply),
            (LARGEST, "1000", false, Remedy::Apply),
        ];
        for (setting, value, endangers, remedy) in cases {
            let found = compared(4, 3, &[(setting, value)]);
            let [one] = &found[..] else { panic!("{setting}={value}: {found:?}") };
            assert_eq!((one.setting, one.endangers, one.remedy), (setting, endangers, remedy), "{value}");
        }
    }

    #[test]
    fn fewer_partitions_endanger_and_more_do_not() {
        let fewer = &compared(1, 3, &[])[0];
        assert!(fewer.endangers && fewer.remedy == Remedy::AddPartitions);
        assert!(!compared(8, 3, &[])[0].endangers);
    }

    #[test]
    fn one_replica_is_said_where_there_could_be_more() {
        assert_eq!(compared(4, 1, &[(IN_SYNC, "1"), (UNCLEAN, "true")])[0].setting, REPLICAS);
        let alone = Actual { name: String::new(), partitions: 4, replicas: 1, brokers: 1, settings: None };
        assert_eq!(compare(&declared(), &alone, 14 * DAY), []);
    }

    #[test]
    fn a_difference_says_what_is_wrong_what_follows_and_what_mends_it() {
        let said = compared(4, 3, &[(RETENTION, "2592000000")])[0].to_string();
        assert_eq!(
            said,
            "x.order.events: retention.ms is 2592000000 (30.0 days) and should be 604800000 (7.0 days): the inbox \
             forgets messages earlier, so that an old one would be taken for a new one; `amends topics apply --alter` \
             sets it"
        );
    }
}
