//! Queries in a service's database, which only tests may make.

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use super::Suite;

/// A connection that finds the core's tables and the service's without naming their schemas.
pub async fn connect(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().expect("a URL");
    let path = format!("public, {}", shared::db::DEFAULT_SCHEMA);
    let options = options.options([("search_path", path)]);
    PgConnection::connect_with(&options).await.expect("the database answers")
}

impl Suite {
    pub async fn connect(&self, service: &str) -> PgConnection {
        connect(&self.database_url(service)).await
    }

    /// Returns a number from a service's database.
    pub async fn number(&self, service: &str, sql: &str) -> i64 {
        let mut db = self.connect(service).await;
        let number: Option<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&mut db)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        number.unwrap_or(0)
    }

    /// Returns a column of texts from a service's database.
    pub async fn texts(&self, service: &str, sql: &str) -> Vec<String> {
        let mut db = self.connect(service).await;
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut db)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub async fn execute(&self, service: &str, sql: &str) {
        let mut db = self.connect(service).await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut db)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}
