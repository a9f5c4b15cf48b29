//! Counters of the suite: the messages that its relays have published, and PostgreSQL's commits.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection, PgConnection};

use crate::api::Api;
use crate::suite::{SERVICES, Suite};

const PUBLISHED: &str = "amends_relay_published_total";
const ANSWER: Duration = Duration::from_secs(2);

/// A connection to the suite's PostgreSQL, if it listens on the port that `amends up` uses.
pub struct Database {
    connection: Option<PgConnection>,
    /// The databases whose transactions are counted.
    names: &'static [&'static str],
}

/// The transactions so far, in all databases that are counted.
#[derive(Debug, Clone, Copy)]
pub struct Commits {
    /// All transactions, from `pg_stat_database`. Connections report theirs once a second, so the number is a second old.
    pub all: i64,
    /// The transactions that wrote something: the transaction ids that the whole server has assigned. This is exact.
    pub writing: i64,
}

impl Database {
    pub async fn open(suite: &Suite) -> Self {
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", suite.server_ports().postgres);
        let connection = match PgConnectOptions::from_str(&url) {
            Ok(options) => Self::connect(&options.ssl_mode(PgSslMode::Disable)).await,
            Err(_) => None,
        };
        Self { connection, names: &SERVICES }
    }

    /// Counts the transactions in these databases.
    pub fn of(connection: PgConnection, names: &'static [&'static str]) -> Self {
        Self { connection: Some(connection), names }
    }

    async fn connect(options: &PgConnectOptions) -> Option<PgConnection> {
        tokio::time::timeout(ANSWER, PgConnection::connect_with(options)).await.ok()?.ok()
    }

    /// Returns `None` if PostgreSQL can't be reached.
    pub async fn commits(&mut self) -> Option<Commits> {
        let read = sqlx::query_as(
            "select sum(xact_commit)::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint
             from pg_stat_database where datname = any($1)",
        );
        let read = read.bind(self.names).fetch_one(self.connection.as_mut()?);
        let (all, writing) = tokio::time::timeout(ANSWER, read).await.ok()?.ok()?;
        Some(Commits { all, writing })
    }
}

/// Returns how many messages each service's relays have published since its start, or `None` if a service does not answer.
pub async fn published(api: &Api) -> Option<[u64; SERVICES.len()]> {
    let mut all = [0; SERVICES.len()];
    for (sent, service) in all.iter_mut().zip(SERVICES) {
        let url = api.url(service, "/metrics");
        let response = api.request(|client| client.get(url).timeout(ANSWER)).await.ok()?;
        *sent = counted(&response.text().await.ok()?, PUBLISHED);
    }
    Some(all)
}

/// Returns the sum of a counter over all its labels. A counter appears with its first count, so a missing one is 0.
fn counted(metrics: &str, name: &str) -> u64 {
    let samples = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let samples = samples.filter(|rest| rest.starts_with(['{', ' ']));
    samples.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_labels() {
        let metrics = "# TYPE sent counter\nsent 3\nsent{shard=\"1\"} 4\nsent_total{a=\"b c\"} 100\n";
        assert_eq!(counted(metrics, "sent"), 7);
        assert_eq!(counted(metrics, "received"), 0);
    }
}
