//! The tables of the core and of the sagas, as migrations that any application can apply beside its own.
//!
//! They live in a schema of their own ([`crate::db::DEFAULT_SCHEMA`] unless it is chosen otherwise) and keep their history
//! there, in `_core_migrations` and `_saga_migrations`. So they take no numbers and no table names from the application,
//! whatever runs its migrations. An application that wants to run the files itself finds them in [`Set::scripts`].

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AssertSqlSafe, Executor, PgConnection};

use crate::db::{Db, quote_ident};

/// Migrations with a history of their own.
#[derive(Debug)]
pub struct Set {
    /// The name, from which the history's table is called.
    pub name: &'static str,
    migrator: &'static Migrator,
}

/// Inbox, outbox, the relay's checkpoint, step outcomes and parked messages: what every service needs.
pub static CORE: Set = Set { name: "core", migrator: &CORE_MIGRATOR };
static CORE_MIGRATOR: Migrator = sqlx::migrate!();

/// Sagas and their log: what a coordinator of sagas needs beside [`CORE`].
#[cfg(feature = "saga")]
pub static SAGA: Set = Set { name: "saga", migrator: &SAGA_MIGRATOR };
#[cfg(feature = "saga")]
static SAGA_MIGRATOR: Migrator = sqlx::migrate!("migrations/saga");

/// Applies [`CORE`] to the database, unless that was done before. The connection's role must own the schema, or be
/// allowed to create it.
///
/// # Errors
/// If the database does not answer or refuses a statement, or if a migration that was applied has been changed since.
pub async fn apply(db: &Db) -> Result<(), MigrateError> {
    apply_sets(&mut db.connect().await?, db.schema(), &[&CORE]).await
}

/// Applies [`CORE`] and [`SAGA`]: the tables of a service that coordinates sagas.
///
/// # Errors
/// As [`apply`].
#[cfg(feature = "saga")]
pub async fn apply_with_sagas(db: &Db) -> Result<(), MigrateError> {
    apply_sets(&mut db.connect().await?, db.schema(), &[&CORE, &SAGA]).await
}

/// Applies sets of migrations over this connection, in this schema. The connection's search path is its default one
/// afterwards.
///
/// # Errors
/// As [`apply`].
pub async fn apply_sets(db: &mut PgConnection, schema: &str, sets: &[&Set]) -> Result<(), MigrateError> {
    let known: bool = sqlx::query_scalar("select to_regnamespace($1) is not null")
        .bind(quote_ident(schema))
        .fetch_one(&mut *db)
        .await?;
    let schema = quote_ident(schema);
    // `if not exists` alone would ask for the right to create one.
    let create = if known { "" } else { &format!("create schema if not exists {schema};") };
    // A migration may take longer than a statement of a service.
    let prepare = format!("{create} set search_path = {schema}; set statement_timeout = 0");
    db.execute(sqlx::raw_sql(AssertSqlSafe(prepare))).await?;
    for set in sets {
        set.migrator(&schema).run_direct(None, &mut *db, false).await?;
    }
    db.execute(sqlx::raw_sql("reset search_path")).await?;
    Ok(())
}

impl Set {
    /// The files in their order: the number, the name, and the SQL. They create everything in the schema that the search
    /// path begins with.
    pub fn scripts(&self) -> impl Iterator<Item = (i64, &str, &str)> {
        self.migrator.iter().map(|one| (one.version, &*one.description, one.sql.as_str()))
    }

    /// The numbers of those migrations that the database does not have. All of them if it has none, or does not answer.
    pub async fn missing(&self, db: &mut PgConnection, schema: &str) -> Vec<i64> {
        missing(db, &self.history(&quote_ident(schema)), self.migrator.iter().map(|one| one.version)).await
    }

    /// The migrations, with a history in this quoted schema.
    pub(crate) fn migrator(&self, schema: &str) -> Migrator {
        let mut migrator = Migrator::with_migrations(self.migrator.iter().cloned().collect());
        migrator.dangerous_set_table_name(self.history(schema));
        migrator
    }

    fn history(&self, schema: &str) -> String {
        format!("{schema}._{}_migrations", self.name)
    }
}

/// Those of the versions that are not in a history. The newest alone would not tell: an earlier one may have been left out.
pub(crate) async fn missing(
    db: &mut PgConnection,
    history: &str,
    versions: impl Iterator<Item = i64>,
) -> Vec<i64> {
    let applied = format!("select version from {history} where success");
    let applied: Vec<i64> =
        sqlx::query_scalar(AssertSqlSafe(applied)).fetch_all(db).await.unwrap_or_default();
    versions.filter(|version| !applied.contains(version)).collect()
}
