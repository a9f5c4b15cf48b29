//! The metrics of the crate in one table: name, type, labels, meaning, and the reaction to them. The document
//! `docs/metrics.md` is generated from it. The values go to the recorder that the process has installed for the
//! `metrics` crate.

use std::sync::OnceLock;

use metrics::{Counter, Gauge, Histogram, Label};

static PREFIX: OnceLock<&'static str> = OnceLock::new();

/// Sets the prefix of all metric names in this process. The default is `amends`. Only the first call has an effect.
/// It must come before the first use of a metric, because each name is composed once.
pub fn set_prefix(prefix: &'static str) {
    let _ = PREFIX.set(prefix);
}

/// The type of a metric, in the words of Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only goes up.
    Counter,
    /// It goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A metric: everything about it except its value.
#[derive(Debug)]
pub struct Metric {
    /// The type of the metric.
    pub kind: Kind,
    /// The name without the process's prefix. The unit is the last word, or the word before `total`.
    pub name: &'static str,
    /// The names of the labels.
    pub labels: &'static [&'static str],
    /// The meaning of the value, in a sentence.
    pub meaning: &'static str,
    /// The reaction to the value. It is empty if no reaction is needed.
    pub action: &'static str,
    full_name: OnceLock<&'static str>,
}

impl Metric {
    /// Creates a row of the table.
    pub const fn new(
        kind: Kind,
        name: &'static str,
        labels: &'static [&'static str],
        meaning: &'static str,
        action: &'static str,
    ) -> Self {
        Self { kind, name, labels, meaning, action, full_name: OnceLock::new() }
    }

    /// Returns the name with the process's prefix.
    pub fn full_name(&self) -> &'static str {
        self.full_name.get_or_init(|| {
            let prefix = PREFIX.get().copied().unwrap_or("amends");
            Box::leak(format!("{prefix}_{}", self.name).into_boxed_str())
        })
    }

    /// Returns the counter with these label values, in the order of [`Metric::labels`].
    #[expect(clippy::disallowed_macros, reason = "the table that the ban points to is made of these")]
    pub fn counter(&self, values: &[&str]) -> Counter {
        metrics::counter!(self.full_name(), self.with(Kind::Counter, values))
    }

    /// Returns the gauge with these label values, in the order of [`Metric::labels`].
    #[expect(clippy::disallowed_macros, reason = "the table that the ban points to is made of these")]
    pub fn gauge(&self, values: &[&str]) -> Gauge {
        metrics::gauge!(self.full_name(), self.with(Kind::Gauge, values))
    }

    /// Returns the histogram with these label values, in the order of [`Metric::labels`].
    #[expect(clippy::disallowed_macros, reason = "the table that the ban points to is made of these")]
    pub fn histogram(&self, values: &[&str]) -> Histogram {
        metrics::histogram!(self.full_name(), self.with(Kind::Histogram, values))
    }

    fn with(&self, kind: Kind, values: &[&str]) -> Vec<Label> {
        debug_assert_eq!(
            (self.kind, self.labels.len()),
            (kind, values.len()),
            "{} is another metric",
            self.name
        );
        self.labels.iter().zip(values).map(|(name, value)| Label::new(*name, (*value).to_owned())).collect()
    }
}

/// Declares metrics and a list of them. Each line is `NAME: Kind "name" ["label", ...], "meaning", "action";`.
#[macro_export]
macro_rules! metrics_table {
    ($($(#[$doc:meta])* $name:ident: $kind:ident $text:literal [$($label:literal),*], $meaning:literal, $action:literal;)*) => {
        $(
            #[doc = $meaning]
            pub static $name: $crate::metric::Metric =
                $crate::metric::Metric::new($crate::metric::Kind::$kind, $text, &[$($label),*], $meaning, $action);
        )*

        /// All metrics of this table, in its order.
        pub static ALL: &[&$crate::metric::Metric] = &[$(&$name),*];
    };
}

metrics_table! {
    CONSUMER_BATCH_MESSAGES: Histogram "consumer_batch_messages" [],
        "The number of messages in one transaction of the consumer.", "";
    CONSUMER_BATCH_SECONDS: Histogram "consumer_batch_seconds" [],
        "The duration of one transaction of the consumer, including retries, in seconds.", "";
    CONSUMER_BLOCKED: Gauge "consumer_blocked" ["group"],
        "1 while a consumer group reads nothing because the database was set back in time, else 0.",
        "Alert on 1. Set the offsets back with `amends consumer rewind`; docs/restore.md says how far.";
    CONSUMER_GAPS: Counter "consumer_gaps_total" ["reason"],
        "The number of gaps: runs of records that the broker deleted before this service read them.",
        "Alert on any. The log and `/readyz` name topic, partition and offsets; see \"Deleted records\" in operations.md.";
    CONSUMER_PARTITIONS: Gauge "consumer_partitions" ["group"],
        "The number of partitions assigned to this replica, by consumer group.",
        "If it stays 0 with fewer replicas than partitions, look at `/readyz`.";
    CONSUMER_RETRIES: Counter "consumer_retries_total" [],
        "The number of times that a batch was repeated after a transient failure.",
        "If it rises without a pause, look for the failure in the log. Mostly the database is not reachable.";
    CONSUMER_SEEKS: Counter "consumer_seeks_total" [],
        "The number of seeks of a partition back to a record that did not fit into the buffer during a pause.", "";
    CONSUMER_STALL_RESTARTS: Counter "consumer_stall_restarts_total" [],
        "The number of stalled Kafka clients that were replaced by new ones.",
        "A few after an outage of the broker are normal. Many without an outage are not: look at the broker's log.";
    INBOX_DUPLICATES: Counter "inbox_duplicates_total" [],
        "The number of messages that arrived again and had no second effect.", "";
    MESSAGES_PASSED_OVER: Counter "messages_passed_over_total" ["reason"],
        "The number of messages that were not handled, nor parked, by reason; those that came again are in `inbox_duplicates_total`.",
        "Alert on `contradicts` only. docs/messages.md explains the reasons.";
    INBOX_PARTITIONS: Gauge "inbox_partitions" [],
        "The number of partitions of the inbox: one per day, and the default one.",
        "If it keeps growing, the log says why past days cannot be dropped.";
    PRUNED_ROWS: Counter "pruned_rows_total" ["table"],
        "The number of old rows that the housekeeper has deleted.", "";
    READ_MODEL_SET_BACK: Counter "read_model_set_back_total" ["model"],
        "The number of messages that a copy of another service's data took although it knew a later version.",
        "Alert on any. The owner's database was set back, for example to a backup. The log names the messages.";
    READ_MODEL_MISSED: Counter "read_model_missed_versions_total" ["model"],
        "The number of versions that a copy of another service's data never heard of.",
        "The log names the messages behind the gaps. A skipped parked message is such a gap, and so is a lost record.";
    READ_MODEL_IGNORED: Counter "read_model_ignored_total" ["model", "reason"],
        "The number of messages that changed nothing in a copy of another service's data: `repeated`, `older` or `unclear`.",
        "Alert on `unclear` only. The log names the message, and what to do.";
    PARKED_MESSAGES: Counter "parked_total" [],
        "The number of messages that were parked.", "";
    PARKED_KEYS: Gauge "parked_keys" [],
        "The number of keys that wait for an operator.",
        "Alert on more than 0. `amends parked list` shows them with the reason.";
    OUTBOX_BACKLOG_ROWS: Gauge "outbox_backlog_rows" ["shard"],
        "The number of outbox rows that the broker has not acknowledged.",
        "If it keeps growing, the broker is too slow or not reachable.";
    OUTBOX_OLDEST_AGE_SECONDS: Gauge "outbox_oldest_age_seconds" ["shard"],
        "The age of the oldest outbox row that the broker has not acknowledged, in seconds.", "Alert on more than 60.";
    OUTBOX_TRUNCATIONS: Counter "outbox_truncations_total" [],
        "The number of truncations of an outbox slot.", "";
    OUTBOX_TRUNCATION_HELD_BACK_SECONDS: Gauge "outbox_truncation_held_back_seconds" [],
        "How long the truncation of an outbox slot has been blocked, in seconds.",
        "Alert on more than 300. `outbox_truncation_holder_pid` and the log name the blocking process.";
    OUTBOX_TRUNCATION_HOLDER_PID: Gauge "outbox_truncation_holder_pid" [],
        "The server process that blocks the truncation of an outbox slot; 0 if none does.",
        "End its transaction, or run `select pg_terminate_backend(pid)`.";
    RELAY_PUBLISHED: Counter "relay_published_total" [],
        "The number of records that the broker has acknowledged to this relay.", "";
    RELAY_FAULTS: Counter "relay_faults_total" [],
        "The number of times that a relay gave up its connection and started again.", "The log has the reason.";
    RELAY_STOPPED: Gauge "relay_stopped" ["shard", "reason"],
        "1 while a shard is stopped, else 0: at a record that the broker refuses for good (`record`), because the database was restored into another cluster (`other_cluster`, `foreign_rows`), or because a replica has another number of shards (`other_shards`).",
        "Alert on 1. The log and `/readyz` have the reason and the remedy.";
    EXTERNAL_CALLS_DEFERRED: Counter "external_calls_deferred_total" ["command"],
        "The number of calls to an external dependency that were deferred because its circuit breaker was open.", "";
    EXTERNAL_CALLS_UNANSWERED: Counter "external_calls_unanswered_total" ["command"],
        "The number of calls to an external dependency that got no answer. They are repeated.", "The log has the reason.";
    EXTERNAL_CALLS_GIVEN_UP: Counter "external_calls_given_up_total" ["command"],
        "The number of calls that got no answer within `CALL_DEADLINE`. Their steps count as refused.",
        "Ask the provider. Each of them is an order that was lost to silence.";
    EXTERNAL_CALLS_FAILED: Counter "external_calls_failed_total" ["command"],
        "The number of external calls whose outcome could not be recorded.",
        "Alert on any. The log names the subject (the order), the step and the failure.";
    COMPENSATIONS_BEFORE_COMPLETION: Counter "compensations_before_completion_total" [],
        "The number of undo commands that arrived while their action was still under way.",
        "More than a few mean that a participant's database has lost commits.";
    CIRCUIT_BREAKER_STATE: Gauge "circuit_breaker_state" ["dependency"],
        "The state of the circuit breaker of an external dependency: 0 closed, 1 half-open, 2 open.",
        "While it is 2, the dependency does not answer.";
    CIRCUIT_BREAKER_OPENED: Counter "circuit_breaker_opened_total" ["dependency"],
        "The number of times that the circuit breaker of an external dependency has opened.", "";
    HTTP_CONNECTIONS: Gauge "http_connections" [],
        "The number of open connections to the HTTP interface.",
        "If it stays at `HTTP_CONNECTIONS`, clients are refused: look at `http_refused_total`.";
    HTTP_REFUSED: Counter "http_refused_total" ["reason"],
        "The number of connections and requests that were refused because they broke a bound of the HTTP interface.",
        "docs/http.md explains the reasons. `too_many_connections` and `no_file` hit clients that did nothing wrong: raise `HTTP_CONNECTIONS` or the limit of open files.";
    SAGAS_COMPLETED: Counter "sagas_completed_total" [],
        "The number of sagas that ended with all steps carried out.", "";
    SAGAS_COMPENSATED: Counter "sagas_compensated_total" [],
        "The number of sagas that ended with all steps undone.", "";
    SAGAS_WITHOUT_DEFINITION: Gauge "sagas_without_definition" [],
        "The number of definitions of unfinished sagas that this orchestrator does not have.",
        "Alert on more than 0. The log names them. Run the release that has them, then `amends parked retry`.";
    SAGAS_STUCK: Gauge "sagas_stuck" [],
        "The number of stuck sagas.",
        "Alert on more than 0. `amends saga list --status stuck` shows them with the remedy.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_counters_end_in_total() {
        let mut names: Vec<&str> = ALL.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
        }
    }
}
