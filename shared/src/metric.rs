//! The metrics of the crate, in one table: name, type, labels, what each means, and what to do about it. The document
//! `docs/metrics.md` is generated from it. Values go to whatever recorder the process has installed for the `metrics` crate.

use std::sync::OnceLock;

use metrics::{Counter, Gauge, Histogram, Label};

static PREFIX: OnceLock<&'static str> = OnceLock::new();

/// Sets what every metric's name begins with in this process; `amends` unless it is set. The first call counts, and it must
/// come before the first metric is used: a name is put together once.
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

/// A metric: everything that is known of it beside its value.
#[derive(Debug)]
pub struct Metric {
    /// Its type.
    pub kind: Kind,
    /// Its name without the process's prefix. The unit is its last word, or the one before `total`.
    pub name: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What the value says, in a sentence.
    pub meaning: &'static str,
    /// What to do about it. Empty if nothing is to be done.
    pub action: &'static str,
    full_name: OnceLock<&'static str>,
}

impl Metric {
    /// A row of the table.
    pub const fn new(
        kind: Kind,
        name: &'static str,
        labels: &'static [&'static str],
        meaning: &'static str,
        action: &'static str,
    ) -> Self {
        Self { kind, name, labels, meaning, action, full_name: OnceLock::new() }
    }

    /// The name with the process's prefix.
    pub fn full_name(&self) -> &'static str {
        self.full_name.get_or_init(|| {
            let prefix = PREFIX.get().copied().unwrap_or("amends");
            Box::leak(format!("{prefix}_{}", self.name).into_boxed_str())
        })
    }

    /// The counter with these values of its labels, in the order of [`Metric::labels`].
    pub fn counter(&self, values: &[&str]) -> Counter {
        metrics::counter!(self.full_name(), self.with(Kind::Counter, values))
    }

    /// The gauge with these values of its labels, in the order of [`Metric::labels`].
    pub fn gauge(&self, values: &[&str]) -> Gauge {
        metrics::gauge!(self.full_name(), self.with(Kind::Gauge, values))
    }

    /// The histogram with these values of its labels, in the order of [`Metric::labels`].
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

/// Declares metrics and the list of them: `NAME: kind "name" ["label", ...], "meaning", "action";`.
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
        "How many messages one transaction of the consumer had.", "";
    CONSUMER_BATCH_SECONDS: Histogram "consumer_batch_seconds" [],
        "How long one transaction of the consumer took, with its retries, in seconds.", "";
    CONSUMER_PARTITIONS: Gauge "consumer_partitions" [],
        "How many partitions this replica has.", "If it stays 0 with fewer replicas than partitions, look at `/readyz`.";
    CONSUMER_RETRIES: Counter "consumer_retries_total" [],
        "How often a batch was repeated because its failure may pass.",
        "If it goes up without a pause, the log has the failure: mostly the database is not reachable.";
    CONSUMER_SEEKS: Counter "consumer_seeks_total" [],
        "How often a partition was set back because more records came than could be held during a pause.", "";
    CONSUMER_STALL_RESTARTS: Counter "consumer_stall_restarts_total" [],
        "How often a client that had stopped to fetch was replaced by a new one.",
        "Now and then after an outage of the broker is normal. Often without one is not: look at the broker's log.";
    INBOX_DUPLICATES: Counter "inbox_duplicates_total" [],
        "How many messages came again and had no second effect.", "";
    INBOX_PARTITIONS: Gauge "inbox_partitions" [],
        "How many partitions the inbox has: one a day, and the default one.", "If it keeps growing, the log says why days can't be dropped.";
    PRUNED_ROWS: Counter "pruned_rows_total" ["table"],
        "How many old rows the housekeeper has deleted.", "";
    PARKED_MESSAGES: Counter "parked_total" [],
        "How many messages were parked.", "";
    PARKED_KEYS: Gauge "parked_keys" [],
        "How many keys wait for an operator.", "Alert on more than 0. `amends parked list` names them with the reason.";
    OUTBOX_BACKLOG_ROWS: Gauge "outbox_backlog_rows" ["shard"],
        "How many rows of the outbox the broker has not acknowledged.", "If it keeps growing, the broker is too slow or not reachable.";
    OUTBOX_OLDEST_AGE_SECONDS: Gauge "outbox_oldest_age_seconds" ["shard"],
        "How old the oldest row is that the broker has not acknowledged, in seconds.", "Alert on more than 60.";
    OUTBOX_TRUNCATIONS: Counter "outbox_truncations_total" [],
        "How often a slot of the outbox was emptied.", "";
    OUTBOX_TRUNCATION_HELD_BACK_SECONDS: Gauge "outbox_truncation_held_back_seconds" [],
        "For how long a slot of the outbox could not be emptied, in seconds.",
        "Alert on more than 300. The label of `outbox_truncation_holder`, and the log, name the transaction that holds it.";
    OUTBOX_TRUNCATION_HOLDER: Gauge "outbox_truncation_holder" ["pid"],
        "Since when this server process keeps a slot from being emptied, in seconds since 1970; 0 when it has let go.",
        "End that transaction, or `select pg_terminate_backend(pid)`.";
    RELAY_PUBLISHED: Counter "relay_published_total" [],
        "How many records the broker has acknowledged to this relay.", "";
    RELAY_FAULTS: Counter "relay_faults_total" [],
        "How often a relay gave up its connection and started again.", "The log has the reason.";
    RELAY_STOPPED: Gauge "relay_stopped" ["shard"],
        "1 while a shard stands still at a record that the broker refuses for good, else 0.",
        "Alert on 1. The log, `/readyz` and the table `relay_checkpoint` have the reason: mend the topic or its rights.";
    EXTERNAL_CALLS_DEFERRED: Counter "external_calls_deferred_total" ["command"],
        "How many calls to an external dependency were put off because its circuit breaker was open.", "";
    EXTERNAL_CALLS_UNANSWERED: Counter "external_calls_unanswered_total" ["command"],
        "How many calls to an external dependency got no answer. They are repeated.", "The log has the reason.";
    EXTERNAL_CALLS_FAILED: Counter "external_calls_failed_total" ["command"],
        "How many outcomes of external calls could not be recorded.", "Alert on any. The log names order, step and failure.";
    COMPENSATIONS_BEFORE_COMPLETION: Counter "compensations_before_completion_total" [],
        "How many undo commands came while their action was still under way.",
        "More than a few mean that a participant's database has lost commits.";
    CIRCUIT_BREAKER_STATE: Gauge "circuit_breaker_state" ["dependency"],
        "The circuit breaker of an external dependency: 0 closed, 1 half-open, 2 open.", "While it is 2 the dependency does not answer.";
    CIRCUIT_BREAKER_OPENED: Counter "circuit_breaker_opened_total" ["dependency"],
        "How often the circuit breaker of an external dependency has opened.", "";
    SAGAS_COMPLETED: Counter "sagas_completed_total" [],
        "How many sagas ended with everything done.", "";
    SAGAS_COMPENSATED: Counter "sagas_compensated_total" [],
        "How many sagas ended with everything undone.", "";
    SAGAS_STUCK: Gauge "sagas_stuck" [],
        "How many sagas are stuck.", "Alert on more than 0. `amends saga list --status stuck` names them, with the remedy.";
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
