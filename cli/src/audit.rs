//! The audit: nine statements about a running suite, from what its services say of themselves, from holding them against each
//! other order by order, and from what is on the topics.

mod command;
mod invariants;
mod merge;
mod order_rules;
mod orders;
mod receipt;
mod snapshot;
mod topics;

use std::time::{Duration, Instant};

use shared::kafka::Kafka;
use uuid::Uuid;

pub use self::command::Audit;
use self::invariants::Evidence;
pub use self::invariants::Invariant;
use self::snapshot::AuditSnapshot;
use crate::api::Api;
use crate::suite::{Cluster, Suite};

/// How long the first wait between two looks is; each one doubles it, for a look reads every row.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How far an audit goes.
#[derive(Debug, Clone)]
pub struct Scope {
    /// How long to wait for what is under way.
    pub patience: Duration,
    /// How long an order may take to its end.
    pub deadline: Duration,
    /// For how many minutes back the topics are read.
    pub minutes: u16,
    pub kafka: Kafka,
    /// Orders that were accepted, in the order of their ids: each must be there.
    pub accepted: Vec<Uuid>,
}

/// Where the topics of a suite are that `amends up` has not started.
#[derive(Debug, clap::Args)]
pub struct Topics {
    /// The brokers of a suite that `amends up` has not started.
    #[arg(long, env = "KAFKA_BROKERS")]
    kafka_brokers: Option<String>,
    #[command(flatten)]
    cluster: Cluster,
}

impl Scope {
    /// The usual one.
    pub fn of(suite: &Suite, topics: &Topics) -> Self {
        let here = || format!("127.0.0.1:{}", suite.server_ports().kafka);
        let brokers = topics.kafka_brokers.clone().unwrap_or_else(here);
        Self {
            patience: Duration::from_secs(10),
            deadline: Duration::from_secs(300),
            minutes: 5,
            kafka: topics.cluster.kafka(brokers),
            accepted: Vec::new(),
        }
    }
}

/// Whether the statements hold, and what is wrong.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The nine; none if a service did not answer.
    pub statements: Vec<Invariant>,
    /// What is wrong, or why it can't be said, one sentence each.
    pub findings: Vec<String>,
}

impl Verdict {
    fn of(statements: Vec<Invariant>) -> Self {
        let all = statements.iter().flat_map(|one| &one.findings).cloned();
        let mut findings: Vec<String> = Vec::new();
        for finding in all {
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        Self { statements, findings }
    }

    /// Whether all nine hold.
    pub fn holds(&self) -> bool {
        !self.statements.is_empty() && self.statements.iter().all(|one| one.holds == Some(true))
    }

    /// Whether one of them holds; `None` if that can't be said.
    pub fn of_number(&self, number: usize) -> Option<bool> {
        self.statements.iter().find(|one| one.number == number)?.holds
    }
}

/// Waits until nothing is under way, at most for the scope's patience, and says whether the statements hold. A service that
/// does not answer then leaves all of them open.
pub async fn wait_until_quiescent(api: &Api, scope: &Scope) -> Verdict {
    let deadline = Instant::now() + scope.patience;
    let mut wait = FIRST_WAIT;
    loop {
        let last = Instant::now() + wait > deadline;
        // What an order does last (its stock leaves the house) is done after it has settled.
        if let Some(verdict) = look(api, scope, last).await
            && (last || verdict.holds())
        {
            return verdict;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// One look at everything. Nothing comes of it while something is under way, unless it is the last: every order and the
/// topics are read only when it is worth it.
async fn look(api: &Api, scope: &Scope, last: bool) -> Option<Verdict> {
    let unread = |error: anyhow::Error| {
        let findings = vec![format!("there is no audit: {error:#}")];
        Some(Verdict { findings, ..Verdict::default() })
    };
    let books = match AuditSnapshot::read(api).await {
        Ok(books) => books,
        Err(error) => return unread(error),
    };
    if !last && !books.under_way().is_empty() {
        return None;
    }
    let again = match AuditSnapshot::read(api).await {
        Ok(again) => again,
        Err(error) => return unread(error),
    };
    if !last && books.sums_open(&again).is_some() {
        return None;
    }
    let orders = orders::compare(api, scope.deadline, &scope.accepted).await;
    let topics = topics::compare(api, &scope.kafka, scope.minutes).await;
    Some(Verdict::of(invariants::conclude(&books, &Evidence { again, orders, topics })))
}
