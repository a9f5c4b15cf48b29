//! A look into a test's database.

use shared::db::DEFAULT_SCHEMA;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use super::place::Place;

/// A connection that finds the core's tables and the service's without naming their schemas.
pub async fn connect(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().expect("a URL");
    let options = options.options([("search_path", format!("public, {DEFAULT_SCHEMA}"))]);
    PgConnection::connect_with(&options).await.expect("the database answers")
}

impl Place {
    pub async fn connect(&self) -> PgConnection {
        connect(&self.database_url()).await
    }

    pub async fn number(&self, sql: &str) -> i64 {
        let mut db = self.connect().await;
        let number: Option<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&mut db)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        number.unwrap_or(0)
    }

    /// A text, if there is a row and it is not null.
    pub async fn text(&self, sql: &str) -> Option<String> {
        let mut db = self.connect().await;
        let found: Option<Option<String>> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_optional(&mut db)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        found.flatten()
    }

    /// A column of texts.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let mut db = self.connect().await;
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut db)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// How many locks of this kind the processes of the test wait for.
    pub async fn waiting_for(&self, kind: &str) -> i64 {
        let waiting = format!(
            "select count(*) from pg_locks l join pg_database d on d.oid = l.database
             where d.datname = current_database() and not granted and locktype = '{kind}'"
        );
        self.number(&waiting).await
    }

    pub async fn execute(&self, sql: &str) {
        let mut db = self.connect().await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut db)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}
