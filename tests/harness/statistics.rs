//! What statements a service has executed, from PostgreSQL's statistics.

use sqlx::AssertSqlSafe;

use super::Suite;

/// The statements of this database, without those about the statistics.
const OWN: &str = "dbid = (select oid from pg_database where datname = current_database())
                   and position('pg_stat_statements' in query) = 0";

impl Suite {
    /// Begins to count the statements in a service's database.
    pub async fn counts_statements(&self, service: &str) {
        self.execute(service, "create extension if not exists pg_stat_statements schema public").await;
        let reset =
            "select pg_stat_statements_reset(0, oid, 0) from pg_database where datname = current_database()";
        self.execute(service, reset).await;
    }

    /// Returns how often each statement was executed in a service's database since the counting began.
    pub async fn calls(&self, service: &str) -> Vec<(String, i64)> {
        let calls = format!("select query, calls from pg_stat_statements where {OWN}");
        sqlx::query_as(AssertSqlSafe(calls))
            .fetch_all(&mut self.connect(service).await)
            .await
            .expect("the statistics")
    }

    /// Returns how often statements with this part were executed.
    pub async fn calls_with(&self, service: &str, part: &str) -> i64 {
        let calls = self.calls(service).await;
        calls.iter().filter(|(query, _)| query.contains(part)).map(|(_, calls)| calls).sum()
    }

    /// Returns how many buffers the lists with this part have read since the counting began.
    pub async fn buffers(&self, service: &str, part: &str) -> i64 {
        let sum = format!(
            "select sum(shared_blks_hit + shared_blks_read)::bigint from pg_stat_statements
             where {OWN} and position('{part}' in query) > 0 and position('order by' in query) > 0"
        );
        let sum: Option<i64> = sqlx::query_scalar(AssertSqlSafe(sum))
            .fetch_one(&mut self.connect(service).await)
            .await
            .expect("the statistics");
        sum.unwrap_or_else(|| panic!("no statement of {service} has `{part}`"))
    }
}
