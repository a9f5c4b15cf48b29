//! The audit: nine invariants of a running suite. Each is judged by the services' own statements, by a comparison of all
//! services order by order, and by the records on the topics.

mod command;
mod invariants;
mod merge;
mod order_rules;
mod orders;
mod pending;
mod receipt;
mod snapshot;
mod topics;

use std::time::{Duration, Instant};

use shared::kafka::Kafka;
use shared::service::secret::SettingError;
use uuid::Uuid;

pub use self::command::Audit;
use self::invariants::Evidence;
pub use self::invariants::Invariant;
use self::snapshot::AuditSnapshot;
use crate::api::Api;
use crate::suite::{Cluster, KAFKA, Suite};

/// The first wait between two readings. Each further wait is twice as long, because a reading reads every row.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The limits of an audit.
#[derive(Debug, Clone)]
pub struct Scope {
    /// How long to wait for orders that are under way.
    pub patience: Duration,
    /// How long an order may take to reach its final state.
    pub deadline: Duration,
    /// How many minutes of the topics are read.
    pub lookback_minutes: u16,
    pub kafka: Kafka,
    /// Orders that were accepted, sorted by id. Each of them must exist.
    pub accepted: Vec<Uuid>,
}

/// How Kafka is reached.
#[derive(Debug, clap::Args)]
pub struct Topics {
    /// The brokers, host:port, separated by commas; needed for a suite that `amends up` did not start.
    #[arg(long, help_heading = KAFKA, env = "KAFKA_BROKERS")]
    kafka_brokers: Option<String>,
    #[command(flatten)]
    cluster: Cluster,
}

impl Topics {
    /// Returns how the Kafka of this suite is reached.
    ///
    /// # Errors
    /// Fails if the settings of Kafka cannot be used.
    pub fn kafka(&self, suite: &Suite) -> Result<Kafka, SettingError> {
        let here = || format!("127.0.0.1:{}", suite.server_ports().kafka);
        self.cluster.kafka(self.kafka_brokers.clone().unwrap_or_else(here))
    }
}

impl Scope {
    /// The limits that are used unless flags say otherwise.
    ///
    /// # Errors
    /// Fails if the settings of Kafka cannot be used.
    pub fn of(suite: &Suite, topics: &Topics) -> Result<Self, SettingError> {
        Ok(Self {
            patience: Duration::from_secs(10),
            deadline: Duration::from_secs(300),
            lookback_minutes: 5,
            kafka: topics.kafka(suite)?,
            accepted: Vec::new(),
        })
    }
}

/// The result of an audit.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The nine invariants; empty if a service did not answer.
    pub invariants: Vec<Invariant>,
    /// One sentence for each violation, or for each reason why nothing can be said.
    pub findings: Vec<String>,
}

impl Verdict {
    fn of(invariants: Vec<Invariant>) -> Self {
        let all = invariants.iter().flat_map(|one| &one.findings).cloned();
        let mut findings: Vec<String> = Vec::new();
        for finding in all {
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        Self { invariants, findings }
    }

    /// Whether all nine invariants hold.
    pub fn holds(&self) -> bool {
        !self.invariants.is_empty() && self.invariants.iter().all(|one| one.holds == Some(true))
    }

    /// Whether the invariant with this number holds; `None` if that can't be said.
    pub fn of_number(&self, number: usize) -> Option<bool> {
        self.invariants.iter().find(|one| one.number == number)?.holds
    }
}

/// Waits until nothing is under way, at most for the scope's patience, and then judges the invariants. If a service does
/// not answer, the verdict has no invariants and a finding that says so.
pub async fn wait_until_quiescent(api: &Api, scope: &Scope) -> Verdict {
    let deadline = Instant::now() + scope.patience;
    let mut wait = FIRST_WAIT;
    loop {
        let last = Instant::now() + wait > deadline;
        // The last step of an order (its stock is shipped) is done after the order has settled.
        if let Some(verdict) = read_once(api, scope, last).await
            && (last || verdict.holds())
        {
            return verdict;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Reads everything once. Returns `None` while something moves, unless this is the last reading: reading every order and the
/// topics takes long, and is worth it only at rest. Orders that do not move on, because a provider never answers, are no
/// reason to wait.
async fn read_once(api: &Api, scope: &Scope, last: bool) -> Option<Verdict> {
    let unread = |error: anyhow::Error| {
        let findings = vec![format!("there is no audit: {error:#}")];
        Some(Verdict { findings, ..Verdict::default() })
    };
    let snapshot = match AuditSnapshot::read(api).await {
        Ok(snapshot) => snapshot,
        Err(error) => return unread(error),
    };
    let again = match AuditSnapshot::read(api).await {
        Ok(again) => again,
        Err(error) => return unread(error),
    };
    if !last && snapshot.moved(&again).is_some() {
        return None;
    }
    let orders = orders::compare(api, scope.deadline, &scope.accepted).await;
    // What is under way is taken off the sums, so it must not have moved since they were read.
    let after = match AuditSnapshot::read(api).await {
        Ok(after) => after,
        Err(error) => return unread(error),
    };
    let topics = topics::compare(api, &scope.kafka, scope.lookback_minutes).await;
    Some(Verdict::of(invariants::conclude(&snapshot, &Evidence { again, after, orders, topics })))
}
